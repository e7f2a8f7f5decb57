"""The load of one scenario on one server: see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.benchmarks.load.clients import Clients
from tests.benchmarks.load.flood import Flood
from tests.benchmarks.load.measure import LoadError, Window, raise_limit, resident
from tests.benchmarks.load.visits import Visits
from tests.benchmarks.scenarios import Scenario, scenario

Figures = dict[str, Any]


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load")
    parser.add_argument("scenario", type=scenario)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True, help="the server's process")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    args = parser.parse_args()
    raise_limit()
    try:
        figures = _KINDS[args.scenario.kind](args.scenario, args)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the connection to the server failed: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


def _exchange(chosen: Scenario, args: argparse.Namespace) -> Figures:
    is_room = chosen.protocol == "room"
    with closing(Clients(args.port, is_room)) as clients:
        clients.join(chosen.clients)
        senders = clients.all[: chosen.senders]
        clients.exchange(senders, args.warm_up)
        before = sum(client.got for client in clients.all)
        window = Window(args.pid)
        latencies = clients.exchange(senders, args.seconds)
        figures = window.close(latencies)
        clients.check_silence()
        messages = len(latencies)
        return {
            "messages": messages,
            "deliveries": messages * (chosen.clients if is_room else 1),
            "bytes": sum(client.got for client in clients.all) - before,
            **figures,
        }


def _measure_memory(chosen: Scenario, args: argparse.Namespace) -> Figures:
    with closing(Clients(args.port, True)) as clients:
        # The server imports and allocates for its first client; that counts for none.
        clients.join(1)
        before = resident(args.pid)
        window = Window(args.pid)
        clients.join(chosen.clients)
        figures = window.close([])
        size = resident(args.pid) - before
        clients.check_silence()
        return {
            "deliveries": chosen.clients,
            "bytes_per_connection": size / chosen.clients,
            **figures,
        }


def _measure_visits(chosen: Scenario, args: argparse.Namespace) -> Figures:
    with closing(Visits(args.port, chosen.kind == "churn")) as visits:
        visits.run(chosen.senders, args.warm_up)
        before, visitors_before = visits.got, visits.received
        window = Window(args.pid)
        waits = visits.run(chosen.senders, args.seconds)
        figures = window.close(waits)
        visits.check_silence()
        return {
            "deliveries": len(waits),
            # The observer's bytes, and those of all visitors.
            "bytes": visits.got - before,
            "bytes_of_visitors": visits.received - visitors_before,
            **figures,
        }


def _flood(chosen: Scenario, args: argparse.Namespace) -> Figures:
    with closing(Flood(args.port, chosen.clients - 1)) as flood:
        flood.run(args.warm_up)
        before = flood.got
        window = Window(args.pid)
        messages = flood.run(args.seconds)
        figures = window.close([])
        flood.check()
        return {
            "messages": messages,
            "deliveries": messages * chosen.clients,
            "bytes": flood.got - before,
            **figures,
        }


_KINDS: dict[str, Callable[[Scenario, argparse.Namespace], Figures]] = {
    **dict.fromkeys(("room", "room-echo", "room-idle", "echo", "idle"), _exchange),
    "visits": _measure_visits,
    "churn": _measure_visits,
    "flood": _flood,
    "memory": _measure_memory,
}


if __name__ == "__main__":
    sys.exit(main())
