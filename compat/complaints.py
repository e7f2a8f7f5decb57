"""The error messages of the command lines, on standard error.

Rule: a message is one line of printable characters, whatever it quotes: an argument, a
file's name, an error of the system or of OpenSSL. So it cannot control a terminal.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from compat import streams
from compat.characters import escaped, is_printable

__all__ = ["Parser", "complain", "one_line"]


class Parser(argparse.ArgumentParser):
    """A parser that prints errors on one line; so do its subparsers."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def complain(program: str, message: str) -> None:
    """Write ``program: message`` to standard error, if it is writable."""
    streams.complain(f"{program}: {one_line(message)}")


def one_line(text: str) -> str:
    r"""Return *text* with escapes such as ``\x0a`` for unprintable characters."""
    if is_printable(text):
        return text
    return "".join(each if is_printable(each) else escaped(each) for each in text)
