"""The format of a trace file: JSON Lines in ASCII, one event a line.

The first line is the header:

    {"format": "compat-trace", "version": 1, "program": "old.py 8080",
     "python": "CPython 3.13.0", "asyncore": "pyasyncore 1.0.5", "payload": 64,
     "max": 67108864, "began": "2026-11-24T08:00:00Z"}

``payload`` is the number of bytes kept of each read, push and send, null for none;
``max`` is the size limit of the file in bytes. A reader ignores fields, and lines with
an ``e``, that it does not know. A file that was cut off ends with an incomplete line,
which does not count.

Every other line is an event. Fields of all events:

    e     the kind, see below
    t     its start, in whole microseconds since the trace began
    d     its depth, omitted if it is 0. A call is written when it ends. It is the
          parent of the lines before it that are deeper and have no parent yet
    th    the thread, 2 and up; omitted for the first thread that wrote an event

``ch`` is the number of a channel, ``f`` the number of a function, both from 1 up and
never reused. Bytes are text: a byte that is not UTF-8 is U+DC80 to U+DCFF, as with
Python's ``surrogateescape``. So ``.encode("utf-8", "surrogateescape")`` restores the
bytes.

    open      a channel was added to its map
                ch, fd, class, module (of the class)
    state     changes of a channel up to the end of a call at depth 0; only the fields
              that changed
                ch
                is          "new", "connecting", "connected", "listening",
                            "closing" (once its queue is empty) or "closed"
                local, peer its addresses, as text
                terminator  text, or a number of bytes; null for none
                held        bytes held back: a possible beginning of a terminator
                backlog     bytes queued for the peer; queued: entries in the queue
    code      a function of the program, before its first call
                f, do (its name), class (null for none), file, line,
                source (a list of at most 40 lines)
    turn      the interest of the channels is known, and the loop starts to wait
                n           from 1 up, in each thread
                by          "select", "poll" or "selectors"
                timeout     the longest wait in seconds; null for no limit
                channels    the number of channels whose interest was checked
                asked       microseconds that this took
    interest  the new interest of a channel, before the turn that it applies to
                ch, r, w    true or false
    woke      the wait has ended
                why         "ready"; "timer": one is due; "wake-up": by another thread
                            or a signal; "timeout"
                waited      microseconds
                read, write, urgent   the ready channels; omitted if there are none
    call      a callback, or a call of a channel's method by the program
                do          the method's name; "timer", "soon" (call_soon_threadsafe),
                            "turn ends" (the flush of coalesced writes)
                ch          the channel; omitted if there is none
                f           its code; omitted for asyncore's and compat's own
                us          microseconds from t to its end
                n, data     the size of its bytes argument, and the first of them
                in, out     bytes read from and written to the channel's socket in this
                            call, without the calls inside it
                data        without n: the first of those bytes
                to, but     of a broadcast: the number of receivers, and the channel
                            that is excluded
                error       the exception that it raised, "ValueError: …"; of
                            handle_error, the exception that it handles. Without a
                            payload, only the class and the system's "[Errno …] …"
                where       "file:line" that raised it; omitted if it is not known
    timer     call_later was called, or a timer was cancelled
                id, in (seconds) or cancelled (true), f. A call "timer" has the id
    lost      lines of any thread were dropped: the reader of a pipe or a terminal was
              too slow. ``t`` is the time of the last dropped line
                n           the number of lines
    end       the last line
                why         "closed"; "full": the file reached its limit
"""

from __future__ import annotations

import re
from typing import Any

__all__ = [
    "DEFAULT_PAYLOAD",
    "DEFAULT_SIZE",
    "FORMAT",
    "MAX_SIZE",
    "MIN_SIZE",
    "VERSION",
    "is_valid",
]

FORMAT = "compat-trace"
VERSION = 1

# Bytes kept of each read, push and send; bytes of a trace.
DEFAULT_PAYLOAD = 64
DEFAULT_SIZE = 64 << 20

# The smallest size limit of a trace, in bytes.
MIN_SIZE = 4096

# The largest payload and the largest size limit, in bytes: 1024 GiB.
MAX_SIZE = 1 << 40


def is_valid(fields: dict[str, Any]) -> bool:
    """Return whether every known field of a line has its type."""
    kind = fields.get("e")
    if kind == "call" and isinstance(fields.get("in"), float):
        return False
    if kind == "turn" and not isinstance(fields.get("n", 0), int):
        return False
    return all(_is_typed(name, value) for name, value in fields.items())


def _is_typed(name: str, value: Any) -> bool:
    types = _TYPES.get(name)
    if types is None:
        return True
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        return False
    if isinstance(value, int | float):
        least = 0 if name in _UNSIGNED else -_LIMIT
        return name == "terminator" or least <= value < _LIMIT
    if isinstance(value, list):
        item = str if name == "source" else int
        return all(type(each) is item for each in value)
    return not (name == "data" and _NOT_BYTES.search(str(value)))


# Numbers of a trace are smaller. Infinity is not, and NaN fails every comparison. A
# terminator may be any number: the program sets it.
_LIMIT = 1 << 63

# Surrogates that surrogateescape does not produce.
_NOT_BYTES = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")

_UNSIGNED = ("t", "d", "th", "ch", "f", "us", "waited", "asked", "channels", "line")

_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("e", "do", "data", "error", "where", "file", "why"), str),
    **dict.fromkeys(("is", "local", "peer", "module", "by", "unseen"), str),
    **dict.fromkeys(("program", "python", "asyncore", "began"), str),
    **dict.fromkeys((*_UNSIGNED, "fd", "out", "held", "backlog", "queued"), int),
    **dict.fromkeys(("max", "id", "to", "but"), int),
    **dict.fromkeys(("r", "w", "cancelled"), bool),
    **dict.fromkeys(("n", "payload"), (int, type(None))),
    **dict.fromkeys(("read", "write", "urgent", "source"), list),
    "class": (str, type(None)),
    "terminator": (str, int, type(None)),
    "timeout": (int, float, type(None)),
    "in": (int, float),
}
