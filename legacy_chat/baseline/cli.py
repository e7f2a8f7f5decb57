"""``legacy-chat baseline``: record, check, show, diff, minimise, fuzz.

Rule 1: the exit status is 0 (the same), 1 (different) or 2 (the command failed).
Rule 2: a failure outside the tool is one line on standard error.
Rule 3: standard output has only the requested output; progress goes to a terminal only.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import compat
from compat.console import (
    complain,
    discard,
    escape_unencodable,
    flush_or_discard,
    is_coloured,
    reserve_standard_descriptors,
    writing,
)
from compat.options import Parser
from legacy_chat.baseline.fuzz.minimise import minimise
from legacy_chat.baseline.fuzz.search import Hunt, hunt
from legacy_chat.baseline.model.compare import differences
from legacy_chat.baseline.model.cuts import is_cut
from legacy_chat.baseline.model.errors import LAST_WORDS, FormatError, RunError
from legacy_chat.baseline.model.format import (
    LONGEST_QUIET,
    STDOUT,
    Step,
    Transcript,
    TranscriptHeader,
    load,
    save,
    standard_output,
)
from legacy_chat.baseline.model.profile import Profile, find_profile, profile_named
from legacy_chat.baseline.model.scenario import HELP, load_scenario
from legacy_chat.baseline.model.shipped import (
    EXPECTED,
    TRANSCRIPTS,
    find_transcripts,
    name_of,
)
from legacy_chat.baseline.replay.batch import Plan, Server, Target, count_steps, run
from legacy_chat.baseline.replay.check import Result
from legacy_chat.baseline.replay.lockstep import Lockstep, Played
from legacy_chat.baseline.replay.player import LAST_LOOK, TIMEOUT, play, quiet_of
from legacy_chat.baseline.replay.proxy import listen
from legacy_chat.baseline.replay.quiescence import QUIET
from legacy_chat.baseline.replay.server import parse_address
from legacy_chat.baseline.replay.signals import Ended, ended_by_signals
from legacy_chat.baseline.replay.silence import watched
from legacy_chat.baseline.report import results as report
from legacy_chat.baseline.report.html import page
from legacy_chat.baseline.report.mermaid import diagram
from legacy_chat.baseline.report.progress import Progress
from legacy_chat.baseline.report.show import as_columns, as_lines, clients_of
from legacy_chat.baseline.report.text import seen, seen_error

__all__ = ["main"]

PROGRAM = "legacy-chat baseline"

SAME, DIFFERENT, COULD_NOT = 0, 1, 2

# The largest values of options: columns, simultaneous servers, repetitions.
WIDEST = 10_000
MOST_JOBS = 1000
MOST_TIMES = 1_000_000

EXAMPLES = """\
examples:
  legacy-chat baseline check                 this installation, on every loop
  legacy-chat baseline check --command "python mine.py {port}"
                                             a rewrite of the tutorial's room
  legacy-chat baseline show k2-held-back     a transcript, as people read it
  legacy-chat baseline record talk.jsonl --connect localhost:7000 -o talked.jsonl
  legacy-chat baseline fuzz --command "python mine.py {port}" --minutes 5

A FILE is a path, a folder, or the name of a shipped transcript: kept, repaired/ours,
repaired/original, k2-held-back. In a --command, {port}, {host}, {loop} and {python} are
replaced. The exit status is 0 for the same, 1 for different, 2 if it could not be run.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``legacy-chat baseline`` with *argv*; return the exit status."""
    reserve_standard_descriptors()
    try:
        given = _parser().parse_args(argv)
        escape_unencodable(sys.stdout)
        return _run(given)
    finally:
        flush_or_discard()


def _run(given: argparse.Namespace) -> int:
    try:
        with ended_by_signals():
            status: int = given.run(given)
        with writing(STDOUT):
            if sys.stdout is not None:
                sys.stdout.flush()
        return status
    except Ended as end:
        return _refuse(f"ended by {end}")
    except (FormatError, RunError) as error:
        return _refuse(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename == STDOUT:
            discard(sys.stdout)
            return COULD_NOT
        name = f"{error.filename}: " if error.filename is not None else ""
        return _refuse(f"{name}{error.strerror or error}")
    except Exception:
        # A fault of the tool. Python's own status would mean "different".
        complain(*map(seen, traceback.format_exc().split("\n")))
        return COULD_NOT


def record(given: argparse.Namespace) -> int:
    """Play a scenario, or sit between clients and a server; write what came of it."""
    if given.proxy:
        return _record_proxy(given)
    if not given.scenario:
        raise RunError("record needs a SCENARIO, or --proxy LISTEN")
    scenario = load_scenario(Path(given.scenario))
    profile = _profile(given, scenario)
    target, *others = _targets(given, profile)
    if others:
        raise RunError("one server is recorded at a time: name one --loop")
    quiet = quiet_of(profile, given.quiet)
    server = Server(given.timeout)
    try:
        endpoint = server.endpoint(target, scenario.header.host)
        header = scenario.header._replace(
            recorded_from=given.recorded_from or _called(target, profile),
            profile=_profile_name(given) or scenario.header.profile,
            framing=scenario.header.framing or profile.framing,
            title=given.title or scenario.header.title,
            quiet=quiet,
        )
        with Progress("recording") as progress:
            steps = play(scenario, endpoint, profile, given.timeout, quiet=quiet)
            if quiet:
                steps = watched(steps, quiet, _warner(progress))
            save(given.output, Transcript(header, _counted(steps, progress)))
    finally:
        server.close()
    return SAME


def check(given: argparse.Namespace) -> int:
    """Play transcripts again and compare."""
    paths = [
        path for name in given.files or EXPECTED for path in find_transcripts(name)
    ]
    profile = find_profile(given.profile) if given.profile else None
    named = profile or profile_named(load(paths[0]).header.profile)
    plan = Plan(
        paths,
        _targets(given, named),
        profile,
        given.cut or ("",),
        given.repeat,
        given.jobs,
        given.timeout,
        _profile_name(given),
    )
    if given.jobs > 1 and not all("{port}" in each.command for each in plan.targets):
        raise RunError("--jobs needs a --command with {port}: each job has its server")
    if given.json:
        standard_output()
    if given.junit:
        _keep(given.junit, paths)
    begin = time.monotonic()
    with Progress("checking") as progress:
        progress.expect(count_steps(plan) if progress.shows else 0)

        def tell(result: Result) -> None:
            progress.erase()
            if not given.json:
                _print(report.lines(result))

        results = run(plan, tell, progress.step)
    seconds = time.monotonic() - begin
    if given.json:
        _print([report.as_json(results, seconds)])
    else:
        _print([report.summary(results, seconds)])
    if given.junit:
        report.write_junit(given.junit, results, seconds)
    return report.status(results)


def show(given: argparse.Namespace) -> int:
    """Show a conversation, or which there are."""
    if sys.stdout is None or given.html or given.mermaid:
        standard_output()
    if given.list:
        for path in sorted(TRANSCRIPTS.rglob("*.jsonl")):
            _print([f"{name_of(path):44} {load(path).header.title}"])
        return SAME
    if not given.file:
        raise RunError("show needs a FILE, or --list")
    for path in find_transcripts(given.file):
        _show_one(load(path), given)
    return SAME


def diff(given: argparse.Namespace) -> int:
    """Compare two transcripts."""
    left, right = (_only_one(name) for name in (given.a, given.b))
    status = SAME
    for found in differences(load(left), load(right)):
        status = DIFFERENT
        lines = [found] if isinstance(found, str) else found.lines("A", "B")
        _print(map(seen_error, lines))
    return status


def minimise_file(given: argparse.Namespace) -> int:
    """Find the shortest conversation that two servers answer differently."""
    transcript = load(_only_one(given.file))
    profile = _profile(given, transcript)
    with _lockstep(given, profile) as pair, Progress("minimising") as progress:
        actions = [step.action for step in transcript.steps]
        found = minimise(actions, pair, progress.step)
    if found is None:
        _print(["no difference"])
        return SAME
    return _written(given, profile, f"{transcript.header.title}, minimised", found)


def fuzz(given: argparse.Namespace) -> int:
    """Play random conversations to two servers until they differ."""
    profile = find_profile(given.profile or "tutorial")
    limit = 0.0 if given.conversations else given.minutes * 60
    plan = Hunt(given.seed, limit, given.conversations, given.first)
    with (
        _lockstep(given, profile) as pair,
        Progress("fuzzing", seconds=limit) as progress,
    ):
        outcome = hunt(plan, pair, progress.step)
    _print([outcome.summary()])
    if outcome.found is None:
        return DIFFERENT if outcome.unsteady else SAME
    title = f"fuzz: seed {given.seed}, conversation {outcome.number}, minimised"
    return _written(given, profile, title, outcome.found)


def _record_proxy(given: argparse.Namespace) -> int:
    if given.scenario or given.command or not given.connect:
        raise RunError("--proxy LISTEN needs --connect HOST:PORT, and nothing to play")
    profile = find_profile(given.profile or "")
    quiet = given.quiet or profile.quiet or QUIET
    with (
        Progress("recording") as progress,
        listen(
            given.proxy,
            given.connect,
            profile,
            given.timeout,
            quiet,
            warn := _warner(progress),
        ) as proxy,
        proxy.stopped_by_signals(),
    ):
        host, port = proxy.address
        complain(f"listening on {host} port {port}; Ctrl-C ends it")
        header = proxy.header(given.title or "recorded between clients and a server")
        header = header._replace(profile=_profile_name(given) or profile.name)
        steps = watched(proxy.steps(), quiet, warn)
        save(given.output, Transcript(header, _counted(steps, progress)))
    if proxy.error:
        raise RunError(f"the recording ended early, and is kept: {proxy.error}")
    return SAME


def _show_one(transcript: Transcript, given: argparse.Namespace) -> None:
    if given.mermaid:
        lines = diagram(transcript)
    elif given.html:
        lines = page(transcript, clients_of(transcript))
    else:
        colour = is_coloured(sys.stdout)
        columns = given.width or min(shutil.get_terminal_size().columns, WIDEST)
        table = None
        if not given.lines:
            table = as_columns(transcript, clients_of(transcript), columns, colour)
        lines = table or as_lines(transcript, colour)
    _print(lines)


def _lockstep(given: argparse.Namespace, profile: Profile) -> Lockstep:
    """Return the reference and the server to compare with it."""
    if not given.command and not given.connect and not given.loop:
        raise RunError("which server? Say --command, --connect or --loop")
    reference = given.reference or profile.server
    if not reference:
        raise RunError(
            "a conversation that is not recorded has no known answers: name a server "
            'that gives them, with --reference "…" or as the profile\'s "server"'
        )
    target, *others = _targets(given, profile)
    if others:
        raise RunError("one server at a time: name one --loop")
    return Lockstep(
        Target(reference, given.reference_connect, "auto"),
        target,
        profile,
        given.timeout,
    )


def _targets(given: argparse.Namespace, profile: Profile) -> list[Target]:
    """Return the servers from the options, or the profile's reference server."""
    command = given.command or ("" if given.connect else profile.server)
    if not command and not given.connect:
        raise RunError(
            "which server? Say --connect HOST:PORT or --command, or name one in the "
            f'profile {profile.name!r} as "server"'
        )
    if "{loop}" not in command:
        if given.loop:
            raise RunError("--loop needs a --command with {loop} in it")
        return [Target(command, given.connect)]
    loops = given.loop or ([] if given.command else list(compat.LOOPS))
    if not loops:
        raise RunError("the command has a {loop} in it: name it with --loop")
    return [Target(command, given.connect, loop) for loop in loops]


def _profile(given: argparse.Namespace, transcript: Transcript) -> Profile:
    if given.profile:
        return find_profile(given.profile)
    return profile_named(transcript.header.profile)


def _profile_name(given: argparse.Namespace) -> str:
    """Return the profile's file name for a recording, without this machine's path."""
    return Path(given.profile).name if given.profile else ""


def _called(target: Target, profile: Profile) -> str:
    """Return the default of --recorded-from."""
    if not target.command and target.address is not None:
        return f"a server at port {target.address[1]}"
    if target.command == profile.server:
        return f"legacy-chat on {target.loop}"
    return target.command


def _only_one(name: str) -> Path:
    path, *others = find_transcripts(name)
    if others:
        raise FormatError(f"{name} means {len(others) + 1} transcripts: name one")
    return path


def _counted(steps: Iterable[Step], progress: Progress) -> Iterator[Step]:
    for step in steps:
        progress.step()
        yield step


def _warner(progress: Progress) -> Callable[[str], None]:
    """Return a function that writes a warning to standard error."""

    def warn(line: str) -> None:
        progress.erase()
        complain(f"{PROGRAM}: warning: {seen(line)}")

    return warn


def _written(
    given: argparse.Namespace, profile: Profile, title: str, found: Played
) -> int:
    """Write the conversation that two servers answer differently, and print it."""
    reference = given.reference or profile.server
    name = _profile_name(given) or profile.name
    header = TranscriptHeader(title, reference, name, profile.framing, witness=True)
    steps = save(given.output, Transcript(header, found.steps))
    if found.difference is not None:
        _print(map(seen_error, found.difference.lines("reference", "now")))
    _print([seen(f"{steps} steps, written to {given.output}")])
    return DIFFERENT


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        with writing(STDOUT):
            print(line)


def _keep(output: Path, inputs: Iterable[Path]) -> None:
    """Raise RunError if *output* is one of the *inputs*."""
    if output.exists() and any(
        each.exists() and each.samefile(output) for each in inputs
    ):
        raise RunError(f"{output} is read, and must not be written: name another file")


def _refuse(what: str) -> int:
    first, *more = what.split(LAST_WORDS)
    complain(f"{PROGRAM}: {first}", *(LAST_WORDS[1:] + line for line in more))
    return COULD_NOT


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Record what a server does once, hold every rewrite against it.",
        examples=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        required=True, metavar="record | check | show | diff | minimise | fuzz"
    )
    recording = commands.add_parser(
        "record",
        help=record.__doc__,
        examples=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _record_parser(recording)
    _check_parser(commands.add_parser("check", help=check.__doc__))
    _show_parser(commands.add_parser("show", help=show.__doc__))
    comparing = commands.add_parser("diff", help=diff.__doc__)
    comparing.set_defaults(run=diff)
    comparing.add_argument("a", metavar="A")
    comparing.add_argument("b", metavar="B")
    minimising = commands.add_parser("minimise", help=minimise_file.__doc__)
    minimising.set_defaults(run=minimise_file)
    minimising.add_argument("file", metavar="FILE")
    _lockstep_options(minimising)
    _fuzz_parser(commands.add_parser("fuzz", help=fuzz.__doc__))
    return parser


def _record_parser(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=record)
    parser.add_argument(
        "scenario", nargs="?", metavar="SCENARIO", help="the actions; - for stdin"
    )
    _server_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="- for stdout"
    )
    parser.add_argument(
        "--proxy",
        type=_address,
        metavar="LISTEN",
        help="record what passes between clients that come to this HOST:PORT and the "
        "server at --connect",
    )
    parser.add_argument(
        "--quiet",
        type=_quiet,
        default=0.0,
        metavar="SECONDS",
        help="a step without a barrier ends after this long without a byte; after the "
        f"last step, {LAST_LOOK} times as long (default: the profile's, or {QUIET:g})",
    )
    parser.add_argument("--title", help="of the transcript")
    parser.add_argument("--recorded-from", metavar="TEXT", help="what the server was")


def _check_parser(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=check)
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"default: {' and '.join(EXPECTED)}, as shipped",
    )
    _server_options(parser)
    parser.add_argument(
        "--cut",
        action="append",
        type=_cut,
        metavar="HOW",
        help='cut every message: "every byte", "at N", "random SEED"; for transcripts '
        'whose framing is "stream"',
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit's XML")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--repeat", type=_times, default=1, metavar="N", help="check so many times"
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=1, metavar="N", help="on so many servers at once"
    )


def _show_parser(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=show)
    parser.add_argument("file", nargs="?", metavar="FILE")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--list", action="store_true", help="which are shipped")
    form.add_argument("--lines", action="store_true", help="top to bottom, no columns")
    form.add_argument("--mermaid", action="store_true", help="a sequence diagram")
    form.add_argument(
        "--html", action="store_true", help="one page, complete in itself"
    )
    parser.add_argument(
        "--width", type=_columns, metavar="COLUMNS", help="default: the terminal's"
    )


def _fuzz_parser(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=fuzz)
    _lockstep_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--minutes", type=_minutes, default=1.0, metavar="M", help="default: 1"
    )
    parser.add_argument(
        "--conversations",
        type=_times,
        default=0,
        metavar="N",
        help="not time, but so many",
    )
    parser.add_argument(
        "--first", type=int, default=0, metavar="NUMBER", help="begin with this one"
    )


def _lockstep_options(parser: argparse.ArgumentParser) -> None:
    _server_options(parser)
    parser.add_argument(
        "--reference",
        metavar="COMMAND",
        help="the server whose answers are right; default: the profile's",
    )
    parser.add_argument(
        "--reference-connect",
        type=_address,
        metavar="HOST:PORT",
        help="where it listens, if its command takes no {port}",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("difference.jsonl"),
        metavar="FILE",
        help="where a difference is written (default: %(default)s)",
    )


def _server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect",
        type=_address,
        metavar="HOST:PORT",
        help="where the server listens; it runs, or --command starts it there",
    )
    parser.add_argument(
        "--command",
        metavar="COMMAND",
        help="starts the server; {port} is replaced by a free port",
    )
    parser.add_argument(
        "--loop",
        action="append",
        metavar="NAME",
        help=f"what {{loop}} means: {', '.join(compat.LOOPS)}; may be given again",
    )
    parser.add_argument(
        "--profile", metavar="NAME", help="tutorial, lines, or a path to a .toml"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help="for anything that must come (default: %(default)g)",
    )


def _address(text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cut(text: str) -> str:
    if text and not is_cut(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no way to cut")
    return text


def _times(text: str) -> int:
    return _count(text, MOST_TIMES)


def _jobs(text: str) -> int:
    return _count(text, MOST_JOBS)


def _columns(text: str) -> int:
    return _count(text, WIDEST)


def _count(text: str, most: int) -> int:
    # int() raises for thousands of digits.
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > len(str(MOST_TIMES))
        or (not 1 <= int(text) <= most)
    ):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {most:,}, got {text[:40]!r}"
        )
    return int(text)


def _seconds(text: str) -> float:
    return _positive(text, "seconds")


def _quiet(text: str) -> float:
    return _positive(text, "seconds", LONGEST_QUIET)


def _minutes(text: str) -> float:
    return _positive(text, "minutes")


def _positive(text: str, unit: str, most: float = 1e6) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit}")
    return number
