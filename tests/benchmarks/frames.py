"""The cost of one turn in a frame loop: ``loop(timeout=0, count=1)``.

    python -m tests.benchmarks.frames CHANNELS [--seconds S]

A program with frames, a game for example, calls this once a frame. The channels are
silent socket pairs: plain dispatchers with an empty queue, then async_chats. Figures
are microseconds of CPU time for a call, printed as JSON.

Rule 1: one process measures all loops, in turns of short batches, so a slow moment of
the machine meets all of them. The figure is the median batch.
Rule 2: asyncore's own loop uses ``select``. More than 1,024 descriptors need ``poll``.
"""

from __future__ import annotations

import argparse
import asynchat
import asyncore
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from statistics import median
from typing import Any, NamedTuple

import compat
from tests.benchmarks.servers import SELECT_LIMIT, wire

__all__ = ["KINDS", "main", "measure"]

KINDS = ("dispatchers", "async_chats")

# Seconds of one batch.
BATCH = 0.01

# Descriptors of this process beside those of the channels of one map.
SPARE = 32


class Dispatcher(asyncore.dispatcher):
    """A plain dispatcher with an empty queue."""

    def writable(self) -> bool:
        return False


class Loop(NamedTuple):
    """A row: a loop, and the installation under which it runs."""

    name: str
    call: Callable[[], Any]
    installed: Callable[[], AbstractContextManager[object]]


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frames")
    parser.add_argument("channels", type=int)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    wire.raise_limit()
    try:
        figures = {
            kind: measure(kind, args.channels, args.seconds / len(KINDS))
            for kind in KINDS
        }
    except OSError as error:
        print(f"{args.channels} channels: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


def measure(kind: str, channels: int, seconds: float) -> dict[str, float]:
    """Return microseconds for a call of each loop, by the loop's name."""
    with ExitStack() as open_channels:
        loops = _loops(kind, channels, open_channels)
        batches: dict[str, list[float]] = {each.name: [] for each in loops}
        calls = {each.name: 1 for each in loops}
        end = time.perf_counter() + seconds
        # The first batch of each loop only finds its number of calls.
        while time.perf_counter() < end or len(batches[loops[-1].name]) < 2:
            for each in loops:
                with each.installed():
                    spent = _time(each.call, calls[each.name])
                batches[each.name].append(1e6 * spent)
                calls[each.name] = max(1, int(BATCH / max(spent, 1e-7)))
        return {name: median(spent[1:]) for name, spent in batches.items()}


def _loops(kind: str, channels: int, open_channels: ExitStack) -> list[Loop]:
    use_poll = channels + SPARE > SELECT_LIMIT // 2
    original = "pyasyncore poll" if use_poll else "pyasyncore select"
    own_loop = asyncore.loop
    is_chat = kind == "async_chats"
    # Made first: select needs low numbers.
    theirs = open_channels.enter_context(
        _silent(asynchat.async_chat if is_chat else Dispatcher, channels)
    )
    ours = open_channels.enter_context(
        _silent(compat.async_chat if is_chat else Dispatcher, channels)
    )
    return [
        Loop(original, lambda: own_loop(0, use_poll, theirs, 1), nullcontext),
        Loop(
            "legacy-chat selectors",
            lambda: compat.loop(0, map=ours, count=1, loop="selectors"),
            nullcontext,
        ),
        Loop(
            "legacy-chat selectors, installed",
            lambda: asyncore.loop(0, map=ours, count=1),
            lambda: compat.install("selectors"),
        ),
    ]


def _time(call: Callable[[], Any], calls: int) -> float:
    """Return CPU seconds for a call, after one that may register all channels."""
    call()
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls


@contextmanager
def _silent(channel: type[Any], count: int) -> Iterator[dict[int, Any]]:
    """Yield a map of channels that receive nothing."""
    silent: dict[int, Any] = {}
    peers = []
    try:
        for _ in range(count):
            sock, peer = socket.socketpair()
            peers.append(peer)
            channel(sock, silent)
        yield silent
    finally:
        asyncore.close_all(silent)
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    sys.exit(main())
