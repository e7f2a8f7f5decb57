"""Cuts of a message into segments: "every byte", "at 3 7", "random 42", or "" for none.

Rule: the joined segments are the message, and no segment is empty.
"""

from __future__ import annotations

import itertools
import random

from legacy_chat.baseline.model import fields

__all__ = ["cut", "read_cut"]

RULE = 'one of "every byte", "at 3", "at 3 7", "random 42"'


def cut(data: bytes, how: str) -> list[bytes]:
    """Return the segments of *data*.

    Args:
        how: "at N M …" cuts before the bytes N and M, counted from 0. "random SEED"
            makes about one cut in three bytes, the same for equal seeds and sizes.

    Raises:
        ValueError: *how* is not a cut.
    """
    bounds = [0, *_bounds(len(data), how), len(data)]
    pairs = itertools.pairwise(bounds)
    return [data[start:end] for start, end in pairs if start < end]


def _bounds(size: int, how: str) -> list[int]:
    if how == "":
        return []
    if how == "every byte":
        return list(range(1, size))
    kind, *numbers = how.split() or [""]
    if numbers and all(each.isdecimal() for each in numbers):
        if kind == "at":
            return sorted(min(int(each), size) for each in numbers)
        if kind == "random" and len(numbers) == 1:
            source = random.Random(int(numbers[0]))
            return [place for place in range(1, size) if source.random() < 1 / 3]
    raise fields.wrong("a cut", RULE, how)


def _is_cut(how: object) -> bool:
    try:
        return isinstance(how, str) and cut(b"", how) == []
    except ValueError:
        return False


# Reads a cut from a file.
read_cut = fields.checked(RULE, _is_cut)
