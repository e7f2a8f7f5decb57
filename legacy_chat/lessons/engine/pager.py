"""A lesson on a screen: whole at once, or, for a reader at a terminal, page by page.

Rule 1: nothing scrolls away unread. What does not fit on the screen waits for a key.
Rule 2: a prompt is erased. What stays on the screen is the lesson.
Rule 3: the terminal's settings are restored, whatever ends the lesson.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, NoReturn, Self

from legacy_chat.baseline.report.text import width
from legacy_chat.lessons.engine.render import Show

try:
    import termios
    import tty
except ImportError:  # Windows has neither: there, each key needs an Enter.
    termios = None  # type: ignore[assignment]

__all__ = ["LeftError", "Pager"]

# Rows of a prompt.
PROMPT = 1

# Space, Enter, Ctrl-D, and the end of the input.
GO_ON = (b" ", b"\r", b"\n", b"\x04", b"")
LEAVE = (b"q", b"Q")


class LeftError(Exception):
    """The reader has left."""


class Pager:
    """Where a lesson is printed. A context manager.

    Args:
        rows: of the screen.
        pauses: wait for a key before a paragraph that does not fit below the others?
    """

    def __init__(self, show: Show, rows: int, pauses: bool) -> None:
        self._show = show
        self._rows = max(rows - PROMPT, 1)
        self._pauses = pauses
        self._unread = 0
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        if self._pauses and termios is not None:
            fd = sys.stdin.fileno()
            self._at_end.callback(_set_modes, fd, termios.tcgetattr(fd))
            # A shell sets its own modes while this is stopped.
            self._on(signal.SIGCONT, lambda *_: self._take_single_keys())
            self._on(signal.SIGTERM, _leave)
            self._on(signal.SIGHUP, _leave)
            self._take_single_keys()
        return self

    def __exit__(self, *error: object) -> None:
        self._at_end.close()

    def print(self, lines: Iterable[str]) -> None:
        """Print them; paragraphs begin with an empty line."""
        for paragraph in _paragraphs(lines, self._rows):
            if self._unread and self._unread + len(paragraph) > self._rows:
                self.wait("go on")
            print_lines(paragraph)
            self._unread += len(paragraph)

    def wait(self, why: str) -> None:
        """Wait for a key, if somebody reads this live.

        Raises:
            LeftError: the key was q.
        """
        if not self._pauses:
            return
        prompt = self._show.word(why)
        try:
            # In here, for Ctrl-C may come as soon as it is shown.
            sys.stdout.write(prompt)
            sys.stdout.flush()
            while (key := _read_key()) not in GO_ON:
                if key in LEAVE:
                    raise LeftError
        finally:
            sys.stdout.write("\r" + " " * width(prompt) + "\r")
            sys.stdout.flush()
        self._unread = 0

    def _on(self, signum: int, handler: Callable[[int, Any], object]) -> None:
        self._at_end.callback(signal.signal, signum, signal.signal(signum, handler))

    def _take_single_keys(self) -> None:
        tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)


def _set_modes(fd: int, modes: list[Any]) -> None:
    # A terminal that has hung up has none.
    with suppress(termios.error):
        termios.tcsetattr(fd, termios.TCSADRAIN, modes)


def _leave(signum: int, frame: object) -> NoReturn:
    raise LeftError


def print_lines(lines: Iterable[str]) -> None:
    """Print them at once."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def _read_key() -> bytes:
    if termios is None:
        return sys.stdin.readline().strip()[:1].encode()
    return os.read(sys.stdin.fileno(), 1)


def _paragraphs(lines: Iterable[str], most: int) -> Iterator[list[str]]:
    """What belongs together, as far as so many lines can."""
    paragraph: list[str] = []
    for line in lines:
        if paragraph and (not line or len(paragraph) == most):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    yield paragraph
