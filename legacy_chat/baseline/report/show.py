"""A conversation as text for a terminal.

Rule 1: invisible characters are escaped, so a transcript cannot control a terminal.
Rule 2: a step is shown as soon as it is read, however long the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from legacy_chat.baseline.model.format import Step, Transcript, TranscriptHeader
from legacy_chat.baseline.report.text import deed, fitted, got, seen, width, wrapped

__all__ = ["as_columns", "as_lines", "clients_of"]

# The minimum width of a column; below it, as_columns() returns None.
LEAST_COLUMN = 14

# The colours of the clients, in turn; all are readable on black and on white.
COLOURS = (36, 33, 32, 35, 34, 31)
BOLD, FAINT = 1, 2


def clients_of(transcript: Transcript) -> list[str]:
    """Return all clients, in the order of their appearance."""
    names: dict[str, None] = {}
    for step in transcript.steps:
        names.setdefault(step.action.client)
        names.update(dict.fromkeys(step.answers))
    return list(names)


def as_columns(
    transcript: Transcript, clients: Sequence[str], columns: int, colour: bool
) -> Iterator[str] | None:
    """Return lines with a column for each client; None if the width is too small."""
    gutter = 5
    each = (columns - gutter) // max(1, len(clients)) - 2
    if each < LEAST_COLUMN:
        return None
    return _table(transcript, clients, each, colour)


def as_lines(transcript: Transcript, colour: bool) -> Iterator[str]:
    """Yield lines without columns: each action, then the data that it caused."""
    yield from _title(transcript.header, colour)
    clients: list[str] = []
    for at, (action, answers) in enumerate(transcript.steps, 1):
        for name in (action.client, *answers):
            if name not in clients:
                clients.append(name)
        does = f"{action.client}: {deed(action)}"
        yield _painted(f"{at:4} ", FAINT, colour) + _painted(does, BOLD, colour)
        for name, each in answers.items():
            hears = f"     → {name}: {got(each)}"
            yield _painted(hears, _colour_of(clients.index(name)), colour)


def _table(
    transcript: Transcript, clients: Sequence[str], each: int, colour: bool
) -> Iterator[str]:
    yield from _title(transcript.header, colour)
    heads = [wrapped(seen(name), each) for name in clients]
    yield from _row("", heads, each, [BOLD] * len(clients), colour)
    paints = [_colour_of(index) for index in range(len(clients))]
    for at, step in enumerate(transcript.steps, 1):
        cells = [_cell(step, name, each) for name in clients]
        yield from _row(str(at), cells, each, paints, colour)


def _cell(step: Step, name: str, columns: int) -> list[str]:
    lines: list[str] = []
    if step.action.client == name:
        lines += wrapped(f"> {deed(step.action)}", columns)
    if name in step.answers:
        lines += wrapped(f"< {got(step.answers[name])}", columns)
    return lines


def _row(
    at: str, cells: list[list[str]], each: int, paints: list[int], colour: bool
) -> Iterator[str]:
    for number in range(max(1, *map(len, cells))):
        lines = [cell[number] if number < len(cell) else "" for cell in cells]
        painted = [
            _painted(fitted(line, each), paint, colour)
            for line, paint in zip(lines, paints, strict=True)
        ]
        left = _painted(f"{at if number == 0 else '':>4} ", FAINT, colour)
        yield (left + "  ".join(painted)).rstrip()


def _title(header: TranscriptHeader, colour: bool) -> Iterator[str]:
    yield _painted(header.title, BOLD, colour)
    if header.recorded_from:
        yield _painted(f"recorded from: {header.recorded_from}", FAINT, colour)
    yield ""


def _colour_of(index: int) -> int:
    return COLOURS[index % len(COLOURS)]


def _painted(text: str, code: int, colour: bool) -> str:
    text = seen(text)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and width(text) else text
