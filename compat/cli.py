"""``python -m compat --which``: which loop would be used here, and why.

Rule: what is printed is what ``compat.loop()`` would do in this very environment.
"""

from __future__ import annotations

import argparse
import asynchat
import asyncore
import importlib.metadata
import platform
import sys
from types import ModuleType

from compat.loops import LOOPS, MissingLoopError, UnknownLoopError, choose


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for a loop that does not exist."""
    parser = argparse.ArgumentParser(
        prog="python -m compat",
        description="Any asyncore or asynchat program, on any loop.",
    )
    parser.add_argument(
        "--which",
        action="store_true",
        required=True,
        help="print the loop that would be used, why, and where the modules come from",
    )
    parser.add_argument(
        "--loop",
        default="auto",
        metavar="NAME",
        help=f"auto (default), {', '.join(LOOPS)}; COMPAT_LOOP sets what auto means",
    )
    given = parser.parse_args(argv)
    try:
        choice = choose(given.loop)
    except (UnknownLoopError, MissingLoopError) as error:
        parser.error(str(error))
    print(f"loop:     {choice.name}, turned by {LOOPS[choice.name].turned_by}")
    print(f"why:      {choice.why}")
    print(f"asyncore: {origin(asyncore)}")
    print(f"asynchat: {origin(asynchat)}")
    return 0


def origin(module: ModuleType) -> str:
    """Which package a module comes from, its version, and the file."""
    if sys.version_info < (3, 12):
        source = f"standard library of Python {platform.python_version()}"
    else:
        package = f"py{module.__name__}"
        source = f"{package} {importlib.metadata.version(package)}"
    return f"{source}, {module.__file__}"
