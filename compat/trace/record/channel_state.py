"""The state of a channel, as the fields of a line: only the changes.

Rule 1: the state is in the channel's own attributes; nothing about it is assumed here.
Rule 2: reading the state changes nothing: it creates no queue and cuts no buffer.
Rule 3: a long queue is not counted anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote
from typing import Any

from compat._reader import uncollected_size
from compat.async_chat import async_chat, queue_of
from compat.trace.source import sound

__all__ = ["NEW", "TracedChannel", "changes"]

# A queue of up to this many entries is counted each time; a longer one after its length
# has changed by an eighth.
FEW = 64

# Larger than any number of bytes that a peer sends.
MAX_TERMINATOR = (1 << 63) - 1

# The state of a channel until its first record: see ``changes``.
NEW = ("new", None, 0, 0, 0)

# The addresses of a socket without a name.
NO_ADDRESS = ("", None, b"")

# A channel in one of these states has new addresses.
_ADDRESSED = ("listening", "connecting", "connected")

_COUNTS = ("held", "backlog", "queued")


class TracedChannel:
    """The record of a channel.

    Attributes:
        mark: the number, as a field of a call's line.
        channel: returns the channel, or None if it is gone.
        fd: the descriptor under which it joined its map; None in no map.
        last: the state recorded last.
        calm: if that was connected with nothing queued, all that it depended on.
        backlog, counted: bytes of the queue, and the entries among which they were
            counted.
    """

    __slots__ = (
        "backlog",
        "calm",
        "channel",
        "counted",
        "fd",
        "interest",
        "last",
        "mark",
        "number",
    )

    def __init__(self, number: int, channel: Callable[[], Any]) -> None:
        self.number = number
        self.mark = f',"ch":{number}'
        self.channel = channel
        self.fd: int | None = None
        self.interest: tuple[bool, bool] = (False, False)
        self.last: tuple[Any, ...] = ()
        self.calm: tuple[Any, ...] | None = None
        self.backlog = self.counted = 0


def changes(record: TracedChannel, channel: Any) -> str:
    """Return the fields that have changed since the last call."""
    variables = vars(channel)
    if "_fileno" not in variables:
        # Not a dispatcher, or not initialised yet.
        return ""
    terminator, calm = getattr(channel, "terminator", None), None
    if isinstance(channel, async_chat):
        queue, held = queue_of(channel) or (), uncollected_size(channel)
        if not queue and channel.connected:
            # As most channels after most calls.
            calm = (variables["_fileno"], held, terminator)
            if calm == record.calm:
                return ""
    else:
        # A dispatcher_with_send has bytes instead of a queue; others have neither.
        out = variables.get("out_buffer")
        queue = variables.get("producer_fifo") or ((out,) if out else ())
        held = len(variables.get("ac_in_buffer", b""))
    record.calm = calm
    backlog = _backlog(record, queue) if queue else 0
    state = (_status(channel, queue), terminator, held, backlog, len(queue))
    if state == record.last:
        return ""
    last, record.last = record.last or NEW, state
    fields = ""
    if state[0] != last[0]:
        fields = f',"is":"{state[0]}"'
        if state[0] in _ADDRESSED:
            fields += _addresses(channel)
    if state[1] != last[1]:
        fields += f',"terminator":{_terminator(state[1])}'
    for name, new, old in zip(_COUNTS, state[2:], last[2:], strict=True):
        if new != old:
            fields += f',"{name}":{new}'
    return fields


def _status(channel: Any, queue: Any) -> str:
    if channel._fileno is None:
        return "closed"
    if channel.accepting:
        return "listening"
    if channel.connected:
        return "closing" if queue and queue[-1] is None else "connected"
    return "connecting" if channel.connecting else "new"


def _backlog(record: TracedChannel, queue: Any) -> int:
    entries = len(queue)
    if entries <= FEW or abs(entries - record.counted) * 8 > record.counted:
        record.counted = entries
        record.backlog = sum(
            len(entry)
            for entry in tuple(queue)
            if isinstance(entry, bytes | bytearray | memoryview | str)
        )
    return record.backlog


def _addresses(channel: Any) -> str:
    fields = ""
    for name, method in (("local", "getsockname"), ("peer", "getpeername")):
        try:
            address = getattr(channel.socket, method)()
        except (OSError, AttributeError):
            # Not connected, closed, or not a socket.
            continue
        if address not in NO_ADDRESS:
            fields += f',"{name}":{quote(_address(address))}'
    return fields


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):
        return os.fsdecode(address)
    return str(address)


def _terminator(terminator: Any) -> str:
    if isinstance(terminator, bytes):
        return quote(terminator.decode("utf-8", "surrogateescape"))
    if isinstance(terminator, int) and not isinstance(terminator, bool):
        return str(max(-MAX_TERMINATOR, min(terminator, MAX_TERMINATOR)))
    return "null" if terminator is None else quote(sound(str(terminator)))
