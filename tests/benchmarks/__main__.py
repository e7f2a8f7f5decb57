"""Benchmarks of chat servers.

    python -m tests.benchmarks [--scenario NAME …] [--server NAME …] [--seconds S]
                               [--repeat R] [--json FILE] [--plot FILE.svg]

``pip install -e '.[benchmark]'`` installs the other servers. Server and load are two
processes. In each repetition of a scenario, every server runs once, in a rotated order;
the table has medians.

The last line of a table names the load generator: C, or Python where no compiler is in
PATH (or ``$CC``). The one in C costs less than a server in Python, except for visits:
there, and nearly so for echoes, most of the cost is TCP's, which is the same at both
ends.

``room-echo`` and ``room-idle`` measure a session without its receivers: the server is
the room, but its broadcast does nothing. ``visits`` are solitary: each visitor receives
its echo only. ``frames`` has a separate table: CPU time for a call of
``loop(timeout=0, count=1)`` beside asyncore's, in one process; ``--server`` does not
affect it.

The columns, and how far to trust them:

``…/s`` counts arrivals: a message that 100 clients of a room receive is 100 deliveries.
Each client's bytes are compared with those that it must receive. A server that loses or
adds one is an error without figures.

``per CPU s`` is the same number per second of the server's CPU time (user and system,
to the nanosecond). ``×`` is its ratio to pyasyncore's. Compare this figure: it does not
depend on the share of the machine that the server had.

``server CPU`` is the server's share of a core, ``load CPU`` the generator's. A server
near 100 % limits its row. ``*`` marks a generator that was busier than the server: the
rate and the latencies are the generator's then. The work per CPU second is still the
server's, but below its full load, where it coalesces less. If neither is near 100 %,
both shared a core, or other programs used the machine.

Rule: nothing is left out silently. A server that cannot run has a row with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from tests.benchmarks.run import Run, run, run_frames, why_not
from tests.benchmarks.scenarios import (
    USUAL,
    Scenario,
    UnknownScenarioError,
    scenario,
)
from tests.benchmarks.servers import SERVERS
from tests.benchmarks.table import Row, frames_table, rows, table

PACKAGES = (
    "legacy-chat",
    "pyasyncore",
    "pyasynchat",
    "pyftpdlib",
    "uvloop",
    "gevent",
    "Twisted",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = _arguments(argv)
    runs: list[Run] = []
    results: dict[str, list[Row]] = {}
    for chosen in args.scenario:
        own, results[chosen.name], text = _run(chosen, args)
        runs += own
        print(text + "\n", flush=True)
        if args.json:
            # After each scenario: the last one may be an hour away.
            args.json.write_text(_report(args, runs, results), encoding="utf-8")
    if args.plot:
        from tests.benchmarks.plot import plot

        plot(results, args.plot)
    return 1 if any(run.error for run in runs) else 0


def _run(
    chosen: Scenario, args: argparse.Namespace
) -> tuple[list[Run], list[Row], str]:
    """Return the runs of a scenario, its rows and its table."""
    own: list[Run] = []
    if chosen.kind == "frames":
        for repeat in range(1, args.repeat + 1):
            print(f"{chosen.name} {repeat}/{args.repeat}", file=sys.stderr)
            own += run_frames(chosen, repeat, args.seconds)
        return own, [], frames_table(chosen, own)
    remarks = {
        server: why for server in args.server if (why := why_not(server, chosen))
    }
    runnable = [server for server in args.server if server not in remarks]
    for server, repeat in _turns(runnable, args.repeat):
        print(f"{chosen.name} {repeat}/{args.repeat} {server}", file=sys.stderr)
        own.append(run(server, chosen, repeat, args.seconds, args.warm_up))
    found = rows(args.server, own, remarks)
    return own, found, table(chosen, found)


def _turns(servers: Sequence[str], repeats: int) -> Iterator[tuple[str, int]]:
    """Yield every server in every repetition, in a rotated order."""
    for repeat in range(repeats):
        begin = repeat % len(servers) if servers else 0
        for server in (*servers[begin:], *servers[:begin]):
            yield server, repeat + 1


def _report(
    args: argparse.Namespace, runs: Sequence[Run], results: dict[str, list[Row]]
) -> str:
    """Return all runs as JSON, and the servers that could not run."""
    report = {
        "python": sys.version,
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "seconds": args.seconds,
        "warm_up": args.warm_up,
        "runs": [
            {
                "scenario": each.scenario,
                "server": each.server,
                "repeat": each.repeat,
                **({"error": each.error} if each.error else each.figures),
            }
            for each in runs
        ],
        "not_run": [
            {"scenario": name, "server": row.server, "why": row.remark}
            for name, found in results.items()
            for row in found
            if row.remark and not row.remark.startswith("error: ")
        ],
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Compare chat servers under load.",
        epilog=f"Scenarios: {', '.join(USUAL)}; other numbers are possible. "
        f"Servers: {', '.join(SERVERS)}.",
    )
    for name, kind, known in (
        ("--scenario", _scenario, USUAL),
        ("--server", _server, tuple(SERVERS)),
    ):
        parser.add_argument(
            name,
            action="extend",
            nargs="+",
            type=kind,
            metavar="NAME",
            help=f"one or more (default: all {len(known)})",
        )
    parser.add_argument(
        "--seconds", type=_positive, default=2.0, metavar="S", help="duration of a run"
    )
    parser.add_argument(
        "--warm-up", type=_positive, default=0.5, metavar="S", help="before each run"
    )
    parser.add_argument(
        "--repeat", type=_count, default=3, metavar="R", help="repetitions"
    )
    parser.add_argument("--json", type=_file, metavar="FILE", help="write each run")
    parser.add_argument(
        "--plot", type=_file, metavar="FILE.svg", help="draw an SVG with matplotlib"
    )
    args = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        parser.error("the load needs Linux: epoll and /proc")
    if args.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    args.scenario = args.scenario or [scenario(name) for name in USUAL]
    args.server = list(dict.fromkeys(args.server or SERVERS))
    return args


def _scenario(name: str) -> Scenario:
    try:
        return scenario(name)
    except UnknownScenarioError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _server(name: str) -> str:
    if name not in SERVERS:
        raise argparse.ArgumentTypeError(
            f"server must be one of {', '.join(SERVERS)}, got {name!r}"
        )
    return name


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(
            f"seconds must be finite and > 0, got {text!r}"
        )
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(
            f"number must be an integer >= 1, got {text!r}"
        )
    return int(text)


def _file(name: str) -> Path:
    path = Path(name)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {name!r}")
    return path


def _terminate(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
