"""Checks of many transcripts, on several servers, by several workers.

Rule 1: a server has one conversation at a time.
Rule 2: a server gets another conversation only if the last one was the same and all its
clients have left the room. Otherwise a new server is started.
Rule 3: results are reported as they arrive and do not depend on the order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from legacy_chat.baseline.model.errors import FormatError, ReplayError
from legacy_chat.baseline.model.format import load
from legacy_chat.baseline.model.profile import Profile, profile_named
from legacy_chat.baseline.model.shipped import name_of
from legacy_chat.baseline.model.transcript import TranscriptHeader
from legacy_chat.baseline.replay.check import Result, check
from legacy_chat.baseline.replay.server import LazyServer, Target, can_bind

__all__ = ["CheckPlan", "count_steps", "run_checks"]


class CheckPlan(NamedTuple):
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


def run_checks(
    plan: CheckPlan,
    report: Callable[[Result], object],
    stepped: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Check everything; return the results, in the plan's order.

    Args:
        report: called with each result at once.
        stepped: called after every step, from any thread.
    """
    order = product(plan.targets, range(plan.repeat), plan.paths, plan.cuts)
    tasks = [(target, path, cut) for target, _, path, cut in order]
    results: dict[int, Result] = {}
    lock = threading.Lock()
    is_aborted = False
    servers = [LazyServer(plan.timeout) for _ in range(plan.jobs)]

    def work(first: int) -> None:
        try:
            for number in range(first, len(tasks), plan.jobs):
                result = _check(*tasks[number], plan, servers[first], stepped)
                with lock:
                    if is_aborted:
                        return
                    results[number] = result
                    report(result)
        finally:
            servers[first].close()

    if plan.jobs == 1:
        work(0)
    else:
        with ThreadPoolExecutor(plan.jobs) as workers:
            try:
                list(workers.map(work, range(plan.jobs)))
            except BaseException:
                # Abort the conversations in progress, whose results are not needed.
                is_aborted = True
                for server in servers:
                    server.abort()
                raise
    return [results[number] for number in sorted(results)]


def count_steps(plan: CheckPlan) -> int:
    """Return the number of steps of the plan."""
    steps = 0
    for path in plan.paths:
        if path.is_file():
            with path.open("rb") as lines:
                steps += sum(b'"do": ' in line for line in lines)
    return steps * len(plan.targets) * plan.repeat * len(plan.cuts)


def _check(
    target: Target,
    path: Path,
    cut: str,
    plan: CheckPlan,
    server: LazyServer,
    stepped: Callable[[], object],
) -> Result:
    on = " ".join(filter(None, (target.loop, cut and f"cut {cut}")))
    result = Result(name_of(path), on)
    try:
        transcript = load(path)
        header = transcript.header
        profile = plan.profile or profile_named(header.profile)
        framing = header.framing or profile.framing
        if cut and framing != "stream":
            return replace(result, skipped=f"its framing is {framing!r}: cuts matter")
        if reason := _unreachable(header.host, target):
            return replace(result, skipped=reason)
        endpoint = server.endpoint(target, header.host)
    except (FormatError, ReplayError, OSError) as error:
        return replace(result, error=str(error))
    done = check(transcript, endpoint, profile, plan.timeout, cut=cut, stepped=stepped)
    if done.outcome != "same" or not profile.leave:
        server.close()
    return replace(done, name=result.name, on=on, note=_other_profile(header, plan))


def _other_profile(header: TranscriptHeader, plan: CheckPlan) -> str:
    """Return a note if the transcript was recorded with another profile; else ""."""
    recorded = header.profile or Profile().name
    if plan.profile is None or not header.recorded_from:
        return ""
    if recorded in (plan.profile.name, plan.profile_file):
        return ""
    now = plan.profile_file or plan.profile.name
    return f"recorded with the profile {recorded!r}, and checked with {now!r}"


def _unreachable(host: str, target: Target) -> str:
    """Return why clients cannot connect through *host*; "" if they can."""
    if host and "{host}" not in target.command:
        return f"its clients connect to {host}, and the command takes no {{host}}"
    if host and not can_bind(host):
        return f"this machine does not have the address {host}"
    return ""
