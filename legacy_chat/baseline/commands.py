"""The commands of ``legacy-chat baseline``; each returns the exit status."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import compat
from compat.console import complain, is_coloured
from legacy_chat.baseline.fuzz.minimise import minimise
from legacy_chat.baseline.fuzz.search import search
from legacy_chat.baseline.model.compare import differences
from legacy_chat.baseline.model.errors import ReplayError
from legacy_chat.baseline.model.format import load, load_scenario, save
from legacy_chat.baseline.model.output import print_lines, standard_output
from legacy_chat.baseline.model.profile import Profile, find_profile, profile_named
from legacy_chat.baseline.model.shipped import (
    EXPECTED,
    TRANSCRIPTS,
    find_transcript,
    find_transcripts,
    name_of,
)
from legacy_chat.baseline.model.transcript import Step, Transcript, TranscriptHeader
from legacy_chat.baseline.replay.check import (
    CheckPlan,
    Result,
    count_steps,
    run_checks,
)
from legacy_chat.baseline.replay.lockstep import Lockstep, Played
from legacy_chat.baseline.replay.player import play, quiet_of
from legacy_chat.baseline.replay.proxy import listen
from legacy_chat.baseline.replay.quiescence import QUIET
from legacy_chat.baseline.replay.server import Target, started
from legacy_chat.baseline.report import results as report
from legacy_chat.baseline.report.documents import diagram, page
from legacy_chat.baseline.report.progress import Progress
from legacy_chat.baseline.report.results import mismatch_lines
from legacy_chat.baseline.report.show import as_columns, as_lines
from legacy_chat.baseline.report.text import escaped, sentence

PROGRAM = "legacy-chat baseline"

SAME, DIFFERENT, FAILED = 0, 1, 2

# Maximum columns of a terminal that show() uses.
WIDEST = 10_000


def record(options: Namespace) -> int:
    """Play a scenario, or stand between clients and a server; write the transcript."""
    if options.proxy:
        return _record_proxy(options)
    if not options.scenario:
        raise ReplayError("record needs a SCENARIO, or --proxy HOST:PORT")
    scenario = load_scenario(Path(options.scenario))
    header = scenario.header
    profile = _profile(options, header)
    target = _only_target(options, profile)
    quiet = quiet_of(profile, options.quiet or 0.0)
    with started(target, header.host, options.timeout) as endpoint:
        header = replace(
            header,
            recorded_from=options.recorded_from or _description(target, profile),
            profile=_profile_file(options) or header.profile,
            framing=header.framing or profile.framing,
            title=options.title or header.title,
            quiet=quiet,
        )
        steps = play(scenario, endpoint, profile, options.timeout, quiet=quiet)
        with Progress("recording") as progress:
            _save(options.output, header, steps, progress, quiet)
    return SAME


def check(options: Namespace) -> int:
    """Play transcripts again, and compare the answers."""
    names = options.file or EXPECTED
    paths = [path for name in names for path in find_transcripts(name)]
    profile = find_profile(options.profile) if options.profile else None
    targets = _targets(options, profile or _profile(options, load(paths[0]).header))
    plan = CheckPlan(
        paths,
        targets,
        profile,
        options.cut or ("",),
        options.repeat,
        options.jobs,
        options.timeout,
        _profile_file(options),
    )
    if options.jobs > 1 and not all("{port}" in each.command for each in targets):
        raise ReplayError("--jobs needs {port} in --command: each job starts a server")
    if options.json:
        standard_output()
    if options.junit:
        _keep(options.junit, paths)
    begin = time.monotonic()
    with Progress("checking") as progress:
        progress.total = count_steps(plan) if progress.shows else 0

        def show_result(result: Result) -> None:
            progress.erase()
            if not options.json:
                print_lines(report.lines(result))

        results = run_checks(plan, show_result, progress.step)
    seconds = time.monotonic() - begin
    last = report.as_json if options.json else report.summary
    print_lines([last(results, seconds)])
    if options.junit:
        report.write_junit(options.junit, results, seconds)
    return report.status(results)


def show(options: Namespace) -> int:
    """Print transcripts, or list the shipped ones."""
    if sys.stdout is None or options.html or options.mermaid:
        standard_output()
    if options.list:
        for path in sorted(TRANSCRIPTS.rglob("*.jsonl")):
            print_lines([f"{name_of(path):44} {load(path).header.title}"])
    elif options.file:
        for path in find_transcripts(options.file):
            print_lines(_shown(load(path), options))
    else:
        raise ReplayError("show needs a FILE, or --list")
    return SAME


def diff(options: Namespace) -> int:
    """Compare two transcripts."""
    left, right = (load(find_transcript(name)) for name in (options.a, options.b))
    status = SAME
    for found in differences(left, right):
        status = DIFFERENT
        print_lines(mismatch_lines(found, "A", "B"))
    return status


def minimise_file(options: Namespace) -> int:
    """Find the shortest conversation that two servers answer differently."""
    transcript = load(find_transcript(options.file))
    profile = _profile(options, transcript.header)
    with _lockstep(options, profile) as pair, Progress("minimising") as progress:
        actions = [step.action for step in transcript.steps]
        found = minimise(actions, pair, progress.step)
    if found is None:
        print_lines(["no difference"])
        return SAME
    return _written(options, profile, f"{transcript.header.title}, minimised", found)


def fuzz(options: Namespace) -> int:
    """Play random conversations to two servers until they differ."""
    profile = find_profile(options.profile or "tutorial")
    limit = 0.0 if options.conversations else options.minutes * 60
    with _lockstep(options, profile) as pair, Progress("fuzzing", limit) as progress:
        limits = limit, options.conversations or 0, options.first
        result = search(pair, options.seed, *limits, stepped=progress.step)
    print_lines([result.summary()])
    if result.found is None:
        return DIFFERENT if result.unsteady else SAME
    title = f"fuzz: seed {options.seed}, conversation {result.number}, minimised"
    return _written(options, profile, title, result.found)


def _record_proxy(options: Namespace) -> int:
    if options.scenario or options.command or not options.connect:
        raise ReplayError("--proxy needs --connect HOST:PORT, and no SCENARIO")
    profile = find_profile(options.profile or "")
    quiet = options.quiet or profile.quiet or QUIET
    server, timeout = options.connect, options.timeout
    with (
        Progress("recording") as progress,
        listen(
            options.proxy, server, profile, timeout, quiet, partial(_warn, progress)
        ) as proxy,
        proxy.stopped_by_signals(),
    ):
        host, port = proxy.address
        complain(f"listening on {host} port {port}; Ctrl-C ends it")
        header = TranscriptHeader(
            options.title or "recorded between clients and a server",
            f"port {server[1]}, through a proxy",
            _profile_file(options) or profile.name,
            profile.framing,
            quiet=quiet,
        )
        _save(options.output, header, proxy.steps(), progress, quiet)
    if proxy.error:
        raise ReplayError(f"the recording ended early, and is kept: {proxy.error}")
    return SAME


def _save(
    path: Path,
    header: TranscriptHeader,
    steps: Iterator[Step],
    progress: Progress,
    quiet: float,
) -> None:
    """Write a recording; show its progress, and warn of steps without data."""
    if quiet:
        steps = warn_of_silent_steps(steps, quiet, partial(_warn, progress))

    def counted() -> Iterator[Step]:
        for step in steps:
            progress.step()
            yield step

    save(path, Transcript(header, counted()))


def warn_of_silent_steps(
    steps: Iterable[Step], quiet: float, warn: Callable[[str], object]
) -> Iterator[Step]:
    """Yield the steps; warn of those without data in *quiet* seconds."""
    connected: set[str] = set()
    silent = False
    for at, step in enumerate(steps, 1):
        action, answers = step
        connected.add(action.client)
        if action.do in ("drop", "reset"):
            connected.discard(action.client)
        if connected and not answers:
            silent = True
            warn(f"step {at}, {sentence(action)}: no data within {quiet:g} s")
        connected -= {name for name, (_, end) in answers.items() if end}
        yield step
    if silent:
        warn("if an answer was due, record again with a longer --quiet SECONDS")


def _shown(transcript: Transcript, options: Namespace) -> Iterator[str]:
    if options.mermaid:
        return diagram(transcript)
    if options.html:
        return page(transcript)
    colour = is_coloured(sys.stdout)
    if not options.lines:
        columns = options.width or min(shutil.get_terminal_size().columns, WIDEST)
        table = as_columns(transcript, columns, colour)
        if table is not None:
            return table
    return as_lines(transcript, colour)


def _lockstep(options: Namespace, profile: Profile) -> Lockstep:
    """Return the reference and the server to compare with it."""
    if not options.command and not options.connect and not options.loop:
        raise ReplayError("name the server with --command, --connect or --loop")
    command = options.reference or profile.server
    if not command:
        raise ReplayError("name the server with the right answers with --reference")
    reference = Target(command, options.reference_connect, "auto")
    target = _only_target(options, profile)
    return Lockstep(reference, target, profile, options.timeout)


def _only_target(options: Namespace, profile: Profile) -> Target:
    target, *others = _targets(options, profile)
    if others:
        raise ReplayError("this command uses one server: name one --loop")
    return target


def _targets(options: Namespace, profile: Profile) -> list[Target]:
    """Return the servers from the options, or the profile's reference server."""
    command = options.command or ("" if options.connect else profile.server)
    if not command and not options.connect:
        raise ReplayError(
            f"the profile {profile.name!r} names no server: use --connect or --command"
        )
    if "{loop}" not in command:
        if options.loop:
            raise ReplayError("--loop needs {loop} in --command")
        return [Target(command, options.connect)]
    loops = options.loop or ([] if options.command else list(compat.LOOPS))
    if not loops:
        raise ReplayError("the command has {loop} in it: name the loop with --loop")
    return [Target(command, options.connect, loop) for loop in loops]


def _profile(options: Namespace, header: TranscriptHeader) -> Profile:
    if options.profile:
        return find_profile(options.profile)
    return profile_named(header.profile)


def _profile_file(options: Namespace) -> str:
    """Return the profile's file name for a recording, without this machine's path."""
    return Path(options.profile).name if options.profile else ""


def _description(target: Target, profile: Profile) -> str:
    """Return the default of --recorded-from."""
    if not target.command and target.address is not None:
        return f"a server at port {target.address[1]}"
    if target.command == profile.server:
        return f"legacy-chat on {target.loop}"
    return target.command


def _warn(progress: Progress, line: str) -> None:
    progress.erase()
    complain(f"{PROGRAM}: warning: {line}")


def _written(options: Namespace, profile: Profile, title: str, found: Played) -> int:
    """Write the conversation that two servers answer differently, and print it."""
    name = _profile_file(options) or profile.name
    reference = options.reference or profile.server
    header = TranscriptHeader(title, reference, name, profile.framing, witness=True)
    steps = save(options.output, Transcript(header, found.steps))
    if found.difference is not None:
        print_lines(mismatch_lines(found.difference, "reference", "now"))
    print_lines([escaped(f"{steps} steps, written to {options.output}")])
    return DIFFERENT


def _keep(output: Path, inputs: Iterable[Path]) -> None:
    """Raise ReplayError if *output* is one of the *inputs*."""
    existing = (each for each in inputs if output.exists() and each.exists())
    if any(each.samefile(output) for each in existing):
        raise ReplayError(f"{output} is an input: name another file for --junit")
