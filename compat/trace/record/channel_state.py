"""What became of a channel, as the fields of a line: only what has changed.

Rule 1: the state is what the channel's attributes say, nothing that is remembered here.
Rule 2: looking changes nothing: no queue is made, no buffer cut.
Rule 3: a long queue is not added up again each time.
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

# Entries of a queue that are added up anew each time; of a longer one, when its length
# has changed by an eighth.
FEW = 64

# No peer sends as many bytes.
MOST = (1 << 63) - 1

# What whoever joins a map is, until it has been looked at; as in TracedChannel.last.
NEW = ("new", None, 0, 0, 0)

# What names all the ends of a socket that has no name.
NOWHERE = ("", None, b"")


class TracedChannel:
    """A channel that has a number."""

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
        # As it stands in the line of a call.
        self.mark = f',"ch":{number}'
        # Gives the channel, or None if it is gone.
        self.channel = channel
        # Under which it joined its map; None if it is in none.
        self.fd: int | None = None
        self.interest: tuple[bool, bool] = (False, False)
        # What was written of its state, and what that depended on.
        self.last: tuple[Any, ...] = ()
        self.calm: tuple[Any, ...] | None = None
        # Of its queue: bytes, and how many entries they were counted in.
        self.backlog = self.counted = 0


def changes(record: TracedChannel, channel: Any) -> str:
    """What has changed, as the fields of a line."""
    variables = vars(channel)
    if "_fileno" not in variables:
        # It is no dispatcher, or not yet one.
        return ""
    calm = None
    is_ours = isinstance(channel, async_chat)
    if is_ours and channel.connected and not queue_of(channel):
        # All that the state of one of ours depends on, connected and with nothing
        # queued. So are most of them after most calls.
        held = uncollected_size(channel)
        calm = (variables["_fileno"], held, getattr(channel, "terminator", None))
        if calm == record.calm:
            return ""
    record.calm = calm
    fifo, held = _buffers(channel, variables)
    state = (
        _status(channel, fifo),
        getattr(channel, "terminator", None),
        held,
        *((_backlog(record, fifo), len(fifo)) if fifo else _NOTHING),
    )
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


def _buffers(channel: Any, variables: dict[str, Any]) -> tuple[Any, int]:
    """What is queued, and how many bytes have been read and not been collected."""
    if isinstance(channel, async_chat):
        # One of ours, which would make a queue if it were asked for it.
        return queue_of(channel) or (), uncollected_size(channel)
    # A dispatcher_with_send has bytes in the place of a queue, others have nothing.
    fifo = variables.get("producer_fifo") or [
        rest for rest in (variables.get("out_buffer"),) if rest
    ]
    return fifo, len(variables.get("ac_in_buffer", b""))


# What a channel becomes when it gets an address, or another end.
_ADDRESSED = ("listening", "connecting", "connected")

# Bytes, and entries.
_NOTHING = (0, 0)

_COUNTS = ("held", "backlog", "queued")


def _status(channel: Any, fifo: Any) -> str:
    if channel._fileno is None:
        return "closed"
    if channel.accepting:
        return "listening"
    if channel.connected:
        return "closing" if fifo and fifo[-1] is None else "connected"
    return "connecting" if channel.connecting else "new"


def _backlog(record: TracedChannel, fifo: Any) -> int:
    entries = len(fifo)
    if entries <= FEW or abs(entries - record.counted) * 8 > record.counted:
        record.counted = entries
        record.backlog = sum(
            len(entry)
            for entry in tuple(fifo)
            if isinstance(entry, bytes | bytearray | memoryview | str)
        )
    return record.backlog


def _addresses(channel: Any) -> str:
    fields = ""
    for name, ask in (("local", "getsockname"), ("peer", "getpeername")):
        try:
            address = getattr(channel.socket, ask)()
        except (OSError, AttributeError):
            # It has none, or none any more, or is no socket.
            continue
        if address not in NOWHERE:
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
        return str(max(-MOST, min(terminator, MOST)))
    return "null" if terminator is None else quote(sound(str(terminator)))
