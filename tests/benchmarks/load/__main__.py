"""The load of one scenario on one server: see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.benchmarks.load.churn import Door
from tests.benchmarks.load.crowd import Crowd
from tests.benchmarks.load.flood import Flood
from tests.benchmarks.load.measure import LoadError, Window, raise_limit, resident
from tests.benchmarks.scenarios import Scenario, scenario

Figures = dict[str, Any]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load")
    parser.add_argument("scenario", type=scenario)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True, help="the server's process")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    args = parser.parse_args()
    raise_limit()
    try:
        figures = _PLAYS[args.scenario.kind](args.scenario, args)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the server has gone: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


def _talk(what: Scenario, args: argparse.Namespace) -> Figures:
    hears = what.protocol == "room"
    with closing(Crowd(args.port, hears)) as crowd:
        crowd.join(what.clients)
        speakers = crowd.clients[: what.speakers]
        crowd.talk(speakers, args.warm_up)
        before = sum(client.got for client in crowd.clients)
        window = Window(args.pid)
        latencies = crowd.talk(speakers, args.seconds)
        figures = window.close(latencies)
        crowd.check_quiet()
        messages = len(latencies)
        return {
            "messages": messages,
            "deliveries": messages * (what.clients if hears else 1),
            "bytes": sum(client.got for client in crowd.clients) - before,
            **figures,
        }


def _remember(what: Scenario, args: argparse.Namespace) -> Figures:
    with closing(Crowd(args.port, True)) as crowd:
        # What the first client makes the server import or allocate is nobody's own.
        crowd.join(1)
        before = resident(args.pid)
        window = Window(args.pid)
        crowd.join(what.clients)
        figures = window.close([])
        size = resident(args.pid) - before
        crowd.check_quiet()
        return {
            "deliveries": what.clients,
            "bytes_per_connection": size / what.clients,
            **figures,
        }


def _visit(what: Scenario, args: argparse.Namespace) -> Figures:
    with closing(Door(args.port)) as door:
        door.visit(what.speakers, args.warm_up)
        before, heard_before = door.got, door.heard
        window = Window(args.pid)
        waits = door.visit(what.speakers, args.seconds)
        figures = window.close(waits)
        door.check_quiet()
        return {
            "deliveries": len(waits),
            # The listener's, which are known, and all visitors'.
            "bytes": door.got - before,
            "bytes_of_visitors": door.heard - heard_before,
            **figures,
        }


def _pour(what: Scenario, args: argparse.Namespace) -> Figures:
    with closing(Flood(args.port, what.clients - 1)) as flood:
        flood.pour(args.warm_up)
        before = flood.got
        window = Window(args.pid)
        messages = flood.pour(args.seconds)
        figures = window.close([])
        flood.check()
        return {
            "messages": messages,
            "deliveries": messages * what.clients,
            "bytes": flood.got - before,
            **figures,
        }


_PLAYS: dict[str, Callable[[Scenario, argparse.Namespace], Figures]] = {
    "room": _talk,
    "echo": _talk,
    "idle": _talk,
    "churn": _visit,
    "flood": _pour,
    "memory": _remember,
}


if __name__ == "__main__":
    sys.exit(main())
