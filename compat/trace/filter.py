"""A part of a trace: some turns, some channels, calls alone.

Rule: what is kept stands where it stood: the calls around it are kept too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from compat.trace.model import Entry, Event, TracedChannel, Turn, walk

__all__ = ["ALL", "TurnFilter", "chosen"]


@dataclass(frozen=True)
class TurnFilter:
    """What is to be seen.

    Attributes:
        first, last: numbers of turns, both included; last None for no limit.
        channels: numbers; none for all.
        calls_only: nothing but calls, and no turn without one.
    """

    first: int = 0
    last: int | None = None
    channels: frozenset[int] = frozenset()
    calls_only: bool = False


ALL = TurnFilter()


def chosen(turns: Iterable[Turn], choice: TurnFilter) -> Iterator[Turn]:
    """The turns that *choice* leaves something of, with what it leaves."""
    if choice == ALL:
        yield from turns
        return
    for turn in turns:
        if turn.number < choice.first:
            continue
        if choice.last is not None and turn.number > choice.last:
            continue
        part = _part(turn, choice)
        if choice.calls_only and not part.entries:
            continue
        if not choice.channels or _is_told_of(part):
            yield part


def _part(turn: Turn, choice: TurnFilter) -> Turn:
    def of(channels: list[TracedChannel]) -> list[TracedChannel]:
        return [each for each in channels if _is_of(each, choice)]

    return replace(
        turn,
        read=of(turn.read),
        write=of(turn.write),
        urgent=of(turn.urgent),
        interests=[
            each
            for each in turn.interests
            if _is_of(each.channel, choice) and not choice.calls_only
        ],
        entries=_kept(turn.entries, choice),
    )


def _kept(entries: list[Entry], choice: TurnFilter) -> list[Entry]:
    # What is kept of each call that is walked through, the innermost last.
    kept: list[list[Entry]] = [[]]
    for entry, begins in walk(entries):
        if isinstance(entry, Event):
            is_kept = _is_of(entry.channel, choice) and not choice.calls_only
            # What is missing may be of any channel.
            if is_kept or entry.kind == "lost":
                kept[-1].append(entry)
        elif begins:
            kept.append([])
        else:
            inside = kept.pop()
            if inside or _is_of(entry.channel, choice):
                kept[-1].append(replace(entry, children=inside))
    return kept[0]


def _is_of(channel: TracedChannel | None, choice: TurnFilter) -> bool:
    if not choice.channels:
        return True
    return channel is not None and channel.number in choice.channels


def _is_told_of(turn: Turn) -> bool:
    """Whether anything is left of a turn, apart from its wait."""
    return bool(
        turn.entries or turn.interests or turn.read or turn.write or turn.urgent
    )
