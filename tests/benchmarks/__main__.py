"""How fast chat servers are.

    python -m tests.benchmarks [--scenario NAME …] [--server NAME …] [--seconds S]
                               [--repeat R] [--json FILE] [--plot FILE.svg]

``pip install -e '.[benchmark]'`` installs the servers that are not ours. A server is a
process, the load on it another. For each scenario and repetition every server has its
turn, each repetition beginning with another one; medians are shown.

What the columns say, and how one knows whether to believe them:

``…/s`` counts what has arrived: in a room, a message that 100 clients get is 100
deliveries. Each client's bytes are compared with what it must have got; a server that
loses or adds one is an error, not a figure.

``per CPU s`` is the same, by the CPU time of the server (user and system, to the
nanosecond), and ``×`` the ratio to pyasyncore's, which is the figure to compare: it
does not depend on how much of the machine the server could have.

``server CPU`` is the server's share of a core, ``load CPU`` the generator's. A server
near 100 % is what limits its row. Where the generator is busier than the server, it is
marked with ``*``: the server could have done more, and the rate and the latencies are
the generator's. Its work per CPU second is its own still, but at less than its full
load; what it could gather or batch, it gathers less of. If neither is near 100 %,
something else has had the machine.

Rule: nothing is passed over in silence. What cannot be run is a row that says why.
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

from tests.benchmarks.run import Run, run, why_not
from tests.benchmarks.scenarios import (
    USUAL,
    Scenario,
    UnknownScenarioError,
    scenario,
)
from tests.benchmarks.servers import SERVERS
from tests.benchmarks.table import Row, rows, table

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
    """Run what the command line says; return the exit status."""
    args = _arguments(argv)
    runs: list[Run] = []
    results: dict[str, list[Row]] = {}
    for what in args.scenario:
        remarks = {
            server: why for server in args.server if (why := why_not(server, what))
        }
        runnable = [server for server in args.server if server not in remarks]
        own = []
        for server, repeat in _turns(runnable, args.repeat):
            print(f"{what.name} {repeat}/{args.repeat} {server}", file=sys.stderr)
            own.append(run(server, what, repeat, args.seconds, args.warm_up))
        runs += own
        results[what.name] = rows(args.server, own, remarks)
        print(table(what, results[what.name]) + "\n", flush=True)
        if args.json:
            # After each, since the last may be an hour away.
            args.json.write_text(_report(args, runs, results), encoding="utf-8")
    if args.plot:
        from tests.benchmarks.plot import plot

        plot(results, args.plot)
    return 1 if any(run.error for run in runs) else 0


def _turns(servers: Sequence[str], repeats: int) -> Iterator[tuple[str, int]]:
    """Every server in every repetition, each beginning with another."""
    for repeat in range(repeats):
        begin = repeat % len(servers) if servers else 0
        for server in (*servers[begin:], *servers[:begin]):
            yield server, repeat + 1


def _report(
    args: argparse.Namespace, runs: Sequence[Run], results: dict[str, list[Row]]
) -> str:
    """All that is known, as JSON: every single run, and what could not be run."""
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
        description="How fast chat servers are.",
        epilog=f"Scenarios: {', '.join(USUAL)}; or with other numbers. "
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
            help=f"one or more; default: all {len(known)}",
        )
    parser.add_argument(
        "--seconds", type=_positive, default=2.0, metavar="S", help="of each run"
    )
    parser.add_argument(
        "--warm-up", type=_positive, default=0.5, metavar="S", help="before each"
    )
    parser.add_argument("--repeat", type=_count, default=3, metavar="R")
    parser.add_argument("--json", type=_file, metavar="FILE", help="every single run")
    parser.add_argument(
        "--plot", type=_file, metavar="FILE.svg", help="an SVG, with matplotlib"
    )
    args = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        parser.error("the load needs Linux: it is made with epoll and read from /proc")
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
            f"{name!r} is no server; these are: {', '.join(SERVERS)}"
        )
    return name


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
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
