"""``legacy-chat lesson``: the loop at work, in nine scenarios that really run.

    lesson.py     what a lesson is made of: texts, steps, code to look at, claims
    stage.py      where it takes place: a room, its peers, the loop that turns it
    play.py       plays one, and holds what happened against what it claims
    show.py       prints what happened beside the code that made it happen
    cli.py        the command line

and a module for each lesson, in the order of LESSONS. Rule: what a lesson says happens,
a claim asserts, in the student's run and in the tests.
"""

from __future__ import annotations

from legacy_chat.lessons import (
    always_writable,
    gathering,
    half_character,
    held_back,
    no_descriptor,
    one_turn,
    same_number,
    shout,
    slow_reader,
)

__all__ = ["LESSONS"]

# By number, from 1 up.
LESSONS = (
    one_turn.LESSON,
    held_back.LESSON,
    shout.LESSON,
    half_character.LESSON,
    slow_reader.LESSON,
    same_number.LESSON,
    always_writable.LESSON,
    no_descriptor.LESSON,
    gathering.LESSON,
)
