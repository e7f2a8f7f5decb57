"""Options as tables: one form for all our parsers, and the options that they share.

    >>> parser = Parser("demo", "Serve a room.")
    >>> parser.add(Option("--port N", "TCP port", type=PORT, default=19528))
    >>> parser.parse_args(["--port", "80"]).port
    80

Rule 1: an error of the command line is one line that cannot control a terminal.
Rule 2: a help text has the range and the default of its option.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from compat.console import complain
from compat.loop import LOOPS, MissingLoopError, choose
from compat.values import Range

__all__ = ["LANGUAGE", "LOOP", "Option", "Parser"]


@dataclass(frozen=True)
class Option:
    """One option, or one positional argument, of a command.

    Attributes:
        names: the flags, then the name of the value: ``-o --output FILE``. An option
            without a value is a switch. A value alone is a positional argument.
        help: the purpose. The parser adds the range of *type*, and the default.
        type: a Range, or a function that raises ValueError for a wrong text.
        default: None for none.
        more: further keywords of ``ArgumentParser.add_argument``.
    """

    names: str
    help: str = ""
    type: Range | Callable[[str], object] | None = None
    default: object = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Option:
        """Return the option with other attributes."""
        return replace(self, **changes)


class Parser(argparse.ArgumentParser):
    """A parser with options from tables; so are its subparsers.

    Args:
        examples: printed after the options.
    """

    def __init__(
        self, prog: str, description: str = "", examples: str = "", **more: Any
    ) -> None:
        more = {"formatter_class": argparse.RawDescriptionHelpFormatter, **more}
        super().__init__(
            prog=prog, description=description, epilog=examples or None, **more
        )

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and *message* on one line, without the usage."""
        complain(f"{self.prog}: {message}")
        sys.exit(2)

    def add(self, *options: Option, title: str = "") -> None:
        """Add options; with a *title*, in a separate group."""
        group = self.add_argument_group(title) if title else self
        for option in options:
            _add(group, option)

    def add_exclusive(self, *options: Option) -> None:
        """Add options of which a command line has at most one."""
        group = self.add_mutually_exclusive_group()
        for option in options:
            _add(group, option)


def _add(group: Any, option: Option) -> None:
    *flags, last = option.names.split()
    if last.startswith("-"):
        keywords: dict[str, Any] = {"action": "store_true"}
        flags.append(last)
    else:
        keywords = {"metavar": last, "default": option.default}
        if option.type is not None:
            keywords["type"] = _converter(option.type)
        if not flags:
            flags.append(last.lower())
    group.add_argument(*flags, help=_help(option), **{**keywords, **option.more})


def _help(option: Option) -> str:
    text = option.help
    if isinstance(option.type, Range):
        text += f": {option.type}"
    if option.default not in (None, "", []) and "default" not in text:
        text += " (default: %(default)s)"
    return text


def _converter(convert: Range | Callable[[str], object]) -> Callable[[str], object]:
    def converted(text: str) -> object:
        try:
            return convert.parse(text) if isinstance(convert, Range) else convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def _loop(name: str) -> str:
    try:
        choose(name)
    except MissingLoopError as error:
        raise ValueError(str(error)) from None
    return name


LOOP = Option(
    "--loop NAME",
    f"event loop: auto, {', '.join(LOOPS)}; auto is $COMPAT_LOOP, or the best "
    "one of this platform (default: auto)",
    type=_loop,
    default="auto",
)

LANGUAGE = Option(
    "--lang LANG",
    "language: en or zh",
    default="en",
    more={"choices": ("en", "zh")},
)
