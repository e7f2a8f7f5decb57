"""Run any asyncore or asynchat program on any loop.

The classes stay the originals: ``asyncore.dispatcher`` and ``asynchat.async_chat``.
They come from the standard library on Python 3.11, and from pyasyncore and pyasynchat
on later versions. This package replaces only the loop.

    >>> import compat
    >>> compat.loop(loop="selectors")  # in place of asyncore.loop()

Rule: importing this package does not change asyncore or asynchat.
"""

from __future__ import annotations

from compat import originals  # noqa: F401  # first, for its warning filter
from compat._types import Channel, Map
from compat.async_chat import async_chat
from compat.broadcast import BroadcastGroup
from compat.install import install, uninstall
from compat.loop import (
    LOOPS,
    Choice,
    MissingLoopError,
    UnknownLoopError,
    choose,
    loop,
)
from compat.scheduler import (
    Timer,
    call_later,
    call_soon_threadsafe,
    is_running,
    on_turn,
)
from compat.signals import on_signals
from compat.trace import tracing

__all__ = [
    "LOOPS",
    "BroadcastGroup",
    "Channel",
    "Choice",
    "Map",
    "MissingLoopError",
    "Timer",
    "UnknownLoopError",
    "async_chat",
    "call_later",
    "call_soon_threadsafe",
    "choose",
    "install",
    "is_running",
    "loop",
    "on_signals",
    "on_turn",
    "tracing",
    "uninstall",
]
