"""One step's run, as claims examine it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from compat.trace.model import Call, Event, TracedChannel, Turn

__all__ = ["Note", "StepRun"]


class Note(NamedTuple):
    """An event of a peer, or of the room, that no trace records.

    Attributes:
        turn: the number of turns before it.
        kind: a key of phrases.NOTES.
        peers: names of peers; empty for the room itself.
    """

    turn: int
    kind: str
    data: bytes
    peers: tuple[str, ...]


@dataclass
class StepRun:
    """Everything that one step did.

    Attributes:
        loop: the name of the loop that ran it.
        notes: in the order of the events.
        facts: measurements of the scenario.
        ports: the port of each peer, by which its channel is found in the trace.
        first, last: the numbers of its turns: first <= number <= last.
        turns: from the trace.
    """

    loop: str
    notes: list[Note]
    facts: dict[str, Any]
    ports: dict[str, int]
    first: int
    last: int
    turns: list[Turn] = field(default_factory=list)

    def received(self, peer: str) -> bytes:
        """Return everything that a peer received."""
        return b"".join(self._data("receives", peer))

    def message(self, peer: str) -> str:
        """Return the message that a peer received, without the sender's name."""
        return self.received(peer).decode().partition(" 说:")[2]

    def closed(self) -> set[str]:
        """Return the peers whose connection the room closed."""
        return {
            each for note in self.notes if note.kind == "ends" for each in note.peers
        }

    def printed(self) -> list[str]:
        """Return the room's lines on standard output."""
        return [data.decode() for data in self._data("prints")]

    def logged(self) -> list[str]:
        """Return the lines of the room's log."""
        return [data.decode() for data in self._data("logs")]

    def calls(self, name: str = "", of: str = "") -> list[Call]:
        """Return the calls of a method, of a peer's channel or of a class."""
        return [
            call
            for turn in self.turns
            for call in turn.calls()
            if name in ("", call.name) and (not of or self._is_of(call.channel, of))
        ]

    def errors(self, name: str, of: str = "") -> list[str]:
        """Return the types of the exceptions that these calls raised."""
        calls = self.calls(name, of)
        return [call.error.partition(":")[0] for call in calls if call.error]

    def interests(self, of: str) -> list[Event]:
        """Return the changes of interest of a peer's channel, or of a class."""
        events = [event for turn in self.turns for event in turn.interests]
        return [event for event in events if self._is_of(event.channel, of)]

    def peer_of(self, channel: TracedChannel) -> str:
        """Return the name of the peer of *channel*, or ""."""
        port = channel.peer.rpartition(":")[2]
        return next((name for name, own in self.ports.items() if port == str(own)), "")

    def names(self, channels: list[TracedChannel]) -> list[str]:
        """Return the peer of each channel, or else the channel's class."""
        return [self.peer_of(channel) or channel.class_name for channel in channels]

    def readable(self) -> list[list[str]]:
        """Return the names of the readable channels of each turn."""
        return [self.names(turn.read) for turn in self.turns]

    def writable(self) -> list[list[str]]:
        """Return the names of the writable channels of each turn."""
        return [self.names(turn.write) for turn in self.turns]

    def _is_of(self, channel: TracedChannel | None, of: str) -> bool:
        return channel is not None and of in (channel.class_name, self.peer_of(channel))

    def _data(self, kind: str, *peers: str) -> Iterator[bytes]:
        return (n.data for n in self.notes if n.kind == kind and n.peers == peers)
