"""Files that claim to be traces: whole and cut, with valid and invalid lines.

Hypothesis draws a seed, not each of the many fields, and minimises failing files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

__all__ = ["files", "text"]

HEADER = {"format": "compat-trace", "version": 1, "program": "end;#.py"}

# Characters of a diagram's or a terminal's syntax; and one that no stream can encode.
SPECIAL = [
    *("end", ";", "#", "#59;", "\n", "%%", "$$x$$", "<br/>", "```", "\x1b[2J"),
    *("wrap:", "style x:#a", "classDef x:#a", "\\n", '"', "'", "-->>", "\u202e"),
    *("participant", "as", "note over L: x", "{", "}", "&amp;", "用户", "😀", ""),
    *("\udcff", "\udce7\udc94", "\u0301", "\t", "\r", "a" * 90, "你" * 60, " "),
]
KINDS = ("call", "call", "call", "state", "open", "code", "turn", "woke", "interest")
KINDS += ("timer", "end", "new in version 2")
DOES = ("handle_read", "send", "push", "handle_error", "timer", "soon", "turn ends")
STATES = ("new", "connected", "listening", "closing", "closed")

Field = Callable[[Random], Any]


def text(random: Random) -> str:
    """Return any string that a trace may hold."""
    if random.random() < 0.3:
        return "".join(chr(random.randrange(0x250)) for _ in range(random.randrange(9)))
    return " ".join(random.choices(SPECIAL, k=random.randrange(5)))


def _up_to(most: int, least: int = 0) -> Field:
    return lambda random: random.randint(least, most)


def _one_of(*values: Any) -> Field:
    def field(random: Random) -> Any:
        value = random.choice(values)
        return value(random) if callable(value) else value

    return field


def _some(random: Random) -> list[int]:
    return random.choices(range(1, 5), k=random.randrange(5))


ANY = _one_of(None, True, -1, 1 << 63, 0.5, 1e999, text, [1, "x"], {"e": "call"})
NUMBER = _one_of(_up_to(9, -2), _up_to((1 << 63) - 1))
FIELDS: dict[str, Field] = {
    **dict.fromkeys(("data", "error", "where", "class", "file", "module"), text),
    **dict.fromkeys(("peer", "local", "why", "by"), text),
    **dict.fromkeys(("n", "in", "out", "line", "held", "backlog", "queued"), NUMBER),
    **dict.fromkeys(("id", "channels"), NUMBER),
    **dict.fromkeys(("read", "write", "urgent"), _some),
    **dict.fromkeys(("r", "w", "cancelled"), _one_of(True, False)),
    "t": _one_of(_up_to(500), _up_to(500), NUMBER),
    "d": _up_to(3),
    "th": _up_to(2, 1),
    "ch": _up_to(4),
    "f": _up_to(2),
    "us": _up_to(300),
    "do": _one_of(*DOES, text),
    "is": _one_of(*STATES, text),
    "terminator": _one_of(None, 7, 10**30, "out", "\ud800", text),
    "unseen": text,
    "timeout": _one_of(None, 0.5, 30),
    "waited": _up_to(400),
    "asked": _up_to(90),
    "source": _one_of([], ["def end(self):"]),
    "to": ANY,
    "but": ANY,
}


def _line(random: Random) -> Any:
    fields = {
        name: make(random) for name, make in FIELDS.items() if random.random() < 0.5
    }
    return {"e": random.choice(KINDS), **fields}


def _wrong(random: Random) -> Any:
    name = random.choice(list(FIELDS))
    return random.choice((ANY(random), {**_line(random), name: ANY(random)}))


def _file(seed: int, size: int, wrong: int, cut: int) -> bytes:
    random = Random(seed)
    lines = [HEADER, *(_line(random) for _ in range(size))]
    if wrong <= size:
        lines.insert(wrong + 1, _wrong(random))
    file = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    return file[: max(len(file) - cut, len(json.dumps(HEADER)) + 1)]


def files() -> st.SearchStrategy[bytes]:
    """Draw a header and lines, perhaps with an invalid line, perhaps cut off."""
    return st.builds(
        _file,
        st.integers(0, 1 << 32),
        st.integers(0, 30),
        st.integers(0, 60),
        st.one_of(st.just(0), st.integers(0, 400)),
    )
