"""Functions and errors, as they stand in a trace: what, and where in which file.

Rule 1: what is looked at is the program's, so it may be anything, and may raise.
Rule 2: nothing is imported for it, and what comes out can be written as UTF-8.
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

# The directory of the functions that a trace puts around the program's.
_RECORD = os.path.join(os.path.dirname(__file__), "record") + os.sep

# Characters of an error, and lines of a function, that are kept.
LONGEST_ERROR = 200
LONGEST_SOURCE = 40


def describe(error: BaseException | None, spoken: bool = True) -> str:
    """An exception in a line.

    Args:
        spoken: with the program's words; False leaves nothing but its kind, and what
            the system calls it.
    """
    kind = type(error).__name__
    try:
        said = f"{kind}: {error}" if spoken else kind + _system_words(error)
    except Exception:
        said = f"{kind}, which cannot be printed"
    return sound(said[:LONGEST_ERROR])


def _system_words(error: BaseException | None) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    words = os.strerror(error.errno)
    # TLS and name resolution have numbers of their own.
    return f": [Errno {error.errno}] {words}" if error.strerror == words else ""


def place_of(error: BaseException | None) -> str:
    """Where it was raised: file and line."""
    place: tuple[str, int] | None = None
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(_RECORD):
            place = file, traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{short(place[0])}:{place[1]}" if place else ""


def sound(text: str) -> str:
    """The same, if all of it can be written as UTF-8; otherwise with escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def source_of(function: FunctionType) -> list[str]:
    """The lines of a function, if they can be found. Nothing is imported for that."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    lines = lines[code.co_firstlineno - 1 :][:LONGEST_SOURCE]
    last = _last_line(code) - code.co_firstlineno + 1
    # A docstring, or a comment, has no code.
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
    """A file's path from where the program is, or from where it is imported."""
    folders = [folder for folder in sys.path if isinstance(folder, str)]
    folders.sort(key=len, reverse=True)
    # Where the program is may have been removed.
    with suppress(OSError):
        folders.insert(0, os.getcwd())
    for folder in folders:
        if folder and file.startswith(folder.rstrip(os.sep) + os.sep):
            return sound(file[len(folder.rstrip(os.sep)) + 1 :])
    return sound(file)


def is_own(function: Any) -> bool:
    """Is it asyncore's, asynchat's or compat's?"""
    module = str(getattr(function, "__module__", ""))
    return module in ("asyncore", "asynchat") or module.partition(".")[0] == "compat"
