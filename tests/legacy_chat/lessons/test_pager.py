"""A lesson at a terminal: pauses, keys, and the terminal's modes."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

GO_ON = "[Space or Enter: continue, q: quit] "
ANSWER = "[Space or Enter: the answer, q: quit] "


@pytest.mark.parametrize("key", [b" ", b"\r", b"\x04"])
def test_answer_waits_for_a_key(key: bytes) -> None:
    with at_a_terminal("3", rows=1000) as terminal:
        shown = read_until(terminal, ANSWER)
        assert b"Back in the first kind of room" in shown
        assert b"It was in the same read" not in shown
        # An arrow key and a letter: neither continues the lesson.
        os.write(terminal, b"\x1b[Bx" + key)
        answer = read_until(terminal, "Next: legacy-chat lesson 4")
        assert answer.startswith(erased(ANSWER))
        assert b"It was in the same read" in answer


@pytest.mark.parametrize(("number", "rows", "columns"), [("1", 24, 80), ("9", 15, 40)])
def test_full_screen_waits_for_a_key(number: str, rows: int, columns: int) -> None:
    screens: list[str] = []
    with at_a_terminal(number, rows=rows, columns=columns) as terminal:
        while not screens or screens[-1].endswith("] "):
            if screens:
                os.write(terminal, b" ")
            screens.append(read_until(terminal, GO_ON, ANSWER).decode())
    shown = "".join(screens)
    assert shown.count(ANSWER) == 1
    assert shown.count(GO_ON) == len(screens) - 2 > 4
    # Between two prompts there are at most as many lines as rows.
    assert max(each.count("\n") for each in screens) < rows
    for prompt in (GO_ON, ANSWER):
        shown = shown.replace(prompt + erased(prompt).decode(), "")
    whole = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "legacy_chat", "lesson", number],
        capture_output=True,
        check=True,
        env={**os.environ, "COLUMNS": str(columns)},
    ).stdout
    assert without_figures(shown.encode()) == without_figures(whole)


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"])
def test_pause_ends_when_the_reader_quits(key: bytes) -> None:
    with at_a_terminal("1", rows=24) as terminal:
        assert read_until(terminal, GO_ON, ANSWER).endswith(GO_ON.encode())
        os.write(terminal, key)
        assert read_until(terminal, GO_ON, ANSWER) == erased(GO_ON)


@pytest.mark.parametrize("end", [b"q", b" ", signal.SIGTERM, signal.SIGHUP])
def test_lesson_restores_the_terminals_settings(end: bytes | signal.Signals) -> None:
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-W", "ignore", "-m", "legacy_chat", "lesson", "3"]
    lesson = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        env={**os.environ, "LINES": "1000", "COLUMNS": "80"},
    )
    read_until(ours, ANSWER)
    assert termios.tcgetattr(theirs) != before
    if isinstance(end, bytes):
        os.write(ours, end)
    else:
        lesson.send_signal(end)
    while lesson.poll() is None:
        # Otherwise the lesson could not write the rest.
        if select.select([ours], [], [], 0.05)[0]:
            os.read(ours, 65536)
    assert lesson.returncode == 0
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_lesson_takes_single_keys_again_after_a_stop() -> None:
    termios = pytest.importorskip("termios")
    with at_a_terminal("1", rows=24) as terminal:
        assert read_until(terminal, GO_ON, ANSWER).endswith(GO_ON.encode())
        pid = os.tcgetpgrp(terminal)
        shell = termios.tcgetattr(terminal)
        shell[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, shell)
        os.kill(pid, signal.SIGCONT)
        while termios.tcgetattr(terminal)[3] & termios.ICANON:
            pass
        os.write(terminal, b"q")
        assert read_until(terminal, GO_ON, ANSWER) == erased(GO_ON)


def test_no_pause_prints_everything_at_once() -> None:
    with at_a_terminal("3", "--no-pause", rows=24) as terminal:
        shown = read_until(terminal, "Next: legacy-chat lesson 4")
    assert b"It was in the same read" in shown
    assert b"Enter" not in shown


def erased(prompt: str) -> bytes:
    """Return the output that erases a prompt."""
    return b"\r" + b" " * len(prompt) + b"\r"


@contextlib.contextmanager
def at_a_terminal(*argv: str, rows: int, columns: int = 110) -> Iterator[int]:
    """Run a lesson in a terminal; yield the other side; check the exit status."""
    pty = pytest.importorskip("pty")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(LINES=str(rows), COLUMNS=str(columns), NO_COLOR="1")
        code = "from legacy_chat.cli import main; raise SystemExit(main())"
        os.execv(
            sys.executable,
            [sys.executable, "-W", "ignore", "-c", code, "lesson", *argv],
        )
    try:
        yield terminal
        # The lesson may still be writing.
        read_until(terminal, "\0")
    finally:
        os.close(terminal)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0


def without_figures(shown: bytes) -> list[list[str]]:
    """Return the words without numbers, which differ each time."""
    lines = shown.decode().splitlines()
    return [re.sub(r"[0-9.,]+ ?(µs|ms)?", "", line).split() for line in lines if line]


def read_until(terminal: int, *wanted: str) -> bytes:
    """Return the terminal's output up to one of these texts, or to its end."""
    output = b""
    while not any(each.encode() in output for each in wanted):
        try:
            data = os.read(terminal, 65536)
        except OSError:
            # The end, on Linux.
            break
        if not data:
            break
        output += data
    return output
