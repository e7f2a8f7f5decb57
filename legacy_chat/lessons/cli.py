"""``legacy-chat lesson``: the list of lessons, or one lesson.

Rule 1: the exit status is 0, 1 (the lesson cannot run, or a claim is false here) or 2
(invalid arguments); an error is one line on standard error.
Rule 2: standard output has the lesson, nothing else.
Rule 3: every option is used, or is an error.
Rule 4: at a terminal, the answer and every full screen wait for a key. Any other
standard output gets the whole lesson at once.
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

import compat
from compat.console import complain, discard, escape_unencodable, is_coloured
from compat.files import PRIVATE
from compat.loops import VARIABLE
from compat.options import Parser
from compat.replacing import replacing
from compat.trace.reader import Reader, read_trace
from compat.trace.render.messages import LANGUAGES
from compat.values import shown
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.harness import ScenarioError
from legacy_chat.lessons.engine.lesson import ChangedCodeError, Text
from legacy_chat.lessons.engine.pager import Pager, QuitError, print_lines
from legacy_chat.lessons.engine.render import Renderer
from legacy_chat.lessons.engine.runner import run_lesson
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["main"]

# Columns and rows without a terminal.
SCREEN = (110, 24)

EXAMPLES = """\
examples:
  legacy-chat lesson                         list the lessons
  legacy-chat lesson 2                       why hello loses its o
  legacy-chat lesson 2 --lang zh             the same in Chinese
  legacy-chat lesson 6 --loop selectors      on another loop, with another result
  legacy-chat lesson 2 --html hello.html     its trace, as a page to step through
"""

LIST = Text(
    f"{len(LESSONS)} lessons: legacy-chat lesson NUMBER",
    f"共 {len(LESSONS)} 课：legacy-chat lesson 编号",
)


def main(argv: list[str]) -> int:
    """Run the command line *argv*; return the exit status."""
    parser = _parser()
    given = parser.parse_args(argv)
    escape_unencodable(sys.stdout)
    try:
        loop = compat.choose(given.loop or _default_loop(given.number)).name
    except (compat.UnknownLoopError, compat.MissingLoopError) as error:
        parser.error(str(error))
    if mistake := _mistake(given):
        parser.error(mistake)
    if sys.stdout is None:
        return _fail("standard output is closed")
    try:
        if given.number is None:
            print_lines(_list(given.lang))
            return 0
        return _teach(given, loop)
    except BrokenPipeError:
        discard(sys.stdout)
        return 1
    except (KeyboardInterrupt, QuitError):
        return 0
    except OSError as error:
        where = f"lesson {given.number}: " if given.number else ""
        file = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{file}{error.strerror or error}")
    except (ScenarioError, ChangedCodeError) as error:
        return _fail(f"lesson {given.number}: {error}")


def _teach(given: argparse.Namespace, loop: str) -> int:
    """Run a lesson, and print it."""
    number: int = given.number
    lesson = LESSONS[number - 1]
    columns, rows = shutil.get_terminal_size(SCREEN)
    renderer = Renderer(given.lang, columns)
    is_live = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    pauses = is_live and not given.no_pause
    with Pager(rows, pauses, renderer.phrase("next page")) as pager:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "lesson.trace"
            *runs, answer = run_lesson(lesson, loop, trace)
            if given.trace:
                _save(given.trace, trace.read_text("utf-8"))
            if given.html:
                _save(given.html, _page(trace, renderer, number))
            traced = list(renderer.trace(trace, runs, is_coloured(sys.stdout)))
        pager.print(renderer.head(number, lesson, loop))
        for at, (step, run) in enumerate(zip(lesson.steps, runs, strict=True), 1):
            pager.print([*renderer.number(at), *renderer.step(step, run)])
        pager.print([*renderer.heading("trace"), *traced])
        question = renderer.prose(lesson.question)
        pager.print([*renderer.heading("question"), *question])
        pager.wait(renderer.phrase("show answer"))
        pager.print(
            [*renderer.heading("answer"), *renderer.step(lesson.answer, answer)]
        )
        pager.print([*renderer.heading("summary"), *renderer.prose(lesson.summary)])
        pager.print(_footer(given, loop, renderer))
    return _check(number, [*runs, answer])


def _footer(given: argparse.Namespace, loop: str, renderer: Renderer) -> Iterator[str]:
    """Yield the written files, and what to read next."""
    number = given.number
    for what, path in (("page", given.html), ("trace", given.trace)):
        if path:
            yield ""
            yield renderer.phrase("written", what=renderer.phrase(what), path=path)
    usual = LESSONS[number - 1].loop
    if usual != "auto":
        other = "selectors" if loop == usual else usual
        text = renderer.phrase("other loop", number=number, loop=other)
        yield from ("", *renderer.lines(text))
    if number < len(LESSONS):
        yield from ("", *renderer.lines(renderer.phrase("next", number=number + 1)))


def _check(number: int, runs: list[StepRun]) -> int:
    """Return 1, and complain, if a claim is false."""
    false = LESSONS[number - 1].false_claims(runs)
    if not false:
        return 0
    return _fail(f"lesson {number} is wrong here, please report it: {false[0].en}")


def _list(lang: str) -> Iterator[str]:
    yield LIST.in_language(lang)
    yield ""
    for number, lesson in enumerate(LESSONS, 1):
        yield f"  {number}  {lesson.title.in_language(lang)}"


def _page(trace: Path, renderer: Renderer, number: int) -> str:
    # Here, because only --html needs it.
    from compat.trace.render.html import page

    reader = Reader()
    title = renderer.title(number, LESSONS[number - 1]).replace("`", "")
    return page(read_trace(trace, reader), reader, lang=renderer.lang, title=title)


def _save(path: str, text: str) -> None:
    with replacing(path, PRIVATE) as write:
        write(text)


def _fail(message: str) -> int:
    complain(f"legacy-chat lesson: {message}")
    return 1


# The arguments.


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="legacy-chat lesson",
        description="Learn the event loop from scenarios that really run, shown beside "
        "the code that runs.",
        examples=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "number",
        nargs="?",
        type=_number,
        metavar="NUMBER",
        help=f"1 to {len(LESSONS)}; without a number, list the lessons",
    )
    add(
        "--lang",
        choices=LANGUAGES,
        default=_language(),
        help="English or Chinese (default: from LANGUAGE, LC_ALL, LC_MESSAGES or LANG, "
        "else English)",
    )
    add(
        "--loop",
        metavar="NAME",
        help=f"run on this loop: auto, {', '.join(compat.LOOPS)} "
        "(default: auto; lesson 6: select)",
    )
    page = "write the trace as a page to step through"
    add("--html", type=_file, metavar="FILE", help=page)
    add("--trace", type=_file, metavar="FILE", help="write the trace")
    pause = "at a terminal, print the whole lesson without waiting for keys"
    add("--no-pause", action="store_true", help=pause)
    return parser


def _number(text: str) -> int:
    # Not by int() alone, whose message differs for thousands of digits.
    if text.lstrip("0") not in map(str, range(1, len(LESSONS) + 1)):
        raise argparse.ArgumentTypeError(
            f"NUMBER must be 1 to {len(LESSONS)}, got {shown(text)}"
        )
    return int(text)


def _file(text: str) -> str:
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(
            f"FILE must be the name of a file, got {text!r} (standard output has the "
            "lesson)"
        )
    return text


def _language() -> str:
    """Return the language of the environment, by gettext's rules, if it is ours."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next(filter(None, map(os.environ.get, names)), "")
    wanted = [locale]
    if locale.partition(".")[0] not in ("C", "POSIX"):
        wanted = [*os.environ.get("LANGUAGE", "").split(":"), locale]
    found = (re.split("[_.@-]", each)[0].lower() for each in wanted)
    return next((each for each in found if each in LANGUAGES), LANGUAGES[0])


def _default_loop(number: int | None) -> str:
    """Return the loop of a lesson that is given no ``--loop``."""
    if number is None or os.environ.get(VARIABLE):
        return "auto"
    return LESSONS[number - 1].loop


def _mistake(given: argparse.Namespace) -> str:
    """Return the error of options that contradict each other, or ""."""
    options = {"--loop": given.loop, "--html": given.html, "--trace": given.trace}
    if given.number is None:
        for option, value in options.items():
            if value is not None:
                used = f"{option} {value}"
                return f"{used} needs a lesson: legacy-chat lesson NUMBER {used}"
    both = given.html, given.trace
    if None not in both and os.path.realpath(both[0]) == os.path.realpath(both[1]):
        return f"--html and --trace must be two files, got {given.html} for both"
    return ""
