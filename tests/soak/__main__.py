"""The command line of the soak; see tests.soak.run."""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence

from tests.soak.room import Outcome, Plan
from tests.soak.run import soak
from tests.support import OURS

# Clients on a loop with at most 1,024 descriptors.
FEW = {"select": 400}
MANY = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    given = _parse(argv)
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    clients = given.clients or FEW.get(given.loop, MANY)
    print(f"{clients} clients, {given.minutes:g} minutes of {given.loop}, seed {seed}")
    sys.stdout.flush()
    try:
        outcomes = soak(
            Plan(given.loop, clients, 60 * given.minutes, math.inf, given.rate, seed)
        )
    except (AssertionError, OSError) as error:
        print(f"the soak did not finish: {error}", file=sys.stderr)
        return 1
    print("\n".join(_table(outcomes)))
    errors = [f"{each.name}: {text}" for each in outcomes for text in each.errors]
    print(*errors, sep="\n", end="\n" if errors else "", file=sys.stderr)
    return 1 if errors else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Run clients with and without faults in a room with TLS and in one "
        "without; compare every byte.",
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="duration (default: %(default)s)"
    )
    parser.add_argument(
        "--clients",
        type=int,
        help=f"well-behaved clients (default: {MANY}; with select {FEW['select']})",
    )
    parser.add_argument("--loop", choices=OURS, default="selectors")
    parser.add_argument(
        "--rate",
        type=float,
        default=20,
        help="messages a second (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, help="seed of the faults (default: random)")
    given = parser.parse_args(argv)
    if given.clients is not None and given.clients < 8:
        parser.error(f"--clients must be >= 8, got {given.clients}")
    if not sys.platform.startswith("linux"):
        parser.error("the soak needs Linux: epoll and /proc")
    return given


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a row for each figure, with a column for each room."""
    rows: dict[str, list[str]] = {"": [each.name for each in outcomes]}
    for each in outcomes:
        empty, full, again, after = each.descriptors
        figures = {
            "messages sent": each.sent,
            "delivered": each.delivered,
            **each.tally._asdict(),
            **{f"fault: {kind}": count for kind, count in each.faults.items()},
            **{f"closed: {why}": count for why, count in each.closed.items()},
            "descriptors, empty": f"{empty} -> {after}",
            "descriptors, all in": f"{full} -> {again}",
            "RSS, all in, MB": " -> ".join(f"{n / 1e6:.1f}" for n in each.memory),
            "longest turn, ms": f"{1000 * each.longest_turn:.1f}",
        }
        for name, figure in figures.items():
            rows.setdefault(name, []).append(str(figure))
    return [
        f"{name:24}" + "".join(f"{figure:>20}" for figure in row)
        for name, row in rows.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
