"""When a step is over: the proof of a witness.

The witness is a client of ours that is in the room from the beginning to the end. After
each action it says three words that nobody else says, the next one when the one before
has come back to it. That is enough, and fewer are not:

- The action has reached the server's sockets when the call that did it returns, before
  anything that the witness says afterwards (see ``on_one_cpu``).
- The first word came back, so a turn has looked at the sockets since. It may have
  looked at the acting client's before the action and at the witness's after it, for
  select() looks at them one by one. The *next* turn finds the action at the latest.
- The second word may be read in that very turn, before the action. The third is said
  when the second has come back, so it is read in a later turn: whoever is in the room
  gets everything that the action caused, then the third word.
- Last words and the end after them take a read each, so two turns, and four words.
- Whoever was thrown out, or has left, gets its end in place of the last word. So each
  client is listened to until it has got one or the other, and the step is over.
- A message that takes several reads takes as many turns. Each brings something to
  somebody, so the step is over when three words in a row come and nothing else does.
- Whoever has not got the last word may not be in the room yet: a server may let clients
  in over several turns. So there is one more word, until everybody has got the last.

Rule 1: a turn calls every channel that was ready when it looked, and none again before
it has looked again. It need not call them in any order.
Rule 2: nobody says last words before a reset. The witness's words may be read first,
in the same turn; sending them on then fails, and the server, the original too, closes
the client with its last words unread. After an ordinary end the first word can still
be sent; and a server looks at the witness, who came first, before it looks at the
client, so it has found the client by the second.
Rule 3: a witness that is thrown out is an event like others, and the last.

A server with a thread for each client keeps neither rule: that one needs the quiet.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from legacy_chat.baseline.crowd import Client, Crowd
from legacy_chat.baseline.errors import RunError
from legacy_chat.baseline.format import Action
from legacy_chat.baseline.profile import FenceWords

__all__ = ["WITNESS", "Fence", "on_one_cpu"]

# The witness's name; what it has heard of the others can be part of what is told.
WITNESS = "witness"

# Bytes of a send that is read whole. The loopback's segments take 65,483.
ONE_READ = 16384

# Added to an error when the words do not arrive.
NEEDS = (
    "A fence needs a server that sends the witness's words to every client, the "
    "witness included; for any other server, leave [fence] out of the profile"
)

# Seconds after which somebody who has not got a word gets another one.
GRACE = 0.1


class Fence:
    """The witness and its words.

    Args:
        crowd: the clients of the conversation; the witness has just come to it.
        address: the witness's, as the server writes it.
    """

    def __init__(self, crowd: Crowd, words: FenceWords, address: bytes) -> None:
        self._crowd = crowd
        self._words = words
        self._witness = crowd[WITNESS]
        forms = [form.replace(b"{witness}", address) for form in words.heard]
        self._forms = forms
        numbered = [
            re.escape(form).replace(rb"\{n\}", rb"(\d{1,18})") for form in forms
        ]
        self._any_word = re.compile(b"|".join(numbered))
        self._first = 1
        self._last = 0

    def begin(self) -> None:
        """Let the witness introduce itself, and see that it is heard.

        Raises:
            RunError: it is not.
        """
        words = self._words
        self._crowd.send(self._witness, words.hello)
        if words.welcome:
            welcome = re.compile(words.welcome)
            if not self._witness_gets(lambda client: bool(welcome.search(client.got))):
                raise RunError(
                    f"fence: the witness sent hello {words.hello!r} and received no "
                    f"welcome that matches {words.welcome!r} in "
                    f"{self._crowd.timeout:g} s: {_last_of(self._witness)}"
                )
        if not self._say_next():
            raise RunError(
                f"fence: the witness sent {self._say()!r} and did not receive "
                f"{' or '.join(map(repr, self._expected()))} in "
                f"{self._crowd.timeout:g} s: {_last_of(self._witness)}. {NEEDS}"
            )
        if self._witness.end:
            raise RunError("the server has closed the witness, which had done nothing")

    def settle(self, action: Action) -> None:
        """Return when everything that *action* causes has come.

        Raises:
            RunError: the witness's words do not come back, or not to everybody.
        """
        ends = bool(action.data) and action.do != "send"
        for _ in range(self._words.last_words if ends else self._words.words):
            self._hear_back()
        self._everybody_hears()
        if len(action.data) > ONE_READ:
            self._until_words_come_alone()
        if self._witness.end:
            # The server is gone; the others get their ends as well.
            self._crowd.until(self._crowd, lambda client: bool(client.end), GRACE)

    def clean(self, data: bytes) -> bytes:
        """What was got, without the words that were said since the last step."""
        return self._any_word.sub(self._without, data)

    def forget(self) -> None:
        """The step is told: what was said in it will not come any more."""
        self._first = self._last + 1

    def _hear_back(self) -> None:
        """Say the next word, and wait until it has come back to the witness."""
        if not self._say_next():
            raise RunError(
                "the witness said something, and nothing came back in "
                f"{self._crowd.timeout:g} s: {_last_of(self._witness)}"
            )

    def _say_next(self) -> bool:
        """Send the next word; return whether the witness got it back, or its end."""
        if self._witness.end:
            return True
        self._last += 1
        self._crowd.send(self._witness, self._say())
        return self._witness_gets(self._has_heard)

    def _witness_gets(self, holds: Callable[[Client], bool]) -> bool:
        return not self._crowd.until([self._witness], lambda c: bool(c.end) or holds(c))

    def _everybody_hears(self) -> None:
        """Each client gets the last word, or its end."""
        end = time.monotonic() + self._crowd.timeout
        while deaf := self._crowd.until(self._crowd, self._has_heard, GRACE):
            if self._witness.end:
                return
            if time.monotonic() > end:
                raise RunError(
                    f"{deaf[0].name} got neither the witness's words nor its end in "
                    f"{self._crowd.timeout:g} s: {_last_of(deaf[0])}. {NEEDS}"
                )
            self._hear_back()

    def _until_words_come_alone(self) -> None:
        alone = 0
        end = time.monotonic() + self._crowd.timeout
        while alone < self._words.words and not self._witness.end:
            if time.monotonic() > end:
                raise RunError(
                    f"something besides the witness's words has kept arriving for "
                    f"{self._crowd.timeout:g} s"
                )
            before = {client: len(client.got) for client in self._crowd}
            self._hear_back()
            self._everybody_hears()
            news = (self.clean(bytes(c.got[size:])) for c, size in before.items())
            alone = 0 if any(news) else alone + 1

    def _has_heard(self, client: Client) -> bool:
        return bool(client.end) or any(each in client.got for each in self._expected())

    def _say(self) -> bytes:
        """The last word, as the witness sends it."""
        return self._words.say.replace(b"{n}", b"%d" % self._last)

    def _expected(self) -> list[bytes]:
        """The forms in which the last word may arrive."""
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
    """Let this thread send from one processor, so that nothing overtakes anything.

    On the loopback, Linux queues a segment at the sender's processor and normally
    delivers it before send() returns. Under load it may leave it for later; a thread
    that has moved to another processor would then overtake itself.
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
