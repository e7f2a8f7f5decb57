"""``python -m compat``: run an old program on another loop, or print the loop's name.

Rule 1: ``--which`` prints the loop that a program would get in this environment.
Rule 2: all arguments after the program's name belong to the program.
Rule 3: argparse is imported for compat's options only. It imports half of the standard
library, and a program may have its own module of that name.
"""

from __future__ import annotations

import asynchat
import asyncore
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from compat.console import STDOUT, complain, run_command, writing
from compat.install import install
from compat.loop import LOOPS, MissingLoopError, UnknownLoopError, choose
from compat.origin import origin, origin_of_compat
from compat.runner import ProgramError, run_code, run_module, run_script

if TYPE_CHECKING:
    from compat.options import Parser

__all__ = ["main"]

USAGE = """\
python -m compat [--loop NAME] [--trace FILE …] SCRIPT [ARGS ...]
       python -m compat [--loop NAME] [--trace FILE …] -m MODULE [ARGS ...]
       python -m compat [--loop NAME] [--trace FILE …] -c CODE [ARGS ...]
       python -m compat [--loop NAME] --which"""

EXAMPLES = """\
examples:
  python -m compat old_server.py                 unmodified, on the best loop
  python -m compat --loop poll old_server.py 80  on another loop; 80 is the script's
  python -m compat --trace t.jsonl old_server.py python -m compat.trace shows t.jsonl
  COMPAT_LOOP=select python -m compat --which    the meaning of "auto", and the reason
"""

# Options that take the rest of the command line.
PROGRAMS: dict[str, Callable[[str, list[str]], None]] = {
    "-m": run_module,
    "-c": run_code,
}

# Compat's options that take a value.
VALUED = ("--loop", "--trace", "--trace-payload", "--trace-max")


class Options:
    """The values of compat's options; here, the defaults."""

    loop = "auto"
    which = False
    trace: str | None = None
    trace_payload: int | None
    trace_max: int


def main(argv: list[str] | None = None) -> int:
    """Run the command line *argv* (None: ``sys.argv``); return the exit status.

    The program's exceptions pass through, SystemExit included.
    """
    before, program = _split(sys.argv[1:] if argv is None else argv)
    options = Options()
    if before:
        _parse(before, options)
    try:
        choose(options.loop)
    except (UnknownLoopError, MissingLoopError) as error:
        _parser().error(str(error))
    if options.which:
        return run_command(sys.executable, lambda: _print_choice(options.loop))
    if len(program) < 2:
        _parser().error("a program is needed: SCRIPT, -m MODULE or -c CODE")
    install(options.loop)
    kind, name, *args = program
    try:
        with ExitStack() as stack:
            if options.trace is not None and not _begin_trace(stack, options, program):
                return 1
            PROGRAMS.get(kind, run_script)(name, args)
    except ProgramError as error:
        complain(f"{sys.executable}: {error}")
        return error.status
    return 0


def _begin_trace(stack: ExitStack, options: Options, program: list[str]) -> bool:
    # Imported here, as is argparse.
    import shlex

    from compat.trace.options import traced

    try:
        stack.enter_context(traced(options, shlex.join(program[1:])))
    except OSError as error:
        why = f"cannot write the trace {options.trace}: {error.strerror}"
        complain(f"{sys.executable}: {why}")
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
        place += 2 if word in VALUED else 1
    return argv, []


def _parse(before: list[str], options: Options) -> None:
    from compat.trace.options import trace_mistake

    parser = _parser()
    parser.parse_args(before, namespace=options)
    if mistake := trace_mistake(options):
        parser.error(mistake)


def _parser() -> Parser:
    from compat.options import LOOP, Option, Parser
    from compat.trace.options import TRACE

    parser = Parser(
        "python -m compat",
        "Run any asyncore or asynchat program, unmodified, on any loop.",
        EXAMPLES,
        usage=USAGE,
        allow_abbrev=False,
    )
    parser.add(
        Option("--which", "print the loop, the reason, and the origin of the modules"),
        LOOP,
        *TRACE,
    )
    return parser


def _print_choice(loop: str) -> int:
    choice = choose(loop)
    with writing(STDOUT):
        print(f"loop:     {choice.name}, by {LOOPS[choice.name].implementation}")
        print(f"why:      {choice.why}")
        print(f"compat:   {origin_of_compat()}")
        print(f"asyncore: {origin(asyncore)}")
        print(f"asynchat: {origin(asynchat)}")
    return 0
