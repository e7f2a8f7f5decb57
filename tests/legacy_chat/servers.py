"""The servers that conversations are played to, each a process of its own.

Rule: a server is seen, at its end, to have met with no error on the way. It may have
hidden one from its clients, or shown it by closing one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from tests.original import original_room
from tests.support import room

__all__ = ["ORIGINAL", "Address", "Servers", "server", "servers"]

# The name of the tutorial's server, beside those of the loops.
ORIGINAL = "original"

# How asyncore begins to tell of an exception, and how we do.
ERRORS = ("uncaptured python exception", "Traceback")

Address: TypeAlias = tuple[str, int]

# Where the server listens that has this name.
Servers: TypeAlias = Callable[[str], Address]


@contextmanager
def server(name: str) -> Iterator[Address]:
    """The original, or ours on the loop of that name."""
    # The original's queues have no limit.
    ours = room(name, "--send-queue", "0")
    with original_room() if name == ORIGINAL else ours as (process, address):
        yield address
        said = "\n".join(process.out + process.err)
        assert not any(error in said for error in ERRORS), said


@contextmanager
def servers() -> Iterator[Servers]:
    """Each server by its name; they start when they are asked for."""
    with ExitStack() as stack:
        yield functools.cache(lambda name: stack.enter_context(server(name)))
