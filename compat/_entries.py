"""The entries of a channel's queue: bytes, views of shared data, producers, None.

Rule 1: data up to SMALL bytes is merged in a bytearray; larger data is shared, and not
copied.
Rule 2: the caller holds the lock of the queues (compat._outbox).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

__all__ = ["EMPTY", "SMALL", "copied", "first_of", "insert", "join_first"]

# Bytes. A queue merges smaller pieces: one object per piece would cost a multiple of
# its data. All channels that queue a larger piece share it.
SMALL = 4096

# Stands for the first entry of an empty queue, because None is a valid entry.
EMPTY = object()


def copied(data: bytes | bytearray | memoryview) -> bytes:
    """Return pushed data as bytes: the caller may change a buffer before it is sent.

    Raises:
        TypeError: *data* is not bytes, bytearray or memoryview.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data={data!r} is not bytes, bytearray or memoryview")
    return bytes(data)


def insert(channel: Any, data: Any, *, at_the_front: bool = False) -> None:
    """Queue *data* in pieces that fit into one send. Large data is not copied."""
    queue, size, limit = channel.producer_fifo, len(data), channel.ac_out_buffer_size
    pieces = [data]
    if size > limit:
        view = memoryview(data)
        pieces = [view[begin : begin + limit] for begin in range(0, size, limit)]
    try:
        last = queue[-1] if queue else None
    except IndexError:
        # Another thread has just sent the last entry.
        last = None
    if at_the_front:
        queue.extendleft(reversed(pieces))
    elif size >= SMALL or last is None:
        queue.extend(pieces)
    elif type(last) is bytearray and len(last) + size <= limit:
        last += data
    else:
        queue.append(bytearray(data))


def first_of(queue: Sequence[Any]) -> Any:
    """Return the first entry, or EMPTY: another thread may have just sent it."""
    try:
        return queue[0]
    except IndexError:
        return EMPTY


def join_first(queue: deque[Any], limit: int) -> None:
    """Join the leading bytes entries that fit into one send; the lock is held."""
    pieces, size = [], 0
    while queue:
        first = queue[0]
        if type(first) not in (bytes, bytearray) or size + len(first) > limit:
            break
        size += len(first)
        pieces.append(queue.popleft())
    if pieces:
        queue.appendleft(b"".join(pieces))
