"""Describe functions and exceptions of the program: their text, file and line.

Rule 1: they are the program's, so each may be any object and may raise.
Rule 2: no module is imported for this, and all results can be encoded as UTF-8.
"""

from __future__ import annotations

import linecache
import os
import sys
import textwrap
from contextlib import suppress
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

__all__ = ["describe", "is_own", "place_of", "short", "sound", "source_of"]

# The folder of the functions that a trace puts around the program's.
_RECORD = os.path.join(os.path.dirname(__file__), "record") + os.sep

# Characters of an error, and lines of a function.
MAX_ERROR = 200
MAX_SOURCE = 40


def describe(error: BaseException | None, spoken: bool = True) -> str:
    """Return an exception as one line.

    Args:
        spoken: include its message; else only its class and the system's error.
    """
    kind = type(error).__name__
    try:
        text = f"{kind}: {error}" if spoken else kind + _system_error(error)
    except Exception:
        text = f"{kind}, which cannot be printed"
    return sound(text[:MAX_ERROR])


def _system_error(error: BaseException | None) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    words = os.strerror(error.errno)
    # Errors of TLS and name resolution have other numbers.
    return f": [Errno {error.errno}] {words}" if error.strerror == words else ""


def place_of(error: BaseException | None) -> str:
    """Return the file and line that raised it; "" if they are not known."""
    place = ""
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(_RECORD):
            place = f"{short(file)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def sound(text: str) -> str:
    """Return *text* with surrogates escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def source_of(function: FunctionType) -> list[str]:
    """Return the lines of a function; none if they cannot be found."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    lines = lines[code.co_firstlineno - 1 :][:MAX_SOURCE]
    last = _last_line(code) - code.co_firstlineno + 1
    # Docstrings and comments have no code.
    while lines[last:] and _indent(lines[last]) > _indent(lines[0]):
        last += 1
    text = textwrap.dedent("".join(lines[:last]))
    return [sound(line) for line in text.splitlines()]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _last_line(code: CodeType) -> int:
    ends = [end or 0 for _, end, _, _ in code.co_positions()]
    ends += [line or 0 for _, _, line in code.co_lines()]
    ends += [_last_line(each) for each in code.co_consts if isinstance(each, CodeType)]
    return max(ends)


@lru_cache
def short(file: str) -> str:
    """Return a path relative to the working directory or to a folder of sys.path."""
    folders = [folder for folder in sys.path if isinstance(folder, str)]
    folders.sort(key=len, reverse=True)
    # The working directory may have been removed.
    with suppress(OSError):
        folders.insert(0, os.getcwd())
    for folder in folders:
        if folder and file.startswith(folder.rstrip(os.sep) + os.sep):
            return sound(file[len(folder.rstrip(os.sep)) + 1 :])
    return sound(file)


def is_own(function: Any) -> bool:
    """Return whether a function belongs to asyncore, asynchat or compat."""
    module = str(getattr(function, "__module__", ""))
    return module in ("asyncore", "asynchat") or module.partition(".")[0] == "compat"
