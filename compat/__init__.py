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
from compat.audience import Audience
from compat.channels import Channel, Map
from compat.chat import async_chat
from compat.install import install, uninstall
from compat.loops import (
    LOOPS,
    Choice,
    MissingLoopError,
    UnknownLoopError,
    choose,
    loop,
)
from compat.schedule import (
    Timer,
    call_later,
    call_soon_threadsafe,
    is_turned,
    on_signals,
    on_turn,
)
from compat.trace import tracing

__all__ = [
    "LOOPS",
    "Audience",
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
    "is_turned",
    "loop",
    "on_signals",
    "on_turn",
    "tracing",
    "uninstall",
]
