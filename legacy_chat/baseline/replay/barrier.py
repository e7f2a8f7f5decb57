"""The barrier: the proof that a step is over.

The witness is the tool's own client, connected during the whole conversation. After
each action it sends three unique messages, the *markers*. It sends each marker when the
previous one has come back. Three markers are sufficient and necessary:

- The action has reached the server's sockets when its system call returns, before
  anything that the witness sends afterwards (see ``on_one_cpu``).
- The first marker came back, so a turn has polled the sockets since. select() checks
  them one by one: the turn may have checked the acting client's socket before the
  action and the witness's after it. The *next* turn finds the action at the latest.
- The server may read the second marker in that turn, before the action. The witness
  sends the third one when the second has come back, so the server reads it in a later
  turn. Each client receives everything that the action caused, then this marker.
- Data and the close after it take one read each, so two turns, and four markers.
- A client that was disconnected, or has left, receives EOF or a reset instead of the
  last marker. The step is over when each client has received one of them.
- A message that takes several reads takes as many turns. Each turn sends data to some
  client. So the step is over when three markers in a row arrive and nothing else does.
- A client without the last marker may not be in the room yet, because a server may
  accept clients over several turns. So the witness sends more markers until all clients
  have received the last one.

Rule 1: a turn dispatches to every channel that was ready when polled, in any order, and
to none twice before the next poll.
Rule 2: no client sends data right before a reset. The server may read the witness's
marker first, in the same turn. Forwarding the marker then fails, and the server, also
the original one, closes the client with its data unread. After a normal close, the
first marker can still be sent. A server polls the witness, which connected first,
before the client, so it has found the close by the second marker.
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

from legacy_chat.baseline.model.errors import ReplayError
from legacy_chat.baseline.model.profile import BarrierMessages
from legacy_chat.baseline.model.transcript import Action
from legacy_chat.baseline.replay.client_pool import Client, ClientPool

__all__ = ["WITNESS", "Barrier", "on_one_cpu"]

# The witness's name; a transcript may include the data that it received.
WITNESS = "witness"

# Bytes of a send that one read returns whole. Segments of the loopback have 65,483.
ONE_READ = 16384

# Added to an error when the markers do not arrive.
NEEDS = (
    "A barrier needs a server that sends the witness's markers to every client, the "
    "witness included; for any other server, leave [barrier] out of the profile"
)

# Seconds to wait for a marker at all clients before the witness sends another one.
GRACE = 0.1


class Barrier:
    """The witness and its markers; *address* is its own, as the server writes it."""

    def __init__(
        self, pool: ClientPool, messages: BarrierMessages, address: bytes
    ) -> None:
        self._pool = pool
        self._messages = messages
        self._witness = pool[WITNESS]
        self._forms = [
            form.replace(b"{witness}", address)
            for form in messages.receive or (messages.send,)
        ]
        patterns = (
            re.escape(form).replace(rb"\{n\}", rb"(\d{1,18})") for form in self._forms
        )
        self._any_marker = re.compile(b"|".join(patterns))
        # The numbers of the step's first marker, and of the last one that was sent.
        self._first, self._last = 1, 0
        # The last marker as it may arrive, and where to search each client for it.
        self._expected: list[bytes] = []
        self._search_from: dict[Client, int] = {}

    def begin(self) -> None:
        """Send the witness's hello and a first marker, and wait for them."""
        hello, welcome = self._messages.hello, self._messages.welcome
        self._pool.send(self._witness, hello)
        matches = re.compile(welcome).search
        if welcome and not self._witness_has(lambda c: bool(matches(c.received))):
            raise ReplayError(
                f"barrier: the witness sent hello {hello!r} and received no welcome "
                f"that matches {welcome!r} {self._in_time(self._witness)}"
            )
        if not self._send_marker():
            raise ReplayError(
                f"barrier: the witness sent {self._marker()!r} and did not receive "
                f"{' or '.join(map(repr, self._expected))} "
                f"{self._in_time(self._witness)}. {NEEDS}"
            )
        if self._witness.end:
            raise ReplayError("the server has closed the witness, which only connected")
        self._witness.received.clear()
        self.end_step()

    def settle(self, action: Action) -> None:
        """Return when everything that *action* causes has arrived."""
        closes = bool(action.data) and action.do != "send"
        for _ in range(self._messages.rounds_after(closes=closes)):
            self._round_trip()
        self._reach_all()
        if len(action.data) > ONE_READ:
            self._drain()
        if self._witness.end:
            # The server is gone; wait for the ends of the other connections.
            self._pool.until(self._pool, lambda client: bool(client.end), GRACE)

    def clean(self, data: bytes) -> bytes:
        """Return *data* without the markers sent since the last step."""
        return self._any_marker.sub(self._without, data)

    def end_step(self) -> None:
        """End the step: none of its markers can arrive any more."""
        self._first = self._last + 1

    def _round_trip(self) -> None:
        """Send the next marker, and wait until it has come back to the witness."""
        if not self._send_marker():
            raise ReplayError(
                "the witness sent a marker, and received nothing back "
                f"{self._in_time(self._witness)}"
            )

    def _send_marker(self) -> bool:
        """Send the next marker; return whether the witness received it, or its end."""
        if self._witness.end:
            return True
        self._last += 1
        number = b"%d" % self._last
        self._expected = [form.replace(b"{n}", number) for form in self._forms]
        # The data that has arrived so far cannot contain the marker.
        self._search_from = {client: len(client.received) for client in self._pool}
        self._pool.send(self._witness, self._marker())
        return self._witness_has(self._has_marker)

    def _witness_has(self, holds: Callable[[Client], bool]) -> bool:
        return not self._pool.until([self._witness], lambda c: bool(c.end) or holds(c))

    def _reach_all(self) -> None:
        """Wait until each client has received the last marker, or its end."""
        end = time.monotonic() + self._pool.timeout
        while missing := self._pool.until(self._pool, self._has_marker, GRACE):
            if self._witness.end:
                return
            if time.monotonic() > end:
                raise ReplayError(
                    f"{missing[0].name} received neither the witness's markers nor its "
                    f"end {self._in_time(missing[0])}. {NEEDS}"
                )
            self._round_trip()

    def _drain(self) -> None:
        """Send markers until enough of them arrive without other data."""
        alone = 0
        end = time.monotonic() + self._pool.timeout
        while alone < self._messages.rounds and not self._witness.end:
            if time.monotonic() > end:
                raise ReplayError(
                    "data besides the witness's markers has kept arriving for "
                    f"{self._pool.timeout:g} s"
                )
            before = {client: len(client.received) for client in self._pool}
            self._round_trip()
            self._reach_all()
            news = (self.clean(bytes(c.received[n:])) for c, n in before.items())
            alone = 0 if any(news) else alone + 1

    def _has_marker(self, client: Client) -> bool:
        """Return whether the client received the last marker, or its end."""
        start = self._search_from.get(client, 0)
        found = [client.received.find(form, start) for form in self._expected]
        if client.end or max(found) >= 0:
            return True
        # The longest form may have arrived in part.
        size = len(client.received) - max(map(len, self._expected)) + 1
        self._search_from[client] = max(start, size)
        return False

    def _marker(self) -> bytes:
        """Return the last marker, as the witness sends it."""
        return self._messages.send.replace(b"{n}", b"%d" % self._last)

    def _without(self, match: re.Match[bytes]) -> bytes:
        number = next(int(each) for each in match.groups() if each is not None)
        return b"" if self._first <= number <= self._last else match[0]

    def _in_time(self, client: Client) -> str:
        last = bytes(client.received[-80:])
        got = f"the last of its data is {last!r}" if last else "it received no data"
        return f"within {self._pool.timeout:g} s: {got}"


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
