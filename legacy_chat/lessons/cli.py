"""``legacy-chat lesson``: the list, or one lesson.

Rule 1: the exit status is 0, 1 (it could not be played, or claims what is not true
here) or 2 (it was asked wrongly), with one line on standard error.
Rule 2: standard output has the lesson, nothing else.
Rule 3: what was given is used, or is an error.
Rule 4: a student at a terminal thinks first: the answer waits for a key, and so does
all that does not fit on the screen. Whatever else standard output is gets the lesson
whole, at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import compat
from compat.files import PRIVATE
from compat.loops import VARIABLE
from compat.replacing import replacing
from compat.streams import escape_the_rest, is_coloured, throw_away
from compat.trace.reader import Reader, read_trace
from compat.values import shown
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.harness import StageError
from legacy_chat.lessons.engine.lesson import LANGUAGES, ChangedCodeError, Text
from legacy_chat.lessons.engine.pager import LeftError, Pager, print_lines
from legacy_chat.lessons.engine.render import Show
from legacy_chat.lessons.engine.runner import Scene, play
from legacy_chat.logging.escapes import one_line
from legacy_chat.logging.output import complain

__all__ = ["main"]

# Lines of the trace that are printed at most. --trace keeps all of it.
TRACE_LINES = 30

# Columns where there is no terminal to ask.
COLUMNS = 110

EXAMPLES = """\
examples:
  legacy-chat lesson                         what there is to learn
  legacy-chat lesson 2                       why hello loses its o
  legacy-chat lesson 2 --lang zh             the same in Chinese
  legacy-chat lesson 6 --loop selectors      on another loop, it ends otherwise
  legacy-chat lesson 2 --html hello.html     its trace, as a page to step through
"""

LIST = Text(
    f"{len(LESSONS)} lessons: legacy-chat lesson NUMBER",
    f"共 {len(LESSONS)} 课：legacy-chat lesson 编号",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line; --help has the rest."""
        self.exit(2, f"{self.prog}: {one_line(message)}\n")


def main(argv: list[str]) -> int:
    """Run the command line *argv*; return the exit status."""
    parser = _parser()
    given = parser.parse_args(argv)
    escape_the_rest(sys.stdout)
    try:
        loop = compat.choose(given.loop or _loop_of(given.number)).name
    except (compat.UnknownLoopError, compat.MissingLoopError) as error:
        parser.error(str(error))
    if mistake := _mistake(given):
        parser.error(mistake)
    if sys.stdout is None:
        return _refuse("standard output is closed")
    try:
        if given.number is None:
            print_lines(_list(given.lang))
            return 0
        return _teach(given, loop)
    except BrokenPipeError:
        throw_away(sys.stdout)
        return 1
    except (KeyboardInterrupt, LeftError):
        return 0
    except OSError as error:
        whose = f"lesson {given.number}: " if given.number else ""
        what = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{whose}{what}{error.strerror or error}")
    except (StageError, ChangedCodeError) as error:
        return _refuse(f"lesson {given.number}: {error}")


def _loop_of(number: int | None) -> str:
    """Return the loop that a lesson is played on unless another is asked for."""
    if number is None or os.environ.get(VARIABLE):
        return "auto"
    return LESSONS[number - 1].loop


def _language() -> str:
    """Return the language of the environment, as gettext finds it, if we have it."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next(filter(None, map(os.environ.get, names)), "")
    wanted = [locale]
    if locale.partition(".")[0] not in ("C", "POSIX"):
        wanted = [*os.environ.get("LANGUAGE", "").split(":"), locale]
    found = (re.split("[_.@-]", each)[0].lower() for each in wanted)
    return next((each for each in found if each in LANGUAGES), LANGUAGES[0])


def _mistake(given: argparse.Namespace) -> str:
    """What is given to no purpose, and what to do; or nothing."""
    options = {"--loop": given.loop, "--html": given.html, "--trace": given.trace}
    if given.number is None:
        for option, value in options.items():
            if value is not None:
                what = f"{option} {value}"
                do = f"legacy-chat lesson NUMBER {what}"
                return f"{what} needs the number of a lesson: {do}"
    both = given.html, given.trace
    if None not in both and os.path.realpath(both[0]) == os.path.realpath(both[1]):
        return f"--html and --trace are both {given.html}: name two files"
    return ""


def _list(lang: str) -> Iterator[str]:
    yield LIST.said_in(lang)
    yield ""
    for number, lesson in enumerate(LESSONS, 1):
        yield f"  {number}  {lesson.title.said_in(lang)}"


def _teach(given: argparse.Namespace, loop: str) -> int:
    columns, rows = shutil.get_terminal_size((COLUMNS, 24))
    show = Show(given.lang, columns)
    pauses = _is_read_live() and not given.no_pause
    with Pager(show, rows, pauses) as pager:
        return _tell(given, loop, show, pager)


def _tell(given: argparse.Namespace, loop: str, show: Show, pager: Pager) -> int:
    lesson = LESSONS[given.number - 1]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "lesson.trace"
        scenes = play(lesson, loop, trace)
        *steps, answer = scenes
        if given.trace:
            _save(given.trace, trace.read_text("utf-8"))
        if given.html:
            _save(given.html, _page(trace, show, given.number))
        told = list(_trace(trace, show, steps))
    pager.print(show.head(given.number, lesson, loop))
    for number, scene in enumerate(steps, 1):
        pager.print(show.step(number, scene))
    pager.print(told)
    question = show.prose(lesson.question)
    pager.print(["", f"── {show.word('question')} ──", *question])
    pager.wait("enter")
    pager.print(["", f"── {show.word('answer')} ──", *show.scene(answer)])
    pager.print(["", f"── {show.word('remember')} ──", *show.prose(lesson.ends)])
    for what, path in (("page", given.html), ("trace", given.trace)):
        if path:
            written = show.word("written", what=show.word(what), path=path)
            pager.print(["", written])
    pager.print(_what_is_next(given.number, loop, show))
    return _judge(given.number, scenes)


def _what_is_next(number: int, loop: str, show: Show) -> Iterator[str]:
    usual = LESSONS[number - 1].loop
    if usual != "auto":
        other = "selectors" if loop == usual else usual
        yield ""
        yield from show.lines(show.word("other", number=number, loop=other))
    if number < len(LESSONS):
        yield ""
        yield from show.lines(show.word("next", number=number + 1))


def _judge(number: int, scenes: list[Scene]) -> int:
    """1, and a line, if the lesson has said something that is not so."""
    false = [claim for scene in scenes for claim, holds in scene.claims() if not holds]
    if not false:
        return 0
    return _refuse(
        f"lesson {number} is wrong here, please report it: {false[0].text.en}"
    )


def _trace(trace: Path, show: Show, steps: list[Scene]) -> Iterator[str]:
    """The trace of the steps, as text; that of the answer would give it away."""
    # Here, for the list does not need it.
    from compat.trace.render.text import lines

    reader = Reader()
    first, last = steps[0].first, steps[-1].last
    color, columns, lang = is_coloured(sys.stdout), show.columns, show.lang
    alike = set().union(*map(show.turns_like_others, steps))
    all_of_it = left_out = 0
    texts: list[list[str]] = []
    gaps: set[str] = set()
    for turn in read_trace(trace, reader):
        if turn.number > last:
            continue
        text = list(lines(turn, reader, color=color, columns=columns, lang=lang))
        all_of_it += len(text)
        if turn.number in alike:
            left_out += 1
        # The turns before were the setting. If there are none, the room opens.
        elif turn.number >= first or first == 1:
            if left_out:
                text.insert(0, show.word("like it", count=left_out))
                gaps.add(text[0])
            texts.append(text)
            left_out = 0
    shown = _first_of(texts)
    yield ""
    yield f"── {show.word('trace')} ──"
    # What begins a colour ends in a letter.
    names = re.findall(r"(?:\x1b\[\d+m)?(\w+#\d+)", "\n".join(shown))
    channels = [each for each in reader.channels.values() if each.name in names]
    yield from show.named(channels, steps[-1].seen)
    yield from shown
    if left := all_of_it - sum(line not in gaps for line in shown):
        yield from show.lines(show.word("more trace", count=left))


def _first_of(texts: list[list[str]]) -> list[str]:
    """Whole turns, unless that is less than half of what may be shown."""
    shown: list[str] = []
    for text in texts:
        if len(shown) + len(text) > TRACE_LINES:
            is_much = len(shown) >= TRACE_LINES // 2
            return shown if is_much else [*shown, *text][:TRACE_LINES]
        shown += text
    return shown


def _page(trace: Path, show: Show, number: int) -> str:
    from compat.trace.render.html import page

    reader = Reader()
    title = show.title(number, LESSONS[number - 1]).replace("`", "")
    return page(read_trace(trace, reader), reader, lang=show.lang, title=title)


def _save(path: str, text: str) -> None:
    with replacing(path, PRIVATE) as write:
        write(text)


def _is_read_live() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _refuse(what: str) -> int:
    complain("legacy-chat lesson", what)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="legacy-chat lesson",
        description="The loop at work: scenarios that really run, beside the code that "
        "makes them happen.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "number",
        nargs="?",
        type=_lesson,
        metavar="NUMBER",
        help=f"1 to {len(LESSONS)}; without it, the list",
    )
    parser.add_argument(
        "--lang",
        choices=LANGUAGES,
        default=_language(),
        help="English or Chinese (default: as LANGUAGE, LC_ALL, LC_MESSAGES or LANG "
        "says, else English)",
    )
    parser.add_argument(
        "--loop",
        metavar="NAME",
        help=f"what turns the channels: auto, {', '.join(compat.LOOPS)} "
        "(default: auto; for lesson 6, select)",
    )
    parser.add_argument(
        "--html",
        type=_file,
        metavar="FILE",
        help="write the trace as a page to step through",
    )
    parser.add_argument("--trace", type=_file, metavar="FILE", help="keep the trace")
    parser.add_argument(
        "--no-pause",
        action="store_true",
        help="at a terminal, do not wait for a key: neither when the screen is full, "
        "nor before the answer",
    )
    return parser


def _lesson(text: str) -> int:
    # Not by int() alone, which refuses thousands of digits in other words.
    if text.lstrip("0") not in map(str, range(1, len(LESSONS) + 1)):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is no lesson: there are 1 to {len(LESSONS)}"
        )
    return int(text)


def _file(text: str) -> str:
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no file: name one, for standard output has the lesson"
        )
    return text
