"""``python -m compat.trace VIEW FILE``: text, mermaid, html, perfetto, doctor, diff.

Rule 1: the exit status is 0, 1 if what was looked for was found, or 2 if it could not
be done, with one line on standard error that says why.
Rule 2: a trace that was cut off is shown as far as it goes, and standard error says so.
Rule 3: standard output has what was asked for and nothing else. With -o, nothing of a
file is touched before there is something to write.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar

from compat.console import (
    complain,
    discard,
    flush_or_discard,
    is_coloured,
    reserve_standard_descriptors,
)
from compat.files import PRIVATE
from compat.nonblocking import is_writable
from compat.options import Parser
from compat.replacing import replacing
from compat.trace.doctor.thresholds import DEFAULTS, RULES_IN_WORDS
from compat.trace.filter import TurnFilter
from compat.trace.model import Turn
from compat.trace.reader import Reader, TraceError, read_lines
from compat.trace.render import mermaid, perfetto, text
from compat.trace.render.formatting import readable
from compat.trace.render.messages import LANGUAGES, count

__all__ = ["followed", "main"]

PROGRAM = "python -m compat.trace"
SHOWN, FOUND, COULD_NOT = 0, 1, 2

# Seconds between two looks at a file that has not grown.
PAUSE = 0.1

EXAMPLES = """\
examples:
  python -m compat.trace text room.trace | less
  python -m compat.trace text --follow room.trace      while the program runs
  python -m compat.trace text --channel 3 room.trace   what became of ChatSession#3
  python -m compat.trace mermaid --turns 5-9 room.trace -o talk.mmd
  python -m compat.trace html room.trace -o room.html
  python -m compat.trace perfetto room.trace -o room.json
  python -m compat.trace doctor room.trace
  python -m compat.trace diff select.trace selectors.trace

A trace is written by: python -m compat --trace FILE SCRIPT. FILE may be -, standard
input. The exit status is 0; 1 if doctor or diff has found something; 2 if it could not
be done.
"""


T = TypeVar("T")


class CannotError(Exception):
    """What is asked cannot be done; why, for people."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m compat.trace`` with *argv*; return the exit status."""
    reserve_standard_descriptors()
    try:
        return _run(_parser().parse_args(argv))
    finally:
        flush_or_discard()


def _run(given: argparse.Namespace) -> int:
    try:
        status: int = given.run(given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
        return COULD_NOT
    except KeyboardInterrupt:
        if sys.stdout is not None:
            # Or the rest would be written at exit, perhaps to a reader that stalls.
            discard(sys.stdout)
        return _refuse("interrupted")
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        return _refuse(f"{name}{error.strerror or error}")
    except (TraceError, CannotError) as error:
        return _refuse(f"{given.file}: {error}")
    return status


def show_text(given: argparse.Namespace) -> int:
    """Turn by turn, in a terminal."""
    stdout = _stdout("")
    colour = _is_coloured(given.color, stdout)
    columns = shutil.get_terminal_size().columns if stdout.isatty() else text.COLUMNS
    reader = Reader()

    def show(turns: Iterable[Turn]) -> None:
        for turn in turns:
            for line in text.lines(
                turn, reader, color=colour, columns=columns, lang=given.lang
            ):
                stdout.write(line + "\n")
            if given.follow:
                stdout.flush()

    if not given.follow:
        with _opened(given.file) as file:
            show(_chosen(read_lines(file, reader), reader, given))
        _warn(given.file, reader)
        return SHOWN
    choice = _choice(given)
    try:
        lines = followed(given.file, reader, _pause)
        show(choice.apply(read_lines(lines, reader)))
    except KeyboardInterrupt:
        if _stalls(stdout):
            raise
        if reader.header is not None:
            show(choice.apply(reader.rest()))
    if reader.lost_lines or not reader.is_intact:
        _warn(given.file, reader)
    return SHOWN


def show_mermaid(given: argparse.Namespace) -> int:
    """A sequence diagram, for a page."""
    return _document(
        given,
        lambda turns, reader: [mermaid.diagram(turns, reader, limit=given.limit)],
    )


def show_html(given: argparse.Namespace) -> int:
    """A page to step through, complete in itself."""
    # Here, for no other view needs it.
    from compat.trace.render.html import page

    return _document(
        given,
        lambda turns, reader: [
            page(
                turns,
                reader,
                given.lang,
                given.title,
                part=_choice(given) != TurnFilter(),
            )
        ],
    )


def show_perfetto(given: argparse.Namespace) -> int:
    """JSON for ui.perfetto.dev and chrome://tracing."""
    return _document(given, perfetto.chunks)


def show_doctor(given: argparse.Namespace) -> int:
    """What is wrong, worst first, and what to do about it."""
    # Here, as for the next one: no other view needs it.
    from compat.trace import doctor

    reader = Reader()
    limits = DEFAULTS if given.slow is None else DEFAULTS.with_slow(given.slow)
    findings = doctor.examine(_turns_of(given, given.file, reader), reader, limits)
    stdout = _stdout("")
    for line in doctor.report(findings):
        stdout.write(line + "\n")
    _warn(given.file, reader)
    return FOUND if findings else SHOWN


def show_diff(given: argparse.Namespace) -> int:
    """The first call that differs between two traces of one scenario."""
    from compat.trace.diff import first_difference

    if given.file == given.other == "-":
        raise CannotError("both traces cannot be standard input")
    one, other = Reader(), Reader()
    difference = first_difference(
        _turns_of(given, given.file, one),
        _turns_of(given, given.other, other),
        strict=given.strict,
    )
    stdout = _stdout("")
    for line in difference.lines() if difference else ["no difference"]:
        stdout.write(line + "\n")
    _warn(given.file, one)
    _warn(given.other, other)
    return FOUND if difference else SHOWN


def followed(name: str, reader: Reader, pause: Callable[[], object]) -> Iterator[bytes]:
    """The whole lines of a file that is still written, until *reader* has its end.

    Args:
        name: a file that may not be there yet, or "-".
        reader: what is fed with the lines.
        pause: called when there is nothing new.

    Raises:
        CannotError: the file has become shorter.
    """
    if name != "-" and not os.path.exists(name):
        _say(f"{name}: it is not there yet; waiting for it, Ctrl-C ends that")
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
                raise CannotError("it was begun anew while it was followed")
            else:
                pause()


def _document(
    given: argparse.Namespace,
    made: Callable[[Iterable[Turn], Reader], Iterable[str]],
) -> int:
    """Write what *made* makes of the turns to -o, or to standard output."""
    reader = Reader()
    with _opened(given.file) as file:
        turns = _begun(read_lines(file, reader))
        pieces = iter(made(_begun(_chosen(turns, reader, given)), reader))
        if given.output in (None, "-"):
            _stdout("utf-8").writelines(pieces)
        else:
            _save(given, _begun(pieces))
        is_read = next(turns, None) is None
    # A diagram has a limit, and may leave the rest unread.
    if is_read:
        _warn(given.file, reader)
    return SHOWN


def _save(given: argparse.Namespace, pieces: Iterable[str]) -> None:
    output = Path(given.output)
    if given.file != "-" and output.exists() and output.samefile(given.file):
        raise CannotError("this is the trace: name another file after -o")
    with replacing(given.output, PRIVATE) as write:
        for piece in pieces:
            write(piece)


def _turns_of(given: argparse.Namespace, name: str, reader: Reader) -> Iterator[Turn]:
    with _opened(name) as file:
        try:
            yield from read_lines(file, reader)
        except TraceError:
            # Of two, main() is to name the right one.
            given.file = name
            raise


def _chosen(
    turns: Iterable[Turn], reader: Reader, given: argparse.Namespace
) -> Iterator[Turn]:
    """Those that are asked for. If that leaves nothing, it is said what there is."""
    last, empty, choice = 0, True, _choice(given)

    def noted() -> Iterator[Turn]:
        nonlocal last
        for turn in turns:
            last = max(last, turn.number)
            yield turn

    for turn in choice.apply(noted()):
        empty = False
        yield turn
    if empty and choice != TurnFilter():
        raise CannotError(
            "it has nothing of what is asked for, but "
            f"{count(last, 'turn')} and {count(len(reader.channels), 'channel')}"
        )


def _begun(things: Iterable[T]) -> Iterator[T]:
    """The same, the first of them made already: what is wrong is raised here."""
    rest = iter(things)
    return itertools.chain(list(itertools.islice(rest, 1)), rest)


def _opened(name: str) -> BinaryIO:
    if name == "-":
        return os.fdopen(os.dup(0), "rb")
    return open(name, "rb")


def _stdout(encoding: str) -> TextIO:
    """Standard output, in an encoding, "" for its own, that takes everything."""
    if sys.stdout is None:
        raise CannotError("standard output is closed")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(
            encoding=encoding or sys.stdout.encoding, errors="backslashreplace"
        )
    return sys.stdout


def _stalls(stream: TextIO) -> bool:
    """Is it a file that takes nothing at the moment?"""
    try:
        return not is_writable(stream.fileno())
    except (OSError, ValueError):
        # No file: what is written waits for nobody.
        return False


def _is_coloured(wish: str, stream: TextIO) -> bool:
    if wish == "auto":
        return is_coloured(stream)
    return wish == "always"


def _pause() -> None:
    time.sleep(PAUSE)


def _warn(name: str, reader: Reader) -> None:
    """Say on standard error what a trace has not."""
    if reader.lost_lines:
        _say(
            f"{name}: {count(reader.lost_lines, 'line')} are missing in "
            f"{count(reader.gaps, 'place')}: the reader of the trace was too slow"
        )
    if not reader.is_intact:
        _say(f"{name}: it is cut off or damaged behind line {reader.line:,}")
    elif reader.end_reason == "full":
        _say(f"{name}: it is full; there was more")
    elif not reader.end_reason:
        _say(f"{name}: it has no end: the program still ran, or was killed")


def _refuse(what: str) -> int:
    _say(what)
    return COULD_NOT


def _say(what: str) -> None:
    complain(f"{PROGRAM}: {readable(what)}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Show what a loop did, from the trace that it has written.",
        examples=EXAMPLES,
    )
    views = parser.add_subparsers(required=True, metavar="VIEW", dest="view")
    _text_parser(views.add_parser("text", help=show_text.__doc__))
    drawing = views.add_parser("mermaid", help=show_mermaid.__doc__)
    _document_parser(drawing, show_mermaid)
    drawing.add_argument(
        "--limit",
        type=_number,
        default=mermaid.LIMIT,
        metavar="N",
        help="messages and notes (default: %(default)s); of any, 50,000 characters",
    )
    reading = views.add_parser("html", help=show_html.__doc__)
    _document_parser(reading, show_html)
    reading.add_argument(
        "--lang",
        choices=LANGUAGES,
        default="en",
        help="what the page begins with (default: %(default)s)",
    )
    reading.add_argument(
        "--title", default="", help="of the page; default: the program's name"
    )
    _document_parser(
        views.add_parser("perfetto", help=show_perfetto.__doc__), show_perfetto
    )
    _doctor_parser(views.add_parser("doctor", help=show_doctor.__doc__))
    comparing = views.add_parser("diff", help=show_diff.__doc__)
    comparing.set_defaults(run=show_diff)
    comparing.add_argument("file", metavar="A", help="a trace; - for standard input")
    comparing.add_argument("other", metavar="B", help="another one")
    comparing.add_argument(
        "--strict",
        action="store_true",
        help="every call counts, and the order between channels does, too: for two "
        "runs of one loop, or for select and selectors",
    )
    return parser


def _text_parser(parser: argparse.ArgumentParser) -> None:
    _view_parser(parser, show_text)
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="wait for more until the trace has its end, or for Ctrl-C",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto (default): on a terminal, unless NO_COLOR is set",
    )
    parser.add_argument(
        "--lang",
        choices=LANGUAGES,
        default="en",
        help="English or Chinese (default: %(default)s)",
    )


def _document_parser(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]
) -> None:
    _view_parser(parser, run)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="default: standard output"
    )


def _doctor_parser(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=show_doctor)
    parser.description = show_doctor.__doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = RULES_IN_WORDS
    parser.add_argument("file", metavar="FILE", help="a trace; - for standard input")
    parser.add_argument(
        "--slow",
        type=_seconds,
        metavar="SECONDS",
        help="tell of each callback that takes so long, even once (default: "
        f"{DEFAULTS.slow_once_us / 1e6:g} once, or {DEFAULTS.slow_us / 1e6:g} "
        f"{DEFAULTS.slow_times} times)",
    )


def _view_parser(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]
) -> None:
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="a trace; - for standard input")
    parser.add_argument(
        "--turns",
        type=_turns,
        default=(0, None),
        metavar="A-B",
        help="these turns alone; A, A- for all from it on",
    )
    parser.add_argument(
        "--channel",
        type=_channel,
        action="append",
        default=[],
        metavar="N",
        help="what has to do with this channel; may be given again",
    )
    parser.add_argument(
        "--calls-only", action="store_true", help="calls, and turns that have some"
    )


def _choice(given: argparse.Namespace) -> TurnFilter:
    first, last = given.turns
    return TurnFilter(first, last, frozenset(given.channel), given.calls_only)


def _number(text: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= 9
    if not is_number or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    # A microsecond is the least that a trace tells.
    if not 1e-6 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _turns(text: str) -> tuple[int, int | None]:
    first, dash, last = text.partition("-")
    begin = _number(first)
    end = _number(last) if last else None if dash else begin
    if end is not None and end < begin:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return begin, end


def _channel(text: str) -> int:
    # People copy ChatSession#3.
    return _number(text.rpartition("#")[2])
