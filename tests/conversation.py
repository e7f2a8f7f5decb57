"""Plays a conversation to a server, step by step, and tells what every client got.

A step is one action of one client. It is over by evidence; no time is waited for. The
evidence is given by a witness, a client of ours that is in the room from the beginning
to the end. After each action it says three words that nobody else says, the next one
when the one before has come back to it. That is enough, and fewer are not:

- The action has reached the server's sockets when the call that did it returns, before
  anything that the witness says afterwards (see ``_on_one_cpu``).
- The first word came back, so a turn has looked at the sockets since. It may have
  looked at the acting client's before the action and at the witness's after it, for
  select() looks at them one by one. The *next* turn finds the action at the latest.
- The second word may be read in that very turn, before the action. The third is said
  when the second has come back, so it is read in a later turn: whoever is in the room
  gets everything that the action caused, then the third word.
- Last words and the end after them take a read each, so two turns, and four words.
- Whoever was thrown out, or has left, gets its end in place of the last word. So each
  client is listened to until it has got one or the other, and the step is over.

Rule 1: a turn calls every channel that was ready when it looked, and none again before
it has looked again. It need not call them in any order.
Rule 2: an action is one segment, which the server takes with one read. A longer one is
over when all of its echo has come; what the others got of it is cut by chance.
Rule 3: nobody says last words before a reset. The witness's words may be read first,
in the same turn; sending them on then fails, and the server, the original too, closes
the client with its last words unread. After an ordinary end the first word can still
be sent; and a server looks at the witness, who came first, before it looks at the
client, so it has found the client by the second.
Rule 4: at the end everybody takes leave with ``out`` and sees the connection end: the
next conversation finds an empty room.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import NamedTuple

from tests.support import Peer

__all__ = ["WITNESS", "Action", "Conversation", "Got", "Heard"]

# The witness's name; what it has heard of the others is part of what is told.
WITNESS = "witness"

# Bytes of a send that is read whole. The loopback's segments take 65,483.
ONE_READ = 16384

# A client's name, wherever the room has written it.
NAME = re.compile("用户([0-9a-f.:]+)(?= 说:|退出聊天)".encode())


class Action(NamedTuple):
    """What a client does in a step.

    Attributes:
        do: "open", "send"; "drop" closes the socket, "reset" closes it with a reset,
            "half-close" goes on listening.
        data: what is sent; before a drop or a half-close: the last words, with nothing
            waited for in between.
    """

    client: str
    do: str
    data: bytes = b""


class Got(NamedTuple):
    """What one client got in a step, and whether its connection has ended."""

    data: bytes
    ended: bool = False


# What was got in a step, by client. Who got nothing is not in it.
Heard = dict[str, Got]


class Conversation:
    """A conversation with the room at *address*; each client's name is its to choose.

    Names take the place of addresses in what is told: ``用户{a} 说:hi``.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._present: dict[str, _Client] = {}
        self._names: dict[bytes, str] = {}
        self._words = 0
        self._cleanup = ExitStack()

    def __enter__(self) -> Conversation:
        with self._cleanup:
            self._cleanup.enter_context(_on_one_cpu())
            self._witness = self._join(WITNESS)
            self._hear_back()
            self._witness.got = b""
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._cleanup:
            if error is None:
                # The witness came first and goes last.
                for client in reversed(list(self._present.values())):
                    client.send(b"out")
                    client.wait_for_end()

    def step(self, action: Action) -> Heard:
        """Do it; return what everybody got of it.

        Raises:
            ValueError: there is no such action, or it proves nothing.
            KeyError: the client has not come, or has gone.
            AssertionError: something that must come did not, in the tests' deadline.
        """
        self._do(action)
        first = self._words + 1
        for _ in range(4 if action.data and action.do != "send" else 3):
            word = self._hear_back()
        heard: Heard = {}
        for name, client in list(self._present.items()):
            client.listen_for(word)
            got = Got(self._bound(client.got, first), client.ended)
            client.got = b""
            if got.data or got.ended:
                heard[name] = got
            if client.ended:
                self._go(name)
        return heard

    def _do(self, action: Action) -> None:
        name, do, data = action
        if do == "open" and name not in self._present:
            self._join(name)
            return
        client = self._present[name]
        if data:
            _check(client, action)
            client.said += data
            client.send(data)
        if do == "drop":
            self._go(name)
        elif do == "reset":
            client.reset()
            self._go(name)
        elif do == "half-close":
            client.stop_sending()
        elif do != "send":
            raise ValueError(f"{action} is nothing that a client can do")
        elif len(data) > ONE_READ:
            client.listen_for_echo(data)

    def _join(self, name: str) -> _Client:
        client = _Client(self._address)
        self._cleanup.callback(client.close)
        self._present[name] = client
        self._names[client.name.encode()] = name
        return client

    def _go(self, name: str) -> None:
        self._present.pop(name).close()

    def _hear_back(self) -> bytes:
        """The witness's next word, once it has come back to the witness."""
        self._words += 1
        word = _word(self._words)
        self._witness.send(word)
        self._witness.listen_for(word)
        if self._witness.ended:
            raise AssertionError("the server has closed the witness, or is gone")
        return word

    def _bound(self, data: bytes, first: int) -> bytes:
        """What was got, without the witness's words, with names for addresses."""
        prefix = f"用户{self._witness.name} 说:".encode()
        for number in range(first, self._words + 1):
            data = data.replace(prefix + _word(number), b"")
            data = data.replace(_word(number), b"")
        return NAME.sub(self._name, data)

    def _name(self, match: re.Match[bytes]) -> bytes:
        name = self._names.get(match[1])
        return f"用户{{{name}}}".encode() if name else match[0]


class _Client(Peer):
    """A peer that remembers what it has said, too."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self.said = b""

    def listen_for(self, word: bytes) -> None:
        """Until it has come, or the end."""
        while word not in self.got and not self.ended:
            self.acknowledge()
            self.receive(f"neither {word.decode()} nor the end came")

    def listen_for_echo(self, data: bytes) -> None:
        """Until all has come that comes back of it: all before ``out``, or the end."""
        before, out, _ = data.partition(b"out")
        while not self.ended and (out or len(self.got) < len(before)):
            self.receive("the echo did not come back")

    def acknowledge(self) -> None:
        """What has come, at once: the tutorial's server waits for that, with Nagle.

        The kernel would take 40 ms for it whenever we have nothing to send.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def stop_sending(self) -> None:
        # The room may have closed first: the last words had an "out" in them.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)


def _word(number: int) -> bytes:
    """Nobody else says it, and it does not end in what could begin an ``out``."""
    return f"⟦{number}⟧".encode()


def _check(client: _Client, action: Action) -> None:
    """Refuse what would not be over when its step is over."""
    _, do, data = action
    if do == "reset":
        raise ValueError(f"last words before a reset may be lost: {action}")
    # Its echo tells that it has been read, unless some of it is held back.
    held_back = (b"o", b"ou")
    if len(data) > ONE_READ and (
        do != "send" or data.endswith(held_back) or client.said.endswith(held_back)
    ):
        raise ValueError(f"{len(data)} bytes whose echo does not tell when they end")


@contextmanager
def _on_one_cpu() -> Iterator[None]:
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
