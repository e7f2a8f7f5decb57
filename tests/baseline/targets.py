"""The rewrites of the room as targets: in a process, or in a thread of this one."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from legacy_chat.baseline.replay.server import Target
from tests.baseline.rewrites import COMMAND, serve

__all__ = ["in_thread", "target"]


def target(name: str) -> Target:
    """Return a rewrite that baseline starts in a process."""
    return Target(COMMAND.replace("NAME", name))


@contextmanager
def in_thread(name: str) -> Iterator[Target]:
    """Run a rewrite that does not hang in a thread of this process."""
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, Any]] = queue.Queue()

    def ready(port: int) -> None:
        started.put((port, asyncio.get_running_loop(), asyncio.current_task()))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(serve(name, 0, ready))

    thread = threading.Thread(target=run)
    thread.start()
    port, loop, task = started.get()
    try:
        yield Target(address=("127.0.0.1", port))
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
