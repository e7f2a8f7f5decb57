"""Who is in the room, and what the room says on standard output.

Rule 1: joining and leaving cost the same however many are in the room.
Rule 2: the order is the order of joining, and nobody is in it twice.
Rule 3: what cannot be printed stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, overload

import compat

if TYPE_CHECKING:
    from legacy_chat.session import ChatSession

__all__ = ["Clients", "say"]

logger = logging.getLogger("legacy_chat")


class Clients(Collection["ChatSession"]):
    """The sessions in the room: the tutorial's list, without its linear searches.

    It has what programs did with that list: ``append``, ``remove``, ``in``, ``len``,
    iteration, comparison with a list, and indexing, which is the one that costs time
    in proportion to the room.

    Args:
        map: the map of the sessions; None for ``asyncore.socket_map``.
    """

    def __init__(self, map: compat.Map | None = None) -> None:
        self._sessions = compat.Audience(map)

    def append(self, session: ChatSession) -> None:
        """Let *session* in. Harmless if it is in already."""
        self._sessions.add(session)

    def remove(self, session: ChatSession) -> None:
        """Take *session* out.

        Raises:
            ValueError: it is not in the room, as from a list.
        """
        if session not in self._sessions:
            raise ValueError(f"{session!r} is not in the room")
        self._sessions.discard(session)

    def push(self, data: bytes, but: ChatSession) -> None:
        """Tell everybody *but* one."""
        self._sessions.push(data, but)

    def __contains__(self, session: object) -> bool:
        return session in self._sessions

    def __iter__(self) -> Iterator[ChatSession]:
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    @overload
    def __getitem__(self, index: int) -> ChatSession: ...
    @overload
    def __getitem__(self, index: slice) -> list[ChatSession]: ...
    def __getitem__(self, index: int | slice) -> ChatSession | list[ChatSession]:
        return list(self._sessions)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Clients | list):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes, as a list does

    def __repr__(self) -> str:
        return repr(list(self._sessions))


def say(line: str) -> None:
    """Print one of the tutorial's lines, at once, even into a pipe."""
    try:
        print(line, flush=True)
    except (OSError, ValueError) as error:
        # Closed, full, or an encoding without Chinese: the room goes on.
        logger.warning("could not print a line: %s", error)
