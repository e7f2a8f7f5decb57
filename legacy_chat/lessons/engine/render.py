"""A lesson that has run, as lines for people: events beside the code that caused them.

Rule 1: code comes from the files that ran.
Rule 2: no line is wider than the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from compat.trace.reader import Reader, read_trace
from compat.trace.render.formatting import width
from compat.trace.render.text import lines
from legacy_chat.lessons.engine.cjk_wrap import (
    MIDDLE,
    fill,
    fold,
    side_by_side,
    wrap_code,
)
from legacy_chat.lessons.engine.lesson import Excerpt, Lesson, Step, Text
from legacy_chat.lessons.engine.narration import Narration, Row, name_of
from legacy_chat.lessons.engine.phrases import phrase
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["Renderer"]

# Columns. A narrower terminal wraps the lines.
WIDEST = 116
NARROWEST = 40

# Columns of events beside code, unless the code leaves more.
EVENTS = 42

# The indent of code below events.
BELOW = "    "

# Columns of code that are enough to set it beside the events even if its longer lines
# have to be broken. With fewer, code that does not fit is set below.
ENOUGH_FOR_CODE = 60

# Lines of the trace; --trace keeps all.
MAX_TRACE = 30


class Renderer:
    """Renders a lesson in one language.

    Args:
        lang: one of LANGUAGES.
        columns: of the terminal.
    """

    def __init__(self, lang: str, columns: int) -> None:
        self.lang = lang
        self.columns = max(min(columns, WIDEST), NARROWEST)

    def phrase(self, name: str, **values: object) -> str:
        """Return a phrase with its blanks filled in."""
        return phrase(name, self.lang, **values)

    def title(self, number: int, lesson: Lesson) -> str:
        """Return the title with the number."""
        return self.phrase("lesson", number=number, title=self._text(lesson.title))

    def head(self, number: int, lesson: Lesson, loop: str) -> Iterator[str]:
        """Yield the title, the loop and the introduction."""
        title = self.title(number, lesson)
        loop = self.phrase("loop", loop=loop)
        gap = self.columns - width(title) - width(loop)
        yield from [f"{title}{' ' * gap}{loop}"] if gap >= 2 else [title, loop]
        yield "═" * self.columns
        yield from self.prose(lesson.intro)

    def heading(self, name: str) -> list[str]:
        """Return the heading of a section."""
        return ["", f"── {self.phrase(name)} ──"]

    def number(self, number: int) -> list[str]:
        """Return the heading of a step."""
        return ["", f"── {number} " + "─" * (self.columns - 5)]

    def step(self, step: Step, run: StepRun) -> Iterator[str]:
        """Yield the text of a step, its events and code, and its claims."""
        yield from self.prose(step.text)
        yield ""
        yield from self._events(run, step.code(run.loop))
        yield ""
        for claim in step.claims(run.loop):
            text, holds = self._text(Text(claim.en, claim.zh)), claim.holds(run)
            text = text if holds else self.phrase("false") + text
            first, *rest = fill(text, self.columns - 4)
            yield f"  {'✓' if holds else '✗'} {first}"
            yield from ("    " + line for line in rest)

    def prose(self, text: Text) -> list[str]:
        """Return the lines of a text."""
        return self.lines(self._text(text))

    def lines(self, text: str) -> list[str]:
        """Return the lines of a paragraph."""
        return fill(text, self.columns)

    def trace(self, trace: Path, runs: list[StepRun], color: bool) -> Iterator[str]:
        """Yield the first turns of *runs*, as text, and the owners of their channels.

        The trace may have more turns: the answer's would give it away.
        """
        reader = Reader()
        first, last = runs[0].first, runs[-1].last
        narrations = [Narration(run, self.lang) for run in runs]
        repeated = set().union(*(each.repeated_turns() for each in narrations))
        total = skipped = 0
        texts: list[list[str]] = []
        gaps: set[str] = set()
        for turn in read_trace(trace, reader):
            if turn.number > last:
                continue
            text = list(
                lines(turn, reader, color=color, columns=self.columns, lang=self.lang)
            )
            total += len(text)
            if turn.number in repeated:
                skipped += 1
            # Earlier turns were the setup. Without a setup, the room opens before.
            elif turn.number >= first or first == 1:
                gap = [self.phrase("same turns", count=skipped)] if skipped else []
                gaps.update(gap)
                texts.append([*gap, *text])
                skipped = 0
        shown = _first_turns(texts)
        yield from self._owners(shown, reader, runs[-1])
        yield from shown
        if left := total - sum(line not in gaps for line in shown):
            yield from self.lines(self.phrase("more trace", count=left))

    def _owners(self, shown: list[str], reader: Reader, run: StepRun) -> list[str]:
        """Return the peers of the channels that the lines name."""
        # A colour's escape sequence ends in a letter.
        names = re.findall(r"(?:\x1b\[\d+m)?(\w+#\d+)", "\n".join(shown))
        owners = [
            self.phrase("named", who=name_of(peer, self.lang), channel=channel.name)
            for channel in reader.channels.values()
            if channel.name in names and (peer := run.peer_of(channel))
        ]
        return self.lines(self.phrase("comma").join(owners)) if owners else []

    def _text(self, text: Text) -> str:
        return text.in_language(self.lang)

    def _events(self, run: StepRun, code: list[Excerpt]) -> Iterator[str]:
        rows = list(Narration(run, self.lang).rows())
        texts = [row.text for row in rows]
        left, room = self._divided(texts, code)
        if room:
            for part, excerpts in _matched(rows, code):
                lines = self._code(excerpts, room)
                yield from side_by_side([row.text for row in part], lines, left)
            return
        yield from fold(texts, self.columns)
        for excerpt in code:
            yield ""
            lines = self._code([excerpt], self.columns - len(BELOW))
            yield from (BELOW + line for line in lines)

    def _divided(self, rows: list[str], code: list[Excerpt]) -> tuple[int, int]:
        """Return the columns of events and of code beside them; 0 for code below."""
        widest = max(map(width, self._code(code, WIDEST)), default=0)
        available = self.columns - len(MIDDLE)
        left = min(max(map(width, rows), default=0), max(EVENTS, available - widest))
        room = available - left
        return left, room if widest and room >= min(widest, ENOUGH_FOR_CODE) else 0

    def _code(self, excerpts: list[Excerpt], columns: int) -> Iterator[str]:
        for excerpt in excerpts:
            yield from fill(excerpt.name, columns, BELOW)
            try:
                lines = excerpt.lines()
            except OSError:
                yield self.phrase("no source")
                continue
            for number, text in lines:
                first, *rest = wrap_code(text, columns - 6)
                yield f"{number or '':>4}  {first}".rstrip()
                yield from (" " * 6 + part for part in rest)


def _first_turns(texts: list[list[str]]) -> list[str]:
    """Return whole turns, unless those are less than half of MAX_TRACE lines."""
    shown: list[str] = []
    for text in texts:
        if len(shown) + len(text) > MAX_TRACE:
            is_enough = len(shown) >= MAX_TRACE // 2
            return shown if is_enough else [*shown, *text][:MAX_TRACE]
        shown += text
    return shown


def _matched(
    rows: list[Row], code: list[Excerpt]
) -> Iterator[tuple[list[Row], list[Excerpt]]]:
    """Divide the rows at the calls that code is shown beside."""
    found = [excerpt for excerpt in code if not excerpt.beside]
    left = [excerpt for excerpt in code if excerpt.beside]
    part: list[Row] = []
    for row in rows:
        begun = [excerpt for excerpt in left if excerpt.beside == row.call]
        if begun:
            if part or found:
                yield part, found
            part, found = [], begun
            left = [excerpt for excerpt in left if excerpt not in begun]
        part.append(row)
    yield part, found + left
