"""A conversation as text for a terminal.

Rule 1: invisible characters are escaped, so a transcript cannot control a terminal.
Rule 2: a step is shown as soon as it is read, however long the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from legacy_chat.baseline.model.transcript import Step, Transcript, TranscriptHeader
from legacy_chat.baseline.report.text import (
    action_text,
    escaped,
    fitted,
    received_text,
    width,
    wrapped,
)

__all__ = ["as_columns", "as_lines"]

# The minimum width of a column; below it, as_columns() returns None.
LEAST_COLUMN = 14

# The columns of a step's number.
GUTTER = 5

# The colours of the clients, in turn; all are readable on black and on white.
COLOURS = (36, 33, 32, 35, 34, 31)
BOLD, FAINT = 1, 2


def as_columns(
    transcript: Transcript, columns: int, colour: bool
) -> Iterator[str] | None:
    """Return lines with a column for each client; None if the width is too small."""
    clients = transcript.clients()
    each = (columns - GUTTER) // max(1, len(clients)) - 2
    if each < LEAST_COLUMN:
        return None
    return _table(transcript, clients, each, colour)


def as_lines(transcript: Transcript, colour: bool) -> Iterator[str]:
    """Yield lines without columns: each action, then the data that it caused."""
    yield from _title(transcript.header, colour)
    colours: dict[str, int] = {}
    for at, (action, answers) in enumerate(transcript.steps, 1):
        for name in (action.client, *answers):
            colours.setdefault(name, _colour_of(len(colours)))
        text = f"{action.client}: {action_text(action)}"
        yield _painted(f"{at:4} ", FAINT, colour) + _painted(text, BOLD, colour)
        for name, received in answers.items():
            text = f"     → {name}: {received_text(received)}"
            yield _painted(text, colours[name], colour)


def _table(
    transcript: Transcript, clients: Sequence[str], each: int, colour: bool
) -> Iterator[str]:
    yield from _title(transcript.header, colour)
    heads = [wrapped(escaped(name), each) for name in clients]
    yield from _row("", heads, each, [BOLD] * len(clients), colour)
    paints = [_colour_of(index) for index in range(len(clients))]
    for at, step in enumerate(transcript.steps, 1):
        cells = [_cell(step, name, each) for name in clients]
        yield from _row(str(at), cells, each, paints, colour)


def _cell(step: Step, name: str, columns: int) -> list[str]:
    lines: list[str] = []
    if step.action.client == name:
        lines += wrapped(f"> {action_text(step.action)}", columns)
    if name in step.answers:
        lines += wrapped(f"< {received_text(step.answers[name])}", columns)
    return lines


def _row(
    at: str, cells: list[list[str]], each: int, paints: list[int], colour: bool
) -> Iterator[str]:
    rows = list(zip_longest(*cells, fillvalue="")) or [("",) * len(cells)]
    for number, lines in enumerate(rows):
        painted = [
            _painted(fitted(line, each), paint, colour)
            for line, paint in zip(lines, paints, strict=True)
        ]
        left = f"{'' if number else at:>{GUTTER - 1}} "
        yield (_painted(left, FAINT, colour) + "  ".join(painted)).rstrip()


def _title(header: TranscriptHeader, colour: bool) -> Iterator[str]:
    yield _painted(header.title, BOLD, colour)
    if header.recorded_from:
        yield _painted(f"recorded from: {header.recorded_from}", FAINT, colour)
    yield ""


def _colour_of(index: int) -> int:
    return COLOURS[index % len(COLOURS)]


def _painted(text: str, code: int, colour: bool) -> str:
    text = escaped(text)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and width(text) else text
