"""A subclass may use one of our public names for something else.

pyftpdlib's servers set ``self.backlog``; other programs use other names. So our code
neither looks up nor needs one of our public names on a channel that does not use one of
our features.
"""

from __future__ import annotations

import asynchat
import socket
from typing import Any

import pytest

import compat
from tests.support import turn_until

# Instances of the original have these.
ORIGINAL = {"ac_in_buffer", "incoming", "producer_fifo", *dir(asynchat.async_chat)}

OURS = sorted(
    name for name in set(dir(compat.async_chat)) - ORIGINAL if not name.startswith("_")
)


def method(self: object) -> str:
    return "the program's own"


def test_no_name_but_these_is_added_to_async_chat() -> None:
    assert OURS == [
        "ac_backlog_limit",
        "ac_backlog_size",
        "ac_coalesce_writes",
        "handle_backlog",
        "interest_changed",
        "pause_reading",
        "resume_reading",
        "watch_reads",
    ]


class Program(compat.async_chat):
    """A channel that echoes lines, and notes that its producers are used up."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.lines: list[bytes] = []
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data: bytes) -> None:
        self.lines.append(data)

    def found_terminator(self) -> None:
        self.push(self.lines[-1])
        self.push_with_producer(asynchat.simple_producer(b"?" * 300_000))
        self.push(b"!" * 300_000)
        self.close_when_done()

    def handle_error(self) -> None:
        raise  # noqa: PLE0704  # a test's own error is to be seen


@pytest.mark.parametrize(
    "value", [[], 0, "yes", method], ids=["list", "zero", "text", "method"]
)
@pytest.mark.parametrize("place", ["class", "instance"])
def test_name_of_ours_may_have_any_meaning(
    any_loop: str, value: Any, place: str
) -> None:
    names: dict[str, Any] = dict.fromkeys(OURS, value)
    kind = type("Kind", (Program,), names if place == "class" else {})
    ours, peer = socket.socketpair()
    with peer:
        channel = kind(ours)
        if place == "instance":
            for name in OURS:
                setattr(channel, name, value)
        peer.sendall(b"line\n")
        peer.setblocking(False)
        got = b""

        def ended() -> bool:
            nonlocal got
            try:
                data = peer.recv(1 << 20)
            except BlockingIOError:
                return False
            got += data
            return not data

        turn_until(any_loop, ended)
    assert got == b"line" + b"?" * 300_000 + b"!" * 300_000
