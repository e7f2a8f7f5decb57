"""The generator in C, built at run time.

Rule 1: nothing is written into the source tree. The program lies in a temporary folder,
which is removed at the end of this process.
Rule 2: without a compiler, the generator in Python makes the same load, and the table
names it.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.benchmarks.load.measure import STALL
from tests.benchmarks.load.visits import INSIDE
from tests.benchmarks.scenarios import Scenario

__all__ = ["command", "compiler"]

SOURCE = Path(__file__).with_name("generator.c")
FLAGS = ("-O2", "-Wall", "-Wextra")


def compiler() -> str | None:
    """Return the C compiler: ``$CC``, else ``cc`` in PATH; or None."""
    wanted = os.environ.get("CC") or "cc"
    words = shlex.split(wanted)
    return wanted if words and shutil.which(words[0]) else None


def command(
    chosen: Scenario, pid: int, port: int, warm_up: float, seconds: float
) -> tuple[str, ...] | None:
    """Return the command of the generator in C; None if there is none.

    The generator in Python serves the scenarios ``flood`` and ``memory``. The kernel
    copies their data and opens their connections, so C would save little.
    """
    match chosen.kind:
        case "flood" | "memory":
            return None
        case "visits":
            numbers = ("visits", chosen.clients, 0, 0)
        case "churn":
            numbers = ("visits", chosen.senders, INSIDE, 1)
        case _:
            is_room = int(chosen.protocol == "room")
            numbers = ("exchange", chosen.clients, chosen.senders, is_room)
    found = compiler()
    program = _build(found) if found else None
    if program is None:
        return None
    mode, *sizes = numbers
    words = (program, mode, port, pid, STALL, warm_up, seconds, *sizes)
    return tuple(map(str, words))


@cache
def _build(found: str) -> Path | None:
    folder = Path(tempfile.mkdtemp(prefix="legacy-chat-load-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "generator"
    words = (*shlex.split(found), *FLAGS, "-o", str(program), str(SOURCE))
    done = subprocess.run(words, capture_output=True, check=False)
    return program if done.returncode == 0 else None
