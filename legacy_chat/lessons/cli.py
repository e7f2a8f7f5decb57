"""``legacy-chat lesson``: the list of lessons, or one lesson.

Rule 1: the exit status is 0, 1 (the lesson cannot run, or a claim is false here) or 2
(invalid arguments); an error is one line on standard error.
Rule 2: standard output has the lesson, nothing else.
Rule 3: every option is used, or is an error.
Rule 4: at a terminal, the answer and every full screen wait for a key. Any other
standard output gets the whole lesson at once.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compat
from compat.console import CommandError, is_coloured, run_command
from compat.files import PRIVATE
from compat.loop import VARIABLE
from compat.options import LANGUAGE, Option, Parser
from compat.replacing import replacing
from compat.trace.reader import Reader, read_trace
from compat.trace.render.messages import LANGUAGES
from compat.values import shown
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.lesson import Text
from legacy_chat.lessons.engine.pager import Pager, QuitError, print_lines
from legacy_chat.lessons.engine.render import Renderer
from legacy_chat.lessons.engine.runner import run_lesson

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
    options = parser.parse_args(argv)
    number = options.number
    try:
        loop = compat.choose(options.loop or _default_loop(number)).name
    except (compat.UnknownLoopError, compat.MissingLoopError) as error:
        parser.error(str(error))
    if mistake := _mistake(options):
        parser.error(mistake)
    program = f"legacy-chat lesson: lesson {number}" if number else parser.prog
    return run_command(program, lambda: _run(options, loop))


def _run(options: Any, loop: str) -> int:
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    if options.number is None:
        titles = [each.title.in_language(options.lang) for each in LESSONS]
        numbered = (f"  {at}  {title}" for at, title in enumerate(titles, 1))
        print_lines([LIST.in_language(options.lang), "", *numbered])
        return 0
    try:
        return _teach(options, loop)
    except QuitError:
        return 0


def _teach(options: Any, loop: str) -> int:
    """Run a lesson, and print it."""
    number: int = options.number
    lesson = LESSONS[number - 1]
    columns, rows = shutil.get_terminal_size(SCREEN)
    renderer = Renderer(options.lang, columns)
    is_live = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    pauses = is_live and not options.no_pause
    with Pager(rows, pauses, renderer.phrase("next page")) as pager:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "lesson.trace"
            *runs, answer = run_lesson(lesson, loop, trace)
            if options.trace:
                _save(options.trace, trace.read_text("utf-8"))
            if options.html:
                _save(options.html, _page(trace, renderer, number))
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
        pager.print(_footer(options, loop, renderer))
    if false := lesson.false_claims([*runs, answer]):
        raise CommandError(f"it is wrong here, please report it: {false[0].en}")
    return 0


def _footer(options: Any, loop: str, renderer: Renderer) -> Iterator[str]:
    """Yield the written files, and the next lesson."""
    number = options.number
    for what, path in (("page", options.html), ("trace", options.trace)):
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


def _page(trace: Path, renderer: Renderer, number: int) -> str:
    # Here, because only --html needs it.
    from compat.trace.render.html import page

    reader = Reader()
    title = renderer.title(number, LESSONS[number - 1]).replace("`", "")
    return page(read_trace(trace, reader), reader, lang=renderer.lang, title=title)


def _save(path: str, text: str) -> None:
    with replacing(path, PRIVATE) as write:
        write(text)


# The arguments.


def _parser() -> Parser:
    parser = Parser(
        "legacy-chat lesson",
        "Learn the event loop from scenarios that really run, beside their code.",
        EXAMPLES,
    )
    parser.add(
        Option(
            "NUMBER",
            f"1 to {len(LESSONS)}; without a number, list the lessons",
            type=_number,
            more={"nargs": "?"},
        ),
        LANGUAGE.but(
            help="English or Chinese (default: from LANGUAGE, LC_ALL, LC_MESSAGES or "
            "LANG, else English)",
            default=_language(),
        ),
        Option(
            "--loop NAME",
            f"run on this loop: auto, {', '.join(compat.LOOPS)} (default: auto; lesson "
            "6: select)",
        ),
        Option("--html FILE", "write the trace as a page to step through", type=_file),
        Option("--trace FILE", "write the trace", type=_file),
        Option("--no-pause", "at a terminal, do not wait for keys"),
    )
    return parser


def _number(text: str) -> int:
    # Not by int() alone, whose message differs for thousands of digits.
    if text.lstrip("0") not in map(str, range(1, len(LESSONS) + 1)):
        raise ValueError(f"NUMBER must be 1 to {len(LESSONS)}, got {shown(text)}")
    return int(text)


def _file(text: str) -> str:
    if text in ("", "-"):
        raise ValueError(
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


def _mistake(options: Any) -> str:
    """Return the error of options that contradict each other, or ""."""
    if options.number is None:
        for name in ("loop", "html", "trace"):
            if (value := getattr(options, name)) is not None:
                used = f"--{name} {value}"
                return f"{used} needs a lesson: legacy-chat lesson NUMBER {used}"
    both = options.html, options.trace
    if None not in both and os.path.realpath(both[0]) == os.path.realpath(both[1]):
        return f"--html and --trace must be two files, got {options.html} for both"
    return ""
