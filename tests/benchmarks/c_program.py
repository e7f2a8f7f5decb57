"""Programs in C, built at run time.

Rule: nothing is written into the source tree.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FLAGS", "NO_COMPILER", "build", "compiler"]

FLAGS = ("-O2", "-Wall", "-Wextra")

NO_COMPILER = "missing: a C compiler, cc in PATH or $CC"


def compiler() -> tuple[str, ...] | None:
    """Return the command of the C compiler: ``$CC``, else ``cc`` in PATH; or None."""
    words = tuple(shlex.split(os.environ.get("CC") or "cc"))
    return words if words and shutil.which(words[0]) else None


def build(words: tuple[str, ...], sources: Iterable[Path], program: Path) -> None:
    """Compile source files with a compiler's command.

    Raises:
        subprocess.CalledProcessError: the compiler has failed; its errors are printed.
    """
    subprocess.run((*words, *FLAGS, "-o", program, *sources), check=True)
