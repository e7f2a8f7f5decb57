"""Who is in the room, and what the room says on standard output.

Rule 1: joining and leaving cost the same however many are in the room.
Rule 2: the order is the order of joining, and nobody is in it twice.
Rule 3: what cannot be printed stops nothing: see legacy_chat.output.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, overload

import compat
from legacy_chat.counters import Counters
from legacy_chat.output import PATIENCE, write_line

if TYPE_CHECKING:
    from legacy_chat.session import ChatSession

__all__ = ["Clients", "say"]

logger = logging.getLogger("legacy_chat")


class Clients(compat.Audience):
    """The sessions in the room: the tutorial's list, without its linear searches.

    It has what programs did with that list: ``append``, ``remove``, ``in``, ``len``,
    iteration, comparison with a list, and indexing, which is the one that costs time
    in proportion to the room. ``push(data, but=session)`` tells everybody but one.

    Args:
        map: the map of the sessions; None for ``asyncore.socket_map``.
        counters: where what is said here is counted.
    """

    def __init__(
        self, map: compat.Map | None = None, counters: Counters | None = None
    ) -> None:
        super().__init__(map)
        self.counters = Counters() if counters is None else counters

    def append(self, session: ChatSession) -> None:
        """Let *session* in. Harmless if it is in already."""
        self.add(session)

    def remove(self, session: ChatSession) -> None:
        """Take *session* out.

        Raises:
            ValueError: it is not in the room, as from a list.
        """
        if session not in self:
            raise ValueError(f"{session!r} is not in the room")
        self.discard(session)

    def add(self, session: Any) -> None:
        """As append."""
        if self.counters.said:
            self.reckon()
        super().add(session)

    def discard(self, session: Any) -> None:
        """As remove, and harmless if it is not in."""
        if self.counters.said:
            self.reckon()
        super().discard(session)

    def reckon(self) -> None:
        """Bring the counters up to date."""
        # A speaker does not hear itself, but by its echo. One that was not here when it
        # spoke is made up for by the session.
        self.counters.reckon(len(self) - 1)

    @overload
    def __getitem__(self, index: int) -> ChatSession: ...
    @overload
    def __getitem__(self, index: slice) -> list[ChatSession]: ...
    def __getitem__(self, index: int | slice) -> ChatSession | list[ChatSession]:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Clients | list):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes, as a list does

    def __repr__(self) -> str:
        return repr(list(self))


class _Printed:
    """What is printed on standard output, and whether the last line could be."""

    failed = False

    def say(self, line: str) -> None:
        if sys.stdout is None:
            return
        try:
            write_line(sys.stdout, line, 0.0 if self.failed else PATIENCE)
        except (OSError, ValueError) as error:
            if not self.failed:
                logger.warning("could not print a line: %s; the room goes on", error)
            self.failed = True
        else:
            self.failed = False


def say(line: str) -> None:
    """Print one of the tutorial's lines, at once, even into a pipe; or lose it.

    The first of those that cannot be printed is told of in the log.
    """
    _printed.say(line)


_printed = _Printed()
