"""What a command line writes to standard error when it cannot do what was asked.

Rule: a complaint is one line, whatever it repeats: an argument, a file's name, what the
system or OpenSSL said. It steers no terminal either.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from compat import streams
from compat.characters import escaped, is_printable

__all__ = ["Parser", "complain", "one_line"]


class Parser(argparse.ArgumentParser):
    """A parser, and so are its subparsers, whose errors stay on one line."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def complain(program: str, message: str) -> None:
    """Write ``program: message`` to standard error, if that takes it."""
    streams.complain(f"{program}: {one_line(message)}")


def one_line(text: str) -> str:
    r"""Return *text* with ``\x0a`` and the like for what is not printable."""
    if is_printable(text):
        return text
    return "".join(each if is_printable(each) else escaped(each) for each in text)
