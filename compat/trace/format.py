"""The format of a trace: JSON Lines, one event a line.

JSON Lines, ASCII. The first line is the header:

    {"format": "compat-trace", "version": 1, "program": "old.py 8080",
     "python": "CPython 3.13.0", "asyncore": "pyasyncore 1.0.5", "payload": 64,
     "max": 67108864, "began": "2026-11-24T08:00:00Z"}

``payload`` is the number of bytes that are kept of what is read, said or sent, null if
nothing is; ``max`` the number of bytes that the file may have. A reader takes what it
knows of a line and passes over the rest, lines whose ``e`` it does not know included. A
file that was cut off ends with a line that is not whole, which is no line.

Every other line is an event. In all of them:

    e     what it is, see below
    t     when it began, in whole microseconds since the trace began
    d     its depth, left out if it is 0. A call is written when it ends: it is the
          parent of what stands before it with a greater depth and has no parent yet
    th    the thread, 2 and up; left out in the first that has written something

A number in ``ch`` is a channel, from 1 up, and never another one's later; a number in
``f`` is a piece of code. Bytes are text: what is not UTF-8 in them is U+DC80 to U+DCFF,
as Python's ``surrogateescape`` has it, so ``.encode("utf-8", "surrogateescape")`` gives
the bytes.

    open      a channel joined its map
                ch, fd, class, module (of the class)
    state     what became of a channel, by the end of the call at depth 0; only what
              has changed is there
                ch
                is          "new", "connecting", "connected", "listening",
                            "closing" (when its queue is empty) or "closed"
                local       its own address, as text; peer: the other end's
                terminator  text, or a number of bytes; null for none
                held        bytes read and held back: they may begin a terminator
                backlog     bytes that wait for the peer; queued: entries in its queue
    code      a function that is called, before its first call
                f, do, class (null if it is in none), file, line,
                source (a list of lines, at most 40)
    turn      everybody was asked, and now the loop waits
                n           from 1 up, in each thread
                by          "select", "poll" or "selectors"
                timeout     seconds that it may wait; null for no limit
                channels    how many were asked
                asked       microseconds that asking took
    interest  what a channel wants from now on; before the turn in which it was asked
                ch, r, w    true or false
    woke      the wait is over
                why         "ready"; "timer": one is due; "wake-up": another thread or
                            a signal; "timeout"
                waited      microseconds
                read, write, urgent   channels that are ready; left out if none is
    call      a callback, or what a program asked of a channel
                do          the method's name; "timer", "soon" (call_soon_threadsafe),
                            "turn ends" (what a turn gathered is written)
                ch          left out if it is no channel's
                f           its code; left out if that is asyncore's or compat's own
                us          microseconds from t to its end
                n, data     the bytes that it was given: how many, and the first of them
                in, out     bytes read from the channel's socket and written to it,
                            in the call itself, not in calls inside of it
                data        without n: the first of those
                to, but     Audience.push: how many are told, and who is not
                error       what it raised, "ValueError: …", or, for handle_error,
                            what it was called for; without a payload, no more than
                            its kind and the system's "[Errno …] …"
                where       "file:line" that raised it; left out if that is not known
    timer     call_later was called, or a timer cancelled
                id, in (seconds) or cancelled (true), f. A call "timer" has the id
    lost      lines of any thread were not written: the reader of a pipe or a terminal
              was too slow. ``t`` is when the last of them was dropped
                n           how many
    end       the last line
                why         "closed", or "full": there was more, beyond max
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["LARGEST", "LEAST", "MOST", "PAYLOAD", "is_sound"]

# Bytes that are kept of what is read, said or sent; bytes of a trace.
PAYLOAD = 64
LARGEST = 64 << 20

# Bytes that every trace may have.
LEAST = 4096

# The largest number of bytes that either may be: 1024 GiB.
MOST = 1 << 40


def is_sound(fields: dict[str, Any]) -> bool:
    """Return whether each field that is known here has the type that it needs."""
    what = fields.get("e")
    if what == "call" and isinstance(fields.get("in"), float):
        return False
    if what == "turn" and not isinstance(fields.get("n", 0), int):
        return False
    return all(_fits(name, value) for name, value in fields.items())


def _fits(name: str, value: Any) -> bool:
    kind = _KINDS.get(name)
    if kind is None:
        return True
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if isinstance(value, int | float):
        least = 0 if name in _COUNTED else -_MOST
        return name == "terminator" or least <= value < _MOST
    if isinstance(value, list):
        return all(type(each) is _IN_LISTS[name] for each in value)
    return not (name == "data" and _NO_BYTES.search(str(value)))


# No number of a trace is as large, infinity is; and NaN is less than no number. A
# terminator is whatever the program has set.
_MOST = 1 << 63

# Halves of surrogate pairs that surrogateescape does not write.
_NO_BYTES = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")

# What is never less than nothing.
_COUNTED = frozenset(
    ("t", "d", "th", "ch", "f", "us", "waited", "asked", "channels", "line")
)

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("e", "do", "data", "error", "where", "file", "why"), str),
    **dict.fromkeys(("is", "local", "peer", "module", "by", "unseen"), str),
    **dict.fromkeys(("program", "python", "asyncore", "began"), str),
    **dict.fromkeys((*_COUNTED, "fd", "out", "held", "backlog", "queued"), int),
    **dict.fromkeys(("max", "id", "to", "but"), int),
    **dict.fromkeys(("r", "w", "cancelled"), bool),
    "class": (str, type(None)),
    "n": (int, type(None)),
    "payload": (int, type(None)),
    "terminator": (str, int, type(None)),
    "timeout": (int, float, type(None)),
    "in": (int, float),
    **dict.fromkeys(("read", "write", "urgent", "source"), list),
}
_IN_LISTS: dict[str, type] = {"read": int, "write": int, "urgent": int, "source": str}
