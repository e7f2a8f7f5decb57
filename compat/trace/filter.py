"""A part of a trace: some turns, some channels, or only calls.

Rule: an entry that is kept stays in its place; the calls around it are kept too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from compat.trace.model import Entry, Event, TracedChannel, Turn, walk

__all__ = ["TurnFilter"]


@dataclass(frozen=True)
class TurnFilter:
    """The part of a trace to show; the default is everything.

    Attributes:
        first, last: numbers of turns, both included; last None for no limit.
        channels: their numbers; empty for all.
        calls_only: omit events, and turns without a call.
    """

    first: int = 0
    last: int | None = None
    channels: frozenset[int] = frozenset()
    calls_only: bool = False

    def apply(self, turns: Iterable[Turn]) -> Iterator[Turn]:
        """Yield the turns that are not empty after filtering."""
        if self == TurnFilter():
            yield from turns
            return
        for turn in turns:
            if turn.number < self.first:
                continue
            if self.last is not None and turn.number > self.last:
                continue
            part = self._filtered(turn)
            if part.entries or not (self.calls_only or self._is_empty(part)):
                yield part

    def _filtered(self, turn: Turn) -> Turn:
        def keep(channels: list[TracedChannel]) -> list[TracedChannel]:
            return [each for each in channels if self._has(each)]

        interests = [] if self.calls_only else turn.interests
        return replace(
            turn,
            read=keep(turn.read),
            write=keep(turn.write),
            urgent=keep(turn.urgent),
            interests=[each for each in interests if self._has(each.channel)],
            entries=self._entries(turn.entries),
        )

    def _entries(self, entries: list[Entry]) -> list[Entry]:
        # The kept children of each open call, the innermost last.
        kept: list[list[Entry]] = [[]]
        for entry, begins in walk(entries):
            if isinstance(entry, Event):
                is_kept = self._has(entry.channel) and not self.calls_only
                # Lost lines may belong to any channel.
                if is_kept or entry.kind == "lost":
                    kept[-1].append(entry)
            elif begins:
                kept.append([])
            else:
                children = kept.pop()
                if children or self._has(entry.channel):
                    kept[-1].append(replace(entry, children=children))
        return kept[0]

    def _has(self, channel: TracedChannel | None) -> bool:
        if not self.channels:
            return True
        return channel is not None and channel.number in self.channels

    def _is_empty(self, turn: Turn) -> bool:
        is_idle = not (turn.interests or turn.read or turn.write or turn.urgent)
        return bool(self.channels) and is_idle
