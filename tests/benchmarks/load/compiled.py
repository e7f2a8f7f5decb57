"""The generator in C, built at run time.

Rule 1: the program lies in a temporary folder, which is removed at the end of this
process.
Rule 2: without a compiler that works, the generator in Python makes the same load, and
the table names it.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.benchmarks import c_program
from tests.benchmarks.load.measure import STALL
from tests.benchmarks.load.visits import INSIDE
from tests.benchmarks.scenarios import Scenario

__all__ = ["command"]

SOURCES = Path(__file__).with_name("generator")


def command(
    chosen: Scenario, pid: int, port: int, warm_up: float, seconds: float
) -> tuple[str, ...] | None:
    """Return the command of the generator in C; None if there is none.

    The generator in Python always serves ``memory``, which has no messages.
    """
    match chosen.kind:
        case "memory":
            return None
        case "flood":
            mode, sizes = "flood", (chosen.clients, 1, 1)
        case "visits":
            mode, sizes = "visits", (chosen.clients, 0, 0)
        case "churn":
            mode, sizes = "visits", (chosen.senders, INSIDE, 1)
        case _:
            is_room = int(chosen.protocol == "room")
            mode, sizes = "exchange", (chosen.clients, chosen.senders, is_room)
    compiler = c_program.compiler()
    program = _build(compiler) if compiler else None
    if program is None:
        return None
    words = (program, mode, port, pid, STALL, warm_up, seconds, *sizes)
    return tuple(map(str, words))


@cache
def _build(compiler: tuple[str, ...]) -> Path | None:
    folder = Path(tempfile.mkdtemp(prefix="legacy-chat-load-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "generator"
    try:
        c_program.build(compiler, SOURCES.glob("*.c"), program)
    except subprocess.CalledProcessError as error:
        print(f"the generator in C cannot be built: {error}", file=sys.stderr)
        return None
    return program
