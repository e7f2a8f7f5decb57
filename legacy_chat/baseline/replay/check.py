"""Checks: the actions of transcripts are repeated, and the answers compared.

Rule 1: an outcome is same, different, or not played. A conversation that was not played
to its end is never the same.
Rule 2: the first difference ends a conversation, because it may cause everything after
it.
Rule 3: a server has one conversation at a time. It gets another one only if the last
one was the same and all its clients have left. Otherwise a new server is started.
Rule 4: results are reported as they arrive and do not depend on the order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from legacy_chat.baseline.model.compare import Mismatch, compare
from legacy_chat.baseline.model.errors import FormatError, ReplayError
from legacy_chat.baseline.model.format import load
from legacy_chat.baseline.model.profile import Profile, profile_named
from legacy_chat.baseline.model.shipped import name_of
from legacy_chat.baseline.model.transcript import (
    Action,
    Transcript,
    TranscriptHeader,
    numbered,
)
from legacy_chat.baseline.replay.player import TIMEOUT, Player, conversation
from legacy_chat.baseline.replay.server import Endpoint, LazyServer, Target, can_bind

__all__ = ["CheckPlan", "Result", "check", "count_steps", "run_checks"]


@dataclass(frozen=True)
class Result:
    """The result of one transcript on one server.

    Attributes:
        name: the transcript's name; on: the server's, such as its loop.
        steps: the number of steps played; seconds: their duration.
        difference: the first difference; None for none.
        error: why the transcript could not be played; skipped: why it was not tried.
        note: why the server may not have caused the outcome.
    """

    name: str
    on: str = ""
    steps: int = 0
    seconds: float = 0.0
    difference: Mismatch | None = None
    error: str = ""
    skipped: str = ""
    note: str = ""

    @property
    def outcome(self) -> str:
        """Return "same", "different", "error" or "skipped"."""
        if self.difference is not None:
            return "different"
        return "error" if self.error else "skipped" if self.skipped else "same"


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


def check(
    transcript: Transcript,
    endpoint: Endpoint,
    profile: Profile,
    timeout: float = TIMEOUT,
    *,
    cut: str = "",
    stepped: Callable[[], object] = lambda: None,
) -> Result:
    """Play the transcript's actions to the server at *endpoint*, and compare.

    Args:
        cut: the cut of every message, in place of the transcript's; the framing must
            be "stream".
        stepped: called after each step.
    """
    begin = time.monotonic()
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        stepped()

    difference, error = None, ""
    header = transcript.header
    header = replace(header, cut=cut or header.cut)
    try:
        with conversation(endpoint, profile, timeout, header) as player:
            difference = _first_mismatch(transcript, player, bool(cut), count)
            if difference is not None:
                player.abort()
    except (ReplayError, FormatError) as failure:
        error = f"after {steps} steps: {failure}"
    seconds = time.monotonic() - begin
    return Result(header.title, "", steps, seconds, difference, error)


def _first_mismatch(
    transcript: Transcript, player: Player, cut: bool, count: Callable[[], object]
) -> Mismatch | None:
    at = 0
    for at, last, (whole, recorded) in numbered(transcript.steps):
        action = replace(whole, cut="") if cut else whole
        now = player.step(action, recorded, last=last)
        count()
        if found := compare(at, action, recorded, now):
            return found
    return compare(at + 1, Action("no client", "wait"), {}, player.late_answers())


def run_checks(
    plan: CheckPlan,
    report: Callable[[Result], object],
    stepped: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Check everything; return the results, in the plan's order.

    Args:
        report: called with each result; stepped: after every step, from any thread.
    """
    order = product(plan.targets, range(plan.repeat), plan.paths, plan.cuts)
    tasks = [(target, path, cut) for target, _, path, cut in order]
    results: dict[int, Result] = {}
    lock = threading.Lock()
    servers = [LazyServer(plan.timeout) for _ in range(plan.jobs)]

    def work(first: int) -> None:
        try:
            for number in range(first, len(tasks), plan.jobs):
                result = _check(*tasks[number], plan, servers[first], stepped)
                with lock:
                    if servers[first].is_aborted:
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
