"""``python -m compat``: run an old program on another loop, or print the loop's name.

Rule 1: ``--which`` prints the loop that a program would get in this environment.
Rule 2: all arguments after the program's name belong to the program.
"""

from __future__ import annotations

import asynchat
import asyncore
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from compat import streams
from compat.install import install
from compat.loops import LOOPS, MissingLoopError, UnknownLoopError, choose
from compat.origin import origin, origin_of_compat
from compat.run import ProgramError, run_code, run_module, run_script

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]

USAGE = """\
python -m compat [--loop NAME] [--trace FILE …] SCRIPT [ARGS ...]
       python -m compat [--loop NAME] [--trace FILE …] -m MODULE [ARGS ...]
       python -m compat [--loop NAME] [--trace FILE …] -c CODE [ARGS ...]
       python -m compat [--loop NAME] --which"""

EXAMPLES = """\
examples:
  python -m compat old_server.py                 as it is, on the best loop there is
  python -m compat --loop poll old_server.py 80  on another; 80 is the script's
  python -m compat --trace t.jsonl old_server.py see compat.trace for what is in it
  COMPAT_LOOP=select python -m compat --which    what "auto" means, and why
"""

# Compat's options that take a value.
_VALUED = ("--loop", "--trace", "--trace-payload", "--trace-max")

# Options that take the rest of the command line.
PROGRAMS: dict[str, Callable[[str, list[str]], None]] = {
    "-m": run_module,
    "-c": run_code,
}


class Given:
    """The defaults of compat's options."""

    loop = "auto"
    which = False
    trace: str | None = None
    trace_payload: int | None
    trace_max: int


def main(argv: list[str] | None = None) -> int:
    """Run the command line *argv* (None: ``sys.argv``); return the exit status.

    The program's exceptions pass through, SystemExit included.
    """
    argv = sys.argv[1:] if argv is None else argv
    options, program = _split(argv)
    given = Given()
    if options:
        _parse(options, given)
    try:
        choose(given.loop)
    except (UnknownLoopError, MissingLoopError) as error:
        _parser().error(str(error))
    if given.which:
        return _which(given.loop)
    if len(program) < 2:
        _parser().error("which program? a SCRIPT, -m MODULE or -c CODE")
    install(given.loop)
    kind, name, *args = program
    try:
        with ExitStack() as stack:
            if given.trace is not None and not _begin_trace(stack, given, program):
                return 1
            PROGRAMS.get(kind, run_script)(name, args)
    except ProgramError as error:
        streams.complain(f"{sys.executable}: {error}")
        return error.status
    return 0


def _begin_trace(stack: ExitStack, given: Given, program: list[str]) -> bool:
    # Not above, as with argparse.
    import shlex

    from compat.complaints import complain
    from compat.trace.options import traced

    try:
        stack.enter_context(traced(given, shlex.join(program[1:])))
    except OSError as error:
        why = f"cannot write the trace {given.trace}: {error.strerror}"
        complain(sys.executable, why)
        return False
    return True


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return (compat's options, ["-m" or "-c" or "script", name, arguments …])."""
    place = 0
    while place < len(argv):
        word = argv[place]
        if word[:2] in PROGRAMS:
            # Python accepts -mname as well as -m name.
            glued = [word[2:]] if word[2:] else []
            return argv[:place], [word[:2], *glued, *argv[place + 1 :]]
        if word == "-" or not word.startswith("-"):
            return argv[:place], ["script", *argv[place:]]
        place += 2 if word in _VALUED else 1
    return argv, []


def _parse(options: list[str], given: Given) -> None:
    # Not above, as with argparse.
    from compat.trace.options import trace_mistake

    parser = _parser()
    parser.parse_args(options, namespace=given)
    if wrong := trace_mistake(given):
        parser.error(wrong)


def _parser() -> argparse.ArgumentParser:
    # Imported here: argparse imports half of the standard library. A program that runs
    # without compat's options may have its own module named argparse.
    import argparse

    from compat.complaints import Parser
    from compat.trace.options import add_options

    parser = Parser(
        prog="python -m compat",
        usage=USAGE,
        description="Any asyncore or asynchat program, unmodified, on any loop.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--which",
        action="store_true",
        help="print the loop that would be used, why, and where the modules come from",
    )
    parser.add_argument(
        "--loop",
        default=Given.loop,
        metavar="NAME",
        help=f"auto (default), {', '.join(LOOPS)}; COMPAT_LOOP sets what auto means",
    )
    add_options(parser)
    return parser


def _which(loop: str) -> int:
    try:
        _print_choice(loop)
        print(end="", flush=True)
    except OSError as error:
        streams.throw_away(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            why = f"standard output: {error.strerror}"
            streams.complain(f"{sys.executable}: {why}")
        return 1
    return 0


def _print_choice(loop: str) -> None:
    choice = choose(loop)
    print(f"loop:     {choice.name}, turned by {LOOPS[choice.name].turned_by}")
    print(f"why:      {choice.why}")
    print(f"compat:   {origin_of_compat()}")
    print(f"asyncore: {origin(asyncore)}")
    print(f"asynchat: {origin(asynchat)}")
