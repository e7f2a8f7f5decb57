"""``python -m compat.trace VIEW FILE``: text, mermaid, html, perfetto, doctor, diff.

Rule 1: the exit status is 0; 1 if doctor or diff found something; 2 for a failure, with
one line on standard error.
Rule 2: a trace that was cut off is shown up to there, and standard error reports it.
Rule 3: standard output has only the view. With -o, a file is not changed before there
is something to write.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, TypeVar

from compat.console import CommandError, complain, discard, is_coloured, run_command
from compat.files import PRIVATE
from compat.nonblocking import is_writable
from compat.options import LANGUAGE, Option, Parser
from compat.replacing import replacing
from compat.trace.doctor.thresholds import DEFAULTS, RULES_IN_WORDS
from compat.trace.filter import TurnFilter
from compat.trace.model import Turn
from compat.trace.reader import Reader, TraceError, read_lines
from compat.trace.render import mermaid, perfetto, text
from compat.trace.render.messages import count
from compat.values import Range, shown

__all__ = ["followed", "main"]

PROGRAM = "python -m compat.trace"
SHOWN, FOUND, FAILED = 0, 1, 2

# Seconds between two checks of a file that has not grown.
PAUSE = 0.1

EXAMPLES = """\
examples:
  python -m compat.trace text room.trace | less
  python -m compat.trace text --follow room.trace      while the program runs
  python -m compat.trace text --channel 3 room.trace   only ChatSession#3
  python -m compat.trace mermaid --turns 5-9 room.trace -o talk.mmd
  python -m compat.trace html room.trace -o room.html
  python -m compat.trace perfetto room.trace -o room.json
  python -m compat.trace doctor room.trace
  python -m compat.trace diff select.trace selectors.trace

python -m compat --trace FILE SCRIPT writes a trace. FILE may be -, standard input.
The exit status is 0; 1 if doctor or diff found something; 2 for a failure.
"""

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m compat.trace`` with *argv*; return the exit status."""
    return run_command(PROGRAM, lambda: _run(_parser().parse_args(argv)), FAILED)


def _run(given: Namespace) -> int:
    try:
        status: int = given.run(given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        # Otherwise the exit would write the rest, perhaps to a reader that stalls.
        if sys.stdout is not None:
            discard(sys.stdout)
        raise CommandError("interrupted") from None
    except TraceError as error:
        raise CommandError(f"{given.file}: {error}") from None
    return status


def show_text(given: Namespace) -> int:
    """Print the trace turn by turn."""
    stdout, reader, part = _stdout(), Reader(), _filter(given)
    options = {
        "color": given.color == "always"
        or (given.color == "auto" and is_coloured(stdout)),
        "columns": shutil.get_terminal_size().columns
        if stdout.isatty()
        else text.COLUMNS,
        "lang": given.lang,
    }

    def show(turns: Iterable[Turn]) -> None:
        for turn in turns:
            for line in text.lines(turn, reader, **options):
                stdout.write(line + "\n")
            if given.follow:
                stdout.flush()

    if not given.follow:
        with _opened(given.file) as file:
            show(_filtered(read_lines(file, reader), reader, given))
        _warn(given.file, reader)
        return SHOWN
    try:
        lines = followed(given.file, reader, _pause)
        show(part.apply(read_lines(lines, reader)))
    except KeyboardInterrupt:
        if _stalls(stdout):
            raise
        if reader.header is not None:
            show(part.apply(reader.rest()))
    if reader.lost_lines or not reader.is_intact:
        _warn(given.file, reader)
    return SHOWN


def show_mermaid(given: Namespace) -> int:
    """Write a sequence diagram."""
    limit: int = given.limit
    return _write(
        given, lambda turns, reader: [mermaid.diagram(turns, reader, limit=limit)]
    )


def show_html(given: Namespace) -> int:
    """Write a page to step through the trace."""
    # Imported here: no other view needs it.
    from compat.trace.render.html import page

    options = given.lang, given.title, _filter(given) != TurnFilter()
    return _write(given, lambda turns, reader: [page(turns, reader, *options)])


def show_perfetto(given: Namespace) -> int:
    """Write JSON for ui.perfetto.dev and chrome://tracing."""
    return _write(given, perfetto.chunks)


def show_doctor(given: Namespace) -> int:
    """Print the faults of the program, worst first, and their remedies."""
    # Imported here, as below: no other view needs it.
    from compat.trace import doctor

    reader = Reader()
    limits = DEFAULTS if given.slow is None else DEFAULTS.with_slow(given.slow)
    findings = doctor.examine(_turns(given.file, reader), reader, limits)
    _stdout().writelines(f"{line}\n" for line in doctor.report(findings))
    _warn(given.file, reader)
    return FOUND if findings else SHOWN


def show_diff(given: Namespace) -> int:
    """Print the first call that differs between two traces of one scenario."""
    from compat.trace.diff import first_difference

    if given.a == given.b == "-":
        raise CommandError("at most one of the traces can be standard input")
    a, b = Reader(), Reader()
    turns = _turns(given.a, a), _turns(given.b, b)
    difference = first_difference(*turns, strict=given.strict)
    lines = difference.lines() if difference else ["no difference"]
    _stdout().writelines(f"{line}\n" for line in lines)
    _warn(given.a, a)
    _warn(given.b, b)
    return FOUND if difference else SHOWN


def followed(name: str, reader: Reader, pause: Callable[[], object]) -> Iterator[bytes]:
    """Yield the complete lines of a growing file, until *reader* reads its last line.

    Args:
        name: a file, which may not exist yet, or "-".
        reader: the reader of the lines.
        pause: called when there is no new data.

    Raises:
        CommandError: the file became shorter.
    """
    if name != "-" and not os.path.exists(name):
        complain(f"{PROGRAM}: {name}: waiting for the file, Ctrl-C ends the wait")
        while not os.path.exists(name):
            pause()
    with _opened(name) as file:
        line = b""
        while not reader.end_reason:
            line += file.readline()
            if line.endswith(b"\n"):
                yield line
                line = b""
            elif not file.seekable():
                return
            elif os.fstat(file.fileno()).st_size < file.tell():
                raise CommandError(f"{name}: overwritten by another trace")
            else:
                pause()


def _write(
    given: Namespace, render: Callable[[Iterator[Turn], Reader], Iterable[str]]
) -> int:
    """Write the rendered turns to -o, or to standard output."""
    reader = Reader()
    with _opened(given.file) as file:
        turns = _started(read_lines(file, reader))
        pieces = iter(render(_started(_filtered(turns, reader, given)), reader))
        if given.output in (None, "-"):
            _stdout(encoding="utf-8").writelines(pieces)
        else:
            _save(given, _started(pieces))
        is_read = next(turns, None) is None
    # A diagram may leave turns unread.
    if is_read:
        _warn(given.file, reader)
    return SHOWN


def _save(given: Namespace, pieces: Iterable[str]) -> None:
    output = Path(given.output)
    if given.file != "-" and output.exists() and output.samefile(given.file):
        raise CommandError(f"{given.file}: this is the trace: name another file")
    with replacing(given.output, PRIVATE) as write:
        for piece in pieces:
            write(piece)


def _turns(name: str, reader: Reader) -> Iterator[Turn]:
    with _opened(name) as file:
        try:
            yield from read_lines(file, reader)
        except TraceError as error:
            raise CommandError(f"{name}: {error}") from None


def _filter(given: Namespace) -> TurnFilter:
    first, last = given.turns
    return TurnFilter(first, last, frozenset(given.channel), given.calls_only)


def _filtered(
    turns: Iterable[Turn], reader: Reader, given: Namespace
) -> Iterator[Turn]:
    """Yield the selected turns; an empty selection is an error."""
    last, is_empty, part = 0, True, _filter(given)

    def noted() -> Iterator[Turn]:
        nonlocal last
        for turn in turns:
            last = max(last, turn.number)
            yield turn

    for turn in part.apply(noted()):
        is_empty = False
        yield turn
    if is_empty and part != TurnFilter():
        channels = count(len(reader.channels), "channel")
        raise CommandError(
            f"{given.file}: the selection is empty: the trace has "
            f"{count(last, 'turn')} and {channels}"
        )


def _started(things: Iterable[T]) -> Iterator[T]:
    """Return an iterator whose first element exists already, so it raises here."""
    rest = iter(things)
    return itertools.chain(list(itertools.islice(rest, 1)), rest)


def _opened(name: str) -> BinaryIO:
    if name == "-":
        return os.fdopen(os.dup(0), "rb")
    return open(name, "rb")


def _stdout(encoding: str = "") -> TextIO:
    """Return standard output with an encoding; "" for its own."""
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    if encoding and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    return sys.stdout


def _stalls(stream: TextIO) -> bool:
    try:
        return not is_writable(stream.fileno())
    except (OSError, ValueError):
        # Not a file: a write never blocks.
        return False


def _pause() -> None:
    time.sleep(PAUSE)


def _warn(name: str, reader: Reader) -> None:
    """Report the missing parts of a trace."""
    if reader.lost_lines:
        complain(
            f"{PROGRAM}: {name}: {count(reader.lost_lines, 'line')} missing in "
            f"{count(reader.gaps, 'place')}: the reader of the trace was too slow"
        )
    if not reader.is_intact:
        complain(f"{PROGRAM}: {name}: cut off or damaged after line {reader.line:,}")
    elif reader.end_reason == "full":
        complain(f"{PROGRAM}: {name}: full; later events are missing")
    elif not reader.end_reason:
        reason = "the program was still running, or was killed"
        complain(f"{PROGRAM}: {name}: it has no end: {reason}")


def _turn_range(text: str) -> tuple[int, int | None]:
    first, dash, last = text.partition("-")
    begin = int(NUMBER.parse(first))
    end = int(NUMBER.parse(last)) if last else None if dash else begin
    if end is not None and end < begin:
        raise ValueError(f"must be A, A-B or A-, with A <= B, got {shown(text)}")
    return begin, end


def _channel(text: str) -> int:
    # ChatSession#3 can be copied from a view.
    return int(NUMBER.parse(text.rpartition("#")[2]))


NUMBER = Range(1, 999_999_999, whole=True)

# A trace has whole microseconds.
SECONDS = Range(1e-6, 1_000_000)

FILE = Option("FILE", "the trace; - for standard input")
PART = (
    FILE,
    Option(
        "--turns A-B",
        "select turns: A, A-B or A-",
        _turn_range,
        more={"default": (0, None)},
    ),
    Option(
        "--channel N",
        "select a channel by its number; may be repeated",
        type=_channel,
        more={"action": "append", "default": []},
    ),
    Option("--calls-only", "omit events, and turns without calls"),
)
OUTPUT = Option("-o --output FILE", "write to FILE (default: standard output)")


class View(NamedTuple):
    """A subcommand: its function, its options, and the end of its help."""

    run: Callable[[Namespace], int]
    options: tuple[Option, ...]
    examples: str = ""


VIEWS = {
    "text": View(
        show_text,
        (
            *PART,
            Option("-f --follow", "wait for new turns, until the end or Ctrl-C"),
            Option(
                "--color WHEN",
                "auto (default): colour on a terminal, unless NO_COLOR is set",
                default="auto",
                more={"choices": ("auto", "always", "never")},
            ),
            LANGUAGE,
        ),
    ),
    "mermaid": View(
        show_mermaid,
        (
            *PART,
            OUTPUT,
            Option(
                "--limit N",
                "messages and notes, of up to 50,000 characters",
                NUMBER,
                mermaid.LIMIT,
            ),
        ),
    ),
    "html": View(
        show_html,
        (
            *PART,
            OUTPUT,
            LANGUAGE.but(help="first language of the page: en or zh"),
            Option("--title TEXT", "title (default: the program's name)", default=""),
        ),
    ),
    "perfetto": View(show_perfetto, (*PART, OUTPUT)),
    "doctor": View(
        show_doctor,
        (
            FILE,
            Option(
                "--slow SECONDS",
                "report every callback that takes this long (default: "
                f"{DEFAULTS.slow_once_us / 1e6:g} once, or "
                f"{DEFAULTS.slow_us / 1e6:g} {DEFAULTS.slow_times} times)",
                SECONDS,
            ),
        ),
        RULES_IN_WORDS,
    ),
    "diff": View(
        show_diff,
        (
            Option("A", "a trace; - for standard input"),
            Option("B", "another trace"),
            Option(
                "--strict",
                "compare every call, and the order between channels: for two runs of "
                "one loop, or for select and selectors",
            ),
        ),
    ),
}


def _parser() -> Parser:
    parser = Parser(PROGRAM, "Show the trace of a loop.", EXAMPLES)
    views = parser.add_subparsers(required=True, metavar="VIEW", dest="view")
    for name, view in VIEWS.items():
        about = view.run.__doc__ or ""
        child = views.add_parser(
            name, help=about, description=about, examples=view.examples
        )
        child.add(*view.options)
        child.set_defaults(run=view.run)
    return parser
