"""Runs of many transcripts, on several servers, by several workers.

Rule 1: a server has one conversation at a time.
Rule 2: a server gets another conversation only if the last one was the same and all its
clients have left the room. Otherwise a new server is started.
Rule 3: results are reported as they arrive and do not depend on the order.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from legacy_chat.baseline.model.errors import FormatError, RunError
from legacy_chat.baseline.model.format import TranscriptHeader, load
from legacy_chat.baseline.model.profile import Profile, profile_named
from legacy_chat.baseline.model.shipped import name_of
from legacy_chat.baseline.replay.check import Result, check
from legacy_chat.baseline.replay.server import Endpoint, started

__all__ = ["Plan", "Server", "Target", "count_steps", "run"]

Address = tuple[str, int]

# Minimum seconds for a server to listen: a short timeout is meant for its answers, and
# an interpreter starts slowly on a busy machine.
STARTING = 20.0


class Target(NamedTuple):
    """A server that runs, or that a command starts.

    Attributes:
        command: the command that starts the server; "" if it runs.
        address: the address of the server; None for a free port.
        loop: the replacement of ``{loop}`` in the command.
    """

    command: str = ""
    address: Address | None = None
    loop: str = ""


class Plan(NamedTuple):
    """The transcripts and servers to check, with the options.

    Attributes:
        profile: the profile of every transcript; None for the one that each names.
        profile_file: the name of the profile's file, which a recording may have stored.
        cuts: the cuts of messages; "" for the recorded ones.
    """

    paths: Sequence[Path]
    targets: Sequence[Target]
    profile: Profile | None = None
    cuts: Sequence[str] = ("",)
    repeat: int = 1
    jobs: int = 1
    timeout: float = 20.0
    profile_file: str = ""


class Task(NamedTuple):
    target: Target
    path: Path
    cut: str


class Server:
    """One worker's server, started on demand, and again after close()."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._stack = ExitStack()
        self._key: tuple[Target, str] | None = None
        self._endpoint: Endpoint | None = None
        self._aborted = False

    def endpoint(self, target: Target, host: str = "") -> Endpoint:
        """Return the address of *target*, which is started if needed.

        Raises:
            RunError: the server cannot be started, or the run was aborted.
        """
        if self._endpoint is None or self._key != (target, host):
            self.close()
            self._key = target, host
            self._endpoint = self._start(target, host)
        if self._aborted:
            raise RunError("the run has been ended")
        return self._endpoint

    def abort(self) -> None:
        """Terminate a server that was started; safe from any thread.

        The conversation with the server fails, and endpoint() raises from now on.
        """
        self._aborted = True
        if self._endpoint is not None:
            self._endpoint.end()

    def close(self) -> None:
        """Terminate the server; the next conversation starts another one."""
        self._endpoint = None
        stack, self._stack = self._stack, ExitStack()
        stack.close()

    def _start(self, target: Target, host: str) -> Endpoint:
        if not target.command and target.address is not None:
            return Endpoint(*target.address, timeout=self._timeout)
        return self._stack.enter_context(
            started(
                target.command,
                target.address,
                loop=target.loop,
                host=host or "127.0.0.1",
                timeout=max(self._timeout, STARTING),
            )
        )


def run(
    plan: Plan,
    tell: Callable[[Result], object],
    stepped: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Check everything; return the results, in the plan's order.

    Args:
        tell: called with each result as soon as it is available.
        stepped: called after every step, from any thread.
    """
    tasks = [
        Task(target, path, cut)
        for target in plan.targets
        for _ in range(plan.repeat)
        for path in plan.paths
        for cut in plan.cuts
    ]
    results: dict[int, Result] = {}
    telling = threading.Lock()
    stop = threading.Event()

    servers = [Server(plan.timeout) for _ in range(plan.jobs)]

    def work(first: int) -> None:
        server = servers[first]
        try:
            for number in range(first, len(tasks), plan.jobs):
                if stop.is_set():
                    return
                result = _check(tasks[number], plan, server, stepped)
                with telling:
                    if stop.is_set():
                        return
                    results[number] = result
                    tell(result)
        finally:
            server.close()

    if plan.jobs == 1:
        work(0)
    else:
        with ThreadPoolExecutor(plan.jobs) as workers:
            try:
                list(workers.map(work, range(plan.jobs)))
            except BaseException:
                # Abort the conversations in progress, whose results are not needed.
                stop.set()
                for server in servers:
                    server.abort()
                raise
    return [results[number] for number in sorted(results)]


def count_steps(plan: Plan) -> int:
    """Return the number of steps of the plan."""
    files = [path for path in plan.paths if path.is_file()]
    steps = 0
    for path in files:
        with path.open("rb") as lines:
            steps += sum(b'"do": ' in line for line in lines)
    return steps * len(plan.targets) * plan.repeat * len(plan.cuts)


def _check(
    task: Task, plan: Plan, server: Server, stepped: Callable[[], object]
) -> Result:
    target, path, cut = task
    on = " ".join(filter(None, (target.loop, cut and f"cut {cut}")))
    name = name_of(path)
    try:
        transcript = load(path)
        header = transcript.header
        profile = plan.profile or profile_named(header.profile)
        framing = header.framing or profile.framing
        if cut and framing != "stream":
            return Result(name, on, skipped=f"its framing is {framing!r}: cuts matter")
        if why := _out_of_reach(header.host, target):
            return Result(name, on, skipped=why)
        endpoint = server.endpoint(target, header.host)
    except (FormatError, RunError, OSError) as error:
        return Result(name, on, error=str(error))
    result = check(
        transcript,
        endpoint,
        profile,
        plan.timeout,
        cut=cut,
        name=name,
        on=on,
        stepped=stepped,
    )
    if result.outcome != "same" or not profile.leave:
        server.close()
    return result._replace(note=_other_profile(header, plan))


def _other_profile(header: TranscriptHeader, plan: Plan) -> str:
    """Return a note if the transcript was recorded with another profile; else ""."""
    if plan.profile is None or not header.recorded_from:
        return ""
    recorded = header.profile or Profile().name
    if recorded in (plan.profile.name, plan.profile_file):
        return ""
    return (
        f"recorded with the profile {recorded!r}, and checked with "
        f"{plan.profile_file or plan.profile.name!r}"
    )


def _out_of_reach(host: str, target: Target) -> str:
    """Return why clients cannot connect through *host*; "" if they can."""
    if not host:
        return ""
    if "{host}" not in target.command:
        return f"its clients come to {host}, and the command takes no {{host}}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as sock:
            sock.bind((host, 0))
    except (OSError, UnicodeError):
        return f"this machine has no {host}"
    return ""
