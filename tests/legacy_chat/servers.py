"""The servers that conversations are played to, each in its own process.

Rule: at its end, a server must have logged no error, not even one that its clients did
not notice, or that only closed one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from tests.original import original_room
from tests.support import room

__all__ = ["ORIGINAL", "Address", "Servers", "server", "servers"]

# The name of the tutorial's server, besides the names of the loops.
ORIGINAL = "original"

# Beginnings of the log lines of an exception: asyncore's, and ours.
ERRORS = ("uncaptured python exception", "Traceback")

Address: TypeAlias = tuple[str, int]

# Returns the address of the server of that name.
Servers: TypeAlias = Callable[[str], Address]


@contextmanager
def server(name: str) -> Iterator[Address]:
    """Run the original, or our server on the loop of that name."""
    # The original's queues have no limit.
    ours = room(name, "--send-queue", "0")
    with original_room() if name == ORIGINAL else ours as (process, address):
        yield address
        said = "\n".join(process.out + process.err)
        assert not any(error in said for error in ERRORS), said


@contextmanager
def servers() -> Iterator[Servers]:
    """Yield a function that returns a server's address; it starts the server once."""
    with ExitStack() as stack:
        yield functools.cache(lambda name: stack.enter_context(server(name)))
