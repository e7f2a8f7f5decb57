"""Traces that a disk, an editor or an attacker has damaged."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from compat.trace.cli import main
from tests.compat.trace.strategies import SPECIAL
from tests.compat.trace.synthetic import Trace, hello, large

__all__ = ["VIEWS", "complaints", "damaged", "shown"]

VIEWS: dict[str, list[str]] = {
    "text": ["text"],
    "text in Chinese": ["text", "--lang", "zh", "--channel", "2"],
    "text in part": ["text", "--turns", "2-", "--calls-only"],
    "mermaid": ["mermaid"],
    "html": ["html"],
    "perfetto": ["perfetto"],
    "doctor": ["doctor", "--slow", "0.00001"],
    "diff": ["diff"],
    "strict diff": ["diff", "--strict"],
}


def _threads() -> bytes:
    """Return a trace of two threads, with a nested loop, a gap, and no end."""
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.turn(read=[anna], channels=1)
    with trace.call("handle_read", anna, data=b"hello", **{"in": 5}):
        trace.turn(read=[anna], channels=1)
        trace.calls("push", anna, data=b"hell", given=True, to=3, but=anna)
    trace.event("lost", n=12)
    trace.thread = 2
    trace.turn(why="timeout", by="poll", timeout=None)
    trace.calls("timer", id=3)
    trace.state(anna, unseen="ValueError: no")
    return trace.bytes()


SEEDS = (hello().bytes(), large(120, clients=4).bytes(), _threads())

# In a JSON text, as they stand.
RAW = [
    *("NaN", "Infinity", "-Infinity", "-0", "1e999", "-1", "0.5", "null", "true"),
    *("9" * 5_000, "-" + "9" * 5_000, "1e400", str(1 << 63), str(-(1 << 63))),
    *("[" * 5_000 + "]" * 5_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[]", "{}"),
    *('"\\ud800"', '"\\udcff"', '"\\u0000"', '"\\u2028"', '"\\u202e"', '"</script>"'),
    *(
        '"\\u001b[2J"',
        '"\\u009b2J"',
        '"\\ud83d\\ude00"',
        '""',
        '"new in 2"',
        '[1, "x"]',
    ),
    *('{"e": "call"}', "[null]", "[-1]", "[1e3]", f'"{"x" * 70_000}"', '"\\r\\n"'),
]


def _flip(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _drop(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 9, 300))]


def _repeat(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at:at] = data[at : at + random.choice((1, 9, 300))]


def _insert(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    some = (b"\0", b"\xff\xfe", b"\n", b"\r", b"\x1b[2J", b"\xed\xa0\x80", b'"', b"}")
    data[at:at] = random.choice(some)


def _lines(change: Callable[[list[bytes], int, Random], None]) -> Any:
    def mutate(data: bytearray, random: Random) -> None:
        lines = bytes(data).splitlines(True)
        if lines:
            change(lines, random.randrange(len(lines)), random)
        data[:] = b"".join(lines)

    return mutate


def _without(lines: list[bytes], at: int, random: Random) -> None:
    del lines[at : at + random.choice((1, 1, 20))]


def _twice(lines: list[bytes], at: int, random: Random) -> None:
    lines.insert(random.randrange(len(lines) + 1), lines[at])


def _swapped(lines: list[bytes], at: int, random: Random) -> None:
    other = random.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _truncated(lines: list[bytes], at: int, random: Random) -> None:
    lines[at] = lines[at][: random.randrange(len(lines[at]))] + b"\n"


def _field(lines: list[bytes], at: int, random: Random) -> None:
    """Another value of a field, another name, none, or twice."""
    try:
        fields = json.loads(lines[at])
        names = list(fields)
        name = random.choice(names)
    except (ValueError, IndexError, TypeError, RecursionError):
        return
    pairs = [
        [each, json.dumps(value)]
        for each, value in fields.items()
        if each != name or random.random() < 0.8
    ]
    value = random.choice((random.choice(RAW), json.dumps(random.choice(SPECIAL))))
    place = random.randrange(len(pairs) + 1)
    what = random.random()
    if what < 0.6:
        pairs = [[key, value if key == name else old] for key, old in pairs]
    elif what < 0.8:
        known = ("ch", "d", "th", "n", "in", "t", "us", "read", "id", "to", "but", "f")
        pairs.insert(place, [random.choice(known), value])
    else:
        pairs.insert(place, [name, value])
    text = ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs)
    lines[at] = f"{{{text}}}\n".encode()


MUTATIONS = [
    *(_flip, _cut, _drop, _repeat, _insert),
    *map(_lines, (_without, _twice, _swapped, _truncated)),
    *[_lines(_field)] * 8,
]


def damaged(random: Random) -> bytes:
    """Return a trace with a few mutations; seldom, no trace at all."""
    if random.random() < 0.02:
        return random.choice((b"", b"\n", random.randbytes(300), b"[1]\n{}\n"))
    data = bytearray(random.choice(SEEDS))
    for _ in range(random.choice((1, 1, 2, 5))):
        if data:
            random.choice(MUTATIONS)(data, random)
    return bytes(data)


class _Encoded(io.TextIOWrapper):
    """Standard output that keeps its bytes."""

    def text(self) -> str:
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


def shown(view: str, path: Path, other: Path | None = None) -> tuple[int, str, str]:
    """Return status, output and errors of a view of VIEWS."""
    name, *options = VIEWS[view]
    argv = [name, *options, str(path)]
    if name == "diff":
        argv.append(str(other or path))
    out, err = _Encoded(io.BytesIO(), encoding="utf-8", newline="\n"), io.StringIO()
    with patch.object(sys, "stdout", out), redirect_stderr(err):
        status = main(argv)
    return status, out.text(), err.getvalue()


def complaints(view: str, path: Path, status: int, out: str, err: str) -> list[str]:
    """Return the defects of a view's output."""
    wrong = []
    if status not in (0, 1, 2):
        wrong.append(f"status {status}")
    lines = err.splitlines()
    if any(not line.startswith(f"python -m compat.trace: {path}: ") for line in lines):
        wrong.append(f"not a line with the file's name: {err!r}")
    if status == 2 and (len(lines) != 1 or out):
        wrong.append(f"status 2, and not one line alone: {err!r}, {out[:99]!r}")
    if view == "html":
        if out.count("<script") != 3 * (status == 0) or "\u2028" in out:
            wrong.append("not one page with three scripts")
    elif view == "perfetto" and status == 0:
        json.loads(out, parse_constant=lambda name: wrong.append(f"JSON has no {name}"))
    for line in (out + err).split("\n") if view != "html" else err.split("\n"):
        if not line.isprintable():
            wrong.append(f"control characters: {line!r}")
    return wrong
