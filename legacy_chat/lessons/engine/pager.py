"""Print a lesson at once, or page by page for a reader at a terminal.

Rule 1: nothing scrolls away unread. A paragraph that does not fit on the screen waits
for a key.
Rule 2: a prompt is erased. Only the lesson stays on the screen.
Rule 3: the terminal's modes are restored, however the lesson ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, NoReturn, Self

from compat.trace.render.formatting import width

try:
    import termios
    import tty
except ImportError:  # Windows has neither: there, each key needs an Enter.
    termios = None  # type: ignore[assignment]

__all__ = ["Pager", "QuitError", "print_lines"]

# Space, Enter, Ctrl-D, and the end of the input.
CONTINUE = (b" ", b"\r", b"\n", b"\x04", b"")
QUIT = (b"q", b"Q")


class QuitError(Exception):
    """The reader has quit."""


class Pager:
    """Context manager: prints lines, and waits for keys.

    Args:
        rows: of the screen.
        pauses: whether to wait for keys at all.
        prompt: shown when the screen is full.
    """

    def __init__(self, rows: int, pauses: bool, prompt: str) -> None:
        # One row is the prompt's.
        self._rows = max(rows - 1, 1)
        self._pauses = pauses
        self._prompt = prompt
        self._unread = 0
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        if self._pauses and termios is not None:
            fd = sys.stdin.fileno()
            self._exit.callback(_set_modes, fd, termios.tcgetattr(fd))
            # A shell sets its own modes while this process is stopped.
            self._handle(signal.SIGCONT, lambda *_: self._disable_line_mode())
            self._handle(signal.SIGTERM, _quit)
            self._handle(signal.SIGHUP, _quit)
            self._disable_line_mode()
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def print(self, lines: Iterable[str]) -> None:
        """Print the lines; an empty line begins a paragraph."""
        for paragraph in _paragraphs(lines, self._rows):
            if self._unread and self._unread + len(paragraph) > self._rows:
                self.wait(self._prompt)
            print_lines(paragraph)
            self._unread += len(paragraph)

    def wait(self, prompt: str) -> None:
        """Wait for a key, if there are pauses.

        Raises:
            QuitError: the key was q.
        """
        if not self._pauses:
            return
        try:
            # Inside, because Ctrl-C may come as soon as the prompt is shown.
            sys.stdout.write(prompt)
            sys.stdout.flush()
            while (key := _read_key()) not in CONTINUE:
                if key in QUIT:
                    raise QuitError
        finally:
            sys.stdout.write("\r" + " " * width(prompt) + "\r")
            sys.stdout.flush()
        self._unread = 0

    def _handle(self, signum: int, handler: Callable[[int, Any], object]) -> None:
        self._exit.callback(signal.signal, signum, signal.signal(signum, handler))

    def _disable_line_mode(self) -> None:
        tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)


def print_lines(lines: Iterable[str]) -> None:
    """Print the lines without a pause."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _set_modes(fd: int, modes: list[Any]) -> None:
    # A terminal that has hung up has no modes.
    with suppress(termios.error):
        termios.tcsetattr(fd, termios.TCSADRAIN, modes)


def _quit(signum: int, frame: object) -> NoReturn:
    raise QuitError


def _read_key() -> bytes:
    if termios is None:
        return sys.stdin.readline().strip()[:1].encode()
    return os.read(sys.stdin.fileno(), 1)


def _paragraphs(lines: Iterable[str], most: int) -> Iterator[list[str]]:
    """Yield paragraphs of at most *most* lines."""
    paragraph: list[str] = []
    for line in lines:
        if paragraph and (not line or len(paragraph) == most):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    yield paragraph
