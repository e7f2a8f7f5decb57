"""The barrier: the proof that a step is over.

The witness is the tool's own client, connected during the whole conversation. After
each action it sends three unique messages, the *words*. It sends each word when the
previous one has come back. Three words are sufficient and necessary:

- The action has reached the server's sockets when its system call returns, before
  anything that the witness sends afterwards (see ``on_one_cpu``).
- The first word came back, so a turn has polled the sockets since. select() checks them
  one by one: the turn may have checked the acting client's socket before the action and
  the witness's after it. The *next* turn finds the action at the latest.
- The server may read the second word in that turn, before the action. The witness sends
  the third one when the second has come back, so the server reads it in a later turn.
  Each client in the room receives everything that the action caused, then this word.
- Data and the close after it take one read each, so two turns, and four words.
- A client that was disconnected, or has left, receives EOF or a reset instead of the
  last word. The step is over when each client has received one of them.
- A message that takes several reads takes as many turns. Each turn sends data to some
  client. So the step is over when three words in a row arrive and nothing else does.
- A client without the last word may not be in the room yet, because a server may accept
  clients over several turns. So the witness sends more words until all clients have
  received the last one.

Rule 1: a turn dispatches to every channel that was ready when polled, in any order, and
to none twice before the next poll.
Rule 2: no client sends data right before a reset. The server may read the witness's
word first, in the same turn. Forwarding the word then fails, and the server, also the
original one, closes the client with its data unread. After a normal close, the first
word can still be sent. A server polls the witness, which connected first, before the
client, so it has found the close by the second word.
Rule 3: the disconnection of the witness is an event like any other, and the last one.

A server with one thread for each client keeps neither of the first two rules; without a
barrier, the steps end by quiescence.py.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from legacy_chat.baseline.model.errors import RunError
from legacy_chat.baseline.model.format import Action
from legacy_chat.baseline.model.profile import BarrierMessages
from legacy_chat.baseline.replay.client_pool import Client, ClientPool

__all__ = ["WITNESS", "Barrier", "on_one_cpu"]

# The witness's name; a transcript may include the data that it received.
WITNESS = "witness"

# Bytes of a send that one read returns whole. Segments of the loopback have 65,483.
ONE_READ = 16384

# Added to an error when the words do not arrive.
NEEDS = (
    "A barrier needs a server that sends the witness's words to every client, the "
    "witness included; for any other server, leave [barrier] out of the profile"
)

# Seconds to wait for a word at all clients before the witness sends another one.
GRACE = 0.1


class Barrier:
    """The witness and its words.

    Args:
        pool: the clients of the conversation, with the witness.
        address: the witness's address, as the server writes it.
    """

    def __init__(
        self, pool: ClientPool, words: BarrierMessages, address: bytes
    ) -> None:
        self._pool = pool
        self._words = words
        self._witness = pool[WITNESS]
        forms = [form.replace(b"{witness}", address) for form in words.receive]
        self._forms = forms
        numbered = [
            re.escape(form).replace(rb"\{n\}", rb"(\d{1,18})") for form in forms
        ]
        self._any_word = re.compile(b"|".join(numbered))
        self._first = 1
        self._last = 0

    def begin(self) -> None:
        """Send the witness's hello and a first word, and wait for them.

        Raises:
            RunError: the welcome or the word does not arrive, or the server has closed
                the witness.
        """
        words = self._words
        self._pool.send(self._witness, words.hello)
        if words.welcome:
            welcome = re.compile(words.welcome)
            if not self._witness_gets(lambda client: bool(welcome.search(client.got))):
                raise RunError(
                    f"barrier: the witness sent hello {words.hello!r} and received no "
                    f"welcome that matches {words.welcome!r} in "
                    f"{self._pool.timeout:g} s: {_last_of(self._witness)}"
                )
        if not self._say_next():
            raise RunError(
                f"barrier: the witness sent {self._say()!r} and did not receive "
                f"{' or '.join(map(repr, self._expected()))} in "
                f"{self._pool.timeout:g} s: {_last_of(self._witness)}. {NEEDS}"
            )
        if self._witness.end:
            raise RunError("the server has closed the witness, which had done nothing")

    def settle(self, action: Action) -> None:
        """Return when everything that *action* causes has arrived.

        Raises:
            RunError: the words do not arrive at the witness, or at another client.
        """
        ends = bool(action.data) and action.do != "send"
        for _ in range(self._words.rounds_at_close if ends else self._words.rounds):
            self._hear_back()
        self._everybody_hears()
        if len(action.data) > ONE_READ:
            self._until_words_come_alone()
        if self._witness.end:
            # The server is gone; wait for the ends of the other connections.
            self._pool.until(self._pool, lambda client: bool(client.end), GRACE)

    def clean(self, data: bytes) -> bytes:
        """Return *data* without the words sent since the last step."""
        return self._any_word.sub(self._without, data)

    def forget(self) -> None:
        """End the step: none of its words can arrive any more."""
        self._first = self._last + 1

    def _hear_back(self) -> None:
        """Send the next word, and wait until it has come back to the witness."""
        if not self._say_next():
            raise RunError(
                "the witness said something, and nothing came back in "
                f"{self._pool.timeout:g} s: {_last_of(self._witness)}"
            )

    def _say_next(self) -> bool:
        """Send the next word; return whether the witness received it, or its end."""
        if self._witness.end:
            return True
        self._last += 1
        self._pool.send(self._witness, self._say())
        return self._witness_gets(self._has_heard)

    def _witness_gets(self, holds: Callable[[Client], bool]) -> bool:
        return not self._pool.until([self._witness], lambda c: bool(c.end) or holds(c))

    def _everybody_hears(self) -> None:
        """Wait until each client has received the last word, or its end."""
        end = time.monotonic() + self._pool.timeout
        while deaf := self._pool.until(self._pool, self._has_heard, GRACE):
            if self._witness.end:
                return
            if time.monotonic() > end:
                raise RunError(
                    f"{deaf[0].name} got neither the witness's words nor its end in "
                    f"{self._pool.timeout:g} s: {_last_of(deaf[0])}. {NEEDS}"
                )
            self._hear_back()

    def _until_words_come_alone(self) -> None:
        alone = 0
        end = time.monotonic() + self._pool.timeout
        while alone < self._words.rounds and not self._witness.end:
            if time.monotonic() > end:
                raise RunError(
                    f"something besides the witness's words has kept arriving for "
                    f"{self._pool.timeout:g} s"
                )
            before = {client: len(client.got) for client in self._pool}
            self._hear_back()
            self._everybody_hears()
            news = (self.clean(bytes(c.got[size:])) for c, size in before.items())
            alone = 0 if any(news) else alone + 1

    def _has_heard(self, client: Client) -> bool:
        return bool(client.end) or any(each in client.got for each in self._expected())

    def _say(self) -> bytes:
        """Return the last word, as the witness sends it."""
        return self._words.send.replace(b"{n}", b"%d" % self._last)

    def _expected(self) -> list[bytes]:
        """Return the forms in which the last word may arrive."""
        return [form.replace(b"{n}", b"%d" % self._last) for form in self._forms]

    def _without(self, match: re.Match[bytes]) -> bytes:
        number = next(int(each) for each in match.groups() if each is not None)
        return b"" if self._first <= number <= self._last else match[0]


def _last_of(client: Client) -> str:
    if not client.got:
        return "it got nothing at all"
    return f"the last of what it got is {bytes(client.got[-80:])!r}"


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Bind this thread to one processor, so that its segments arrive in order.

    On the loopback, Linux queues a segment at the sender's processor and normally
    delivers it before send() returns. Under load, Linux may deliver it later. A segment
    sent from another processor could then arrive first.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
