"""Parts of all lessons, for the tests."""

from __future__ import annotations

from collections.abc import Iterator

from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.lesson import Excerpt, Lesson, Step, Text

NUMBERS = range(1, len(LESSONS) + 1)


def steps_of(lesson: Lesson) -> tuple[Step, ...]:
    """Return all steps of the lesson, with the answer."""
    return (*lesson.steps, lesson.answer)


def excerpts_of(lesson: Lesson, loop: str) -> Iterator[Excerpt]:
    """Return all code that the lesson shows for a loop."""
    return (each for step in steps_of(lesson) for each in step.code(loop))


def texts_of(lesson: Lesson) -> Iterator[Text]:
    """Return all texts of the lesson."""
    yield from (lesson.title, lesson.intro, lesson.question, lesson.summary)
    for step in steps_of(lesson):
        yield step.text
        for loop in ("select", "selectors"):
            yield from (Text(claim.en, claim.zh) for claim in step.claims(loop))


def all_texts() -> Iterator[Text]:
    """Return all texts of all lessons."""
    return (text for lesson in LESSONS for text in texts_of(lesson))
