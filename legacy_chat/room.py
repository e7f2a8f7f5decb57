"""Who is in the room, and what the room says on standard output.

Rule 1: joining and leaving cost the same however many are in the room.
Rule 2: the order is the order of joining, and nobody is in it twice.
Rule 3: what cannot be printed stops nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, overload

import compat

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
    """

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


def say(line: str) -> None:
    """Print one of the tutorial's lines, at once, even into a pipe."""
    try:
        print(line, flush=True)
    except (OSError, ValueError) as error:
        # Closed, full, or an encoding without Chinese: the room goes on.
        logger.warning("could not print a line: %s", error)
