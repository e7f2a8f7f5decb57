"""The sessions in the room.

Rule 1: joining and leaving take constant time.
Rule 2: sessions are in the order of joining, and none is in the room twice.
"""

from __future__ import annotations

from typing import Any

import compat
from legacy_chat.counters import Counters

__all__ = ["Clients"]


class Clients(compat.BroadcastGroup):
    """The sessions in the room: the tutorial's list, without its linear searches.

    Programs use that list through ``append``, ``remove``, ``in``, ``len``, iteration,
    comparison with a list, and indexing. All work here; indexing and comparison take
    linear time. ``push(data, exclude=session)`` sends to every session except one.

    Args:
        map: the map of the sessions; None for ``asyncore.socket_map``.
        counters: the counters of the broadcasts; None for new ones.
    """

    def __init__(
        self, map: compat.Map | None = None, counters: Counters | None = None
    ) -> None:
        super().__init__(map)
        self.counters = Counters() if counters is None else counters

    def append(self, session: Any) -> None:
        """Add *session*. Nothing happens if it is in the room already."""
        self.add(session)

    def remove(self, session: Any) -> None:
        """Remove *session*.

        Raises:
            ValueError: *session* is not in the room, as with a list.
        """
        if session not in self:
            raise ValueError(f"{session!r} is not in the room")
        self.discard(session)

    def __getitem__(self, index: int | slice) -> Any:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Clients | list):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes, as a list does

    def __repr__(self) -> str:
        return repr(list(self))
