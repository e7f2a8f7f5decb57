"""``legacy-chat lesson``: the loop at work, in nine scenarios that really run.

    engine/       the machinery of all lessons
    cli.py        the command line

and a module for each lesson, in the order of LESSONS. Rule: a claim asserts every
effect that a lesson describes, in the student's run and in the tests.
"""

from __future__ import annotations

from legacy_chat.lessons import (
    always_writable,
    coalesced_writes,
    descriptor_reuse,
    in_band_terminator,
    one_turn,
    out_of_descriptors,
    partial_terminator,
    slow_reader,
    split_character,
)

__all__ = ["LESSONS"]

# By number, from 1 up.
LESSONS = (
    one_turn.LESSON,
    partial_terminator.LESSON,
    in_band_terminator.LESSON,
    split_character.LESSON,
    slow_reader.LESSON,
    descriptor_reuse.LESSON,
    always_writable.LESSON,
    out_of_descriptors.LESSON,
    coalesced_writes.LESSON,
)
