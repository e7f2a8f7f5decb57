"""Each command keeps its exit status with any standard streams."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

MODULE = (sys.executable, "-m")
COMMANDS = {
    "which": ([*MODULE, "compat", "--which"], 0),
    "no program": ([*MODULE, "compat", "missing.py"], 2),
    "no trace": ([*MODULE, "compat.trace", "text", "missing"], 2),
    "no option": ([*MODULE, "legacy_chat", "serve", "--missing"], 2),
    "no server": ([*MODULE, "legacy_chat", "connect", "--port", "1"], 1),
    "no transcript": ([*MODULE, "legacy_chat", "baseline", "show", "missing"], 2),
}


def shell(script: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run *argv* in a shell, followed by *script*."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {script}', "sh", *argv],
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("script", ["2>/dev/full", ">&- 2>&- <&-"])
def test_status_does_not_depend_on_standard_error(name: str, script: str) -> None:
    if "/dev/full" in script and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    argv, status = COMMANDS[name]
    done = shell(script, argv)
    assert done.returncode == status
    assert "Traceback" not in done.stdout
    assert "missing" not in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_which_into_a_full_file_is_one_line_and_status_1() -> None:
    done = shell(">/dev/full", COMMANDS["which"][0])
    assert done.returncode == 1
    why = "standard output: No space left on device"
    assert done.stderr == f"{sys.executable}: {why}\n"


def test_which_without_a_reader_is_silent_and_status_1() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        done = subprocess.run(
            COMMANDS["which"][0], check=False, stdout=pipe, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (1, b"")
