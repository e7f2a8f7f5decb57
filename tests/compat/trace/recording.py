"""Helpers of the recorder's tests: real channels that are traced, and the trace.

Rule 1: every trace goes through a file and the reader, as for users.
Rule 2: a channel here is one end of a socket pair, and its peer is the other.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import compat
from compat.trace.model import Call, Event, Turn, walk
from compat.trace.reader import Reader, read_trace
from tests.support import Peer, turn_until

__all__ = ["Line", "Recording", "recorded"]


class Recording:
    """A finished trace.

    Attributes:
        turns, reader: as read back. lines: all lines but the header, unchanged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turns: list[Turn] = []
        self.reader = Reader()
        self.lines: list[dict[str, Any]] = []

    def read(self) -> None:
        """Read the trace, and check the promises of every trace."""
        self.turns = list(read_trace(self.path, self.reader))
        assert self.reader.is_intact
        lines = self.path.read_bytes().splitlines()
        self.lines = [json.loads(line) for line in lines[1:]]
        for call in self.calls():
            for inner in call.children:
                end = inner.end if isinstance(inner, Call) else inner.at
                assert inner.depth == call.depth + 1 or not isinstance(inner, Call)
                # Each duration is rounded down separately.
                assert call.at <= inner.at
                assert end <= call.end + 1

    def calls(self, do: str = "", channel: int | None = None) -> list[Call]:
        """All calls, outer ones before those in them; or those of a name, a channel."""
        return [
            call
            for turn in self.turns
            for call in turn.calls()
            if do in ("", call.name)
            and (channel is None or (call.channel and call.channel.number == channel))
        ]

    def events(self, what: str, channel: int | None = None) -> list[Event]:
        """All events of a kind, those before a turn's wait included."""
        return [
            entry
            for turn in self.turns
            for entry, begins in walk([*turn.interests, *turn.entries])
            if begins
            and isinstance(entry, Event)
            and entry.kind == what
            and (channel is None or (entry.channel and entry.channel.number == channel))
        ]

    def number(self, kind: str) -> int:
        """The channel of the only object of a class."""
        (number,) = {
            event.channel.number
            for event in self.events("open")
            if event.channel is not None and event.channel.class_name == kind
        }
        return number

    def number_of(self, line: Line) -> int:
        """The channel of one of several objects, whose descriptor did not come back."""
        (number,) = {
            event.channel.number
            for event in self.events("open")
            if event.channel is not None and event.fields["fd"] == line.fd
        }
        return number

    def changes(self, channel: int, name: str) -> list[Any]:
        """Return the successive values of one field of a channel's state."""
        states = self.events("state", channel)
        return [event.fields[name] for event in states if name in event.fields]


@contextmanager
def recorded(folder: Path, **options: Any) -> Iterator[Recording]:
    """Trace the body; on exit, read the trace."""
    recording = Recording(folder / "a.trace")
    with compat.tracing(recording.path, **options):
        yield recording
    recording.read()


class Line(compat.async_chat):
    """A channel that collects its peer's data, up to the terminator ``out``."""

    def __init__(self, map: Any = None, size: int = 0) -> None:
        ours, theirs = socket.socketpair()
        if size:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        self.peer = Peer(theirs)
        self.received: list[bytes] = []
        self.ends = 0
        super().__init__(ours, map)
        self.fd = ours.fileno()
        self.set_terminator(b"out")

    def collect_incoming_data(self, data: bytes) -> None:
        self.received.append(data)

    def found_terminator(self) -> None:
        self.ends += 1

    def close(self) -> None:
        super().close()
        self.peer.close()

    def receive(self, loop: str, data: bytes, map: Any = None) -> None:
        """Send from the peer, and run the loop until the data has been collected."""
        before = len(self.received)
        self.peer.send(data)
        turn_until(loop, lambda: len(self.received) > before, map)
