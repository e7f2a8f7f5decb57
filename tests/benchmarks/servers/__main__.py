"""One of the servers: see the package."""

from __future__ import annotations

import argparse

from tests.benchmarks.servers import PROTOCOLS, SERVERS


def main() -> None:
    """Run one server."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.servers")
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="room")
    parser.add_argument(
        "--port", type=int, default=0, help="0 (default): any free port"
    )
    args = parser.parse_args()
    SERVERS[args.name].serve(args.protocol, args.port)


if __name__ == "__main__":
    main()
