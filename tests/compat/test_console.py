"""The standard streams of a command, and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compat.console import (
    CommandError,
    complain,
    flush_or_discard,
    run_command,
    write_line,
)
from tests.support import process


def test_line_for_a_full_stream_is_an_error() -> None:
    reading, writing = os.pipe()
    with (
        open(reading, "rb", 0) as reader,
        open(writing, "w", encoding="utf8") as stream,
    ):
        with pytest.raises(BlockingIOError, match="the stream is full"):
            write_line(stream, "大家好!" * 50_000)
        reader.read(1 << 16)
        write_line(stream, "x" * 20_000)


def test_unwritable_output_at_exit_keeps_status_0() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    script = (
        "import sys; from compat.console import flush_or_discard\n"
        "sys.stdout = open('/dev/full', 'w')\n"
        "sys.stdout.write('left')\n"
        "flush_or_discard()\n"
        "sys.stdout.close()\n"
    )
    with process(sys.executable, "-c", script) as python:
        assert python.wait() == 0
        assert python.err == []


def test_flush_or_discard_keeps_output_of_a_working_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print("hi!", end="")
    flush_or_discard()
    assert capsys.readouterr().out == "hi!"


def test_error_message_does_not_wait_for_a_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", 0), open(writing, "w", encoding="utf8") as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        for _ in range(20):
            complain("x" * 10_000)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (CommandError("no such room\n"), 3, "demo: no such room\\x0a\n"),
        (OSError(2, "No such file", "f"), 3, "demo: f: No such file\n"),
        (BrokenPipeError(32, "Broken pipe", "f"), 3, "demo: f: Broken pipe\n"),
        (KeyboardInterrupt(), 0, ""),
        (None, 7, ""),
    ],
)
def test_command_failure_is_one_line_and_a_status(
    error: BaseException | None,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> int:
        if error is not None:
            raise error
        return 7

    assert run_command("demo", command, failed=3) == status
    assert capsys.readouterr().err == message


def test_command_without_a_reader_is_silent() -> None:
    script = (
        "import sys; from compat.console import run_command\n"
        "sys.exit(run_command('demo', lambda: print('x' * 100_000) or 0, 5))\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", script],
            check=False,
            stdout=pipe,
            stderr=subprocess.PIPE,
        )
    assert (done.returncode, done.stderr) == (5, b"")
