"""One run: a server and the load on it, each in its own process.

Rule 1: no process outlives its run, however that ends. Ctrl-C reaches only this
process, which ends the others.
Rule 2: an error is one sentence: the load's message, or the last line that the server
wrote before it ended.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.benchmarks.c_program import NO_COMPILER, compiler
from tests.benchmarks.load import compiled
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.servers import SERVERS, missing

__all__ = ["Run", "RunError", "run", "run_frames", "why_not"]

ROOT = Path(__file__).resolve().parents[2]

# Descriptors of a server beside those of its clients, generously.
SPARE = 32


class Run(NamedTuple):
    """The result of one run.

    Attributes:
        figures: as the load prints them: seconds, bytes and counts of the window, CPU
            seconds of both processes, milliseconds of latency, and the generator's
            language. For frames: CPU microseconds for a call, by the kind of channel.
        error: a message in place of figures.
    """

    scenario: str
    server: str
    repeat: int
    figures: dict[str, Any]
    error: str | None = None


class RunError(Exception):
    """A server or its load did not work."""


def why_not(server: str, scenario: Scenario) -> str | None:
    """Return the reason why a server cannot run a scenario, or None."""
    if packages := missing(server):
        return f"missing: pip install {' '.join(packages)}"
    if SERVERS[server].is_in_c and compiler() is None:
        return NO_COMPILER
    needed = scenario.clients + SPARE
    limit = SERVERS[server].limit
    if limit is not None and needed > limit:
        return "no: more than select can watch"
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed != resource.RLIM_INFINITY and needed > allowed:
        return f"no: needs {needed} descriptors of {allowed} (ulimit -Hn)"
    return None


def run(
    server: str, scenario: Scenario, repeat: int, seconds: float, warm_up: float
) -> Run:
    """Start the server, put the load on it, and end it."""
    try:
        with _server(server, scenario.protocol) as (pid, port):
            figures = _load(scenario, pid, port, seconds, warm_up)
    except RunError as error:
        return Run(scenario.name, server, repeat, {}, str(error))
    return Run(scenario.name, server, repeat, figures)


def run_frames(scenario: Scenario, repeat: int, seconds: float) -> list[Run]:
    """Measure the frame loops, all in one process."""
    words = (*_python("frames"), str(scenario.clients), "--seconds", str(seconds))
    try:
        by_kind = _figures(words)
    except RunError as error:
        return [Run(scenario.name, "frames", repeat, {}, str(error))]
    loops = next(iter(by_kind.values()))
    return [
        Run(
            scenario.name,
            name,
            repeat,
            {kind: of_loops[name] for kind, of_loops in by_kind.items()},
        )
        for name in loops
    ]


@contextmanager
def _server(name: str, protocol: str) -> Iterator[tuple[int, int]]:
    """Start a server; yield its process id and its port."""
    words = (*_python("servers"), name, "--protocol", protocol)
    with _process(words) as (process, errors):
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"port (\d+)$", line):
                break
        else:
            raise RunError(f"the server did not start: {_last_line(errors)}")
        try:
            yield process.pid, int(match[1])
        except RunError as error:
            process.kill()
            if last := _last_line(errors):
                raise RunError(f"{error}; the server's last line: {last}") from None
            raise


def _load(
    scenario: Scenario, pid: int, port: int, seconds: float, warm_up: float
) -> dict[str, Any]:
    words = compiled.command(scenario, pid, port, warm_up, seconds)
    if words is not None:
        return {"generator": "C", **_figures(words)}
    where = ("--port", str(port), "--pid", str(pid))
    times = ("--seconds", str(seconds), "--warm-up", str(warm_up))
    words = (*_python("load"), scenario.name, *where, *times)
    return {"generator": "Python", **_figures(words)}


def _figures(words: Sequence[str]) -> dict[str, Any]:
    """Run a program; return the JSON that it prints."""
    with _process(words) as (process, errors):
        assert process.stdout is not None
        printed = process.stdout.read()
        if process.wait():
            raise RunError(_last_line(errors) or f"status {process.returncode}")
        figures: dict[str, Any] = json.loads(printed)
        return figures


def _python(module: str) -> tuple[str, ...]:
    return sys.executable, "-X", "utf8", "-m", f"tests.benchmarks.{module}"


@contextmanager
def _process(
    words: Sequence[str],
) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
    """Start a program; yield it and the file with its errors."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            # Ctrl-C in a terminal goes to a whole process group.
            process_group=0,
        ) as process,
    ):
        try:
            yield process, errors
        finally:
            process.kill()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")
