"""Cuts of a message into segments: "every byte", "at 3 7", "random 42", or "" for none.

Rule: the joined segments are the message, and no segment is empty.
"""

from __future__ import annotations

import itertools
import random

__all__ = ["cut", "is_cut"]

EXAMPLES = '"every byte", "at 3", "at 3 7", "random 42"'


def cut(data: bytes, how: str) -> list[bytes]:
    """Return the segments of *data*.

    Args:
        how: "at N M …" cuts before the Nth and the Mth byte, counted from 0. "random
            SEED" makes about one cut in three bytes, the same for the same seed and
            size.

    Raises:
        ValueError: *how* is not a cut.
    """
    places = [0, *_places(len(data), how), len(data)]
    pairs = itertools.pairwise(places)
    return [data[start:end] for start, end in pairs if start < end]


def is_cut(how: str) -> bool:
    """Return whether *how* is a cut."""
    try:
        cut(b"", how)
    except ValueError:
        return False
    return True


def _places(size: int, how: str) -> list[int]:
    kind, *numbers = how.split() or ["whole"]
    if how == "":
        return []
    if how == "every byte":
        return list(range(1, size))
    if not numbers or not all(each.isdecimal() for each in numbers):
        kind = "unknown"
    if kind == "at":
        return sorted(min(int(each), size) for each in numbers)
    if kind == "random" and len(numbers) == 1:
        source = random.Random(int(numbers[0]))
        return [place for place in range(1, size) if source.random() < 1 / 3]
    raise ValueError(f"{how!r} is no way to cut: {EXAMPLES}")
