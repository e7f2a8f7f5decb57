"""Sessions read any bytes, in any segmentation, from any client; a million inputs.

    python -m tests.fuzz [--inputs N] [--seed N]

An input is a terminator, the number of sessions, and the bytes of each read with their
session. Inputs are built from a small corpus of difficult bytes (terminators and their
prefixes, UTF-8 of all lengths, invalid UTF-8, long runs), mutated and cut at random.
There is no kernel and no loop: a session's socket returns the bytes of the input.

An input is a finding if a handler raises, or if a session has not sent the bytes that
tests.legacy_chat.model predicts.

Rule 1: an input depends only on the seed and its number.
Rule 2: a finding is minimised and printed as a Python literal; ``differs(*literal)``
returns what is wrong with it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from legacy_chat import ChatSession
from legacy_chat.baseline.report.progress import Progress
from legacy_chat.room import Clients
from tests.legacy_chat.model import Speaker

__all__ = ["Input", "differs", "make", "shorten"]

# A session's number, and the bytes of one read.
Read: TypeAlias = tuple[int, bytes]

TERMINATORS = (
    b"out",
    b"out",
    b"/quit\r\n",
    b"\r\n",
    b"aab",
    b"o",
    b"\xe4\xbd",
    b"aaaa",
)

CORPUS = (
    *(b"hello", b" wor", b"x", b"o", b"ou", b"oou", b"out", b"outout", b"shout it"),
    *(b"/quit\r\n", b"/quit\r", b"/", b"\r", b"\r\n", b"a", b"aa", b"aaba", b"\0"),
    *("é".encode(), "你好".encode(), "😀".encode(), "\U0010ffff".encode()),
    *(b"\xc3", b"\xe4\xbd", b"\xf0\x9f\x98", b"\xbd\xa0", b"\xa0", b"\x80"),
    *(
        b"\xff",
        b"\xfe\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe4o",
    ),
    *(b"o" * 40, b"ou" * 30, "你".encode() * 20, b"\xf0" * 9, b"a" * 70_000),
)

# Three sessions: two others, which must receive the same bytes.
MOST = 3

# Inputs between two updates of the progress line.
A_STEP = 1000


class Input(NamedTuple):
    """One input.

    Attributes:
        terminator: the room's terminator.
        pool: number of sessions in the room.
        plain: whether the room is a list, as the tutorial's was.
        reads: the reads, in order.
    """

    terminator: bytes
    pool: int
    plain: bool
    reads: tuple[Read, ...]


class Mouth:
    """A socket that returns the given bytes and accepts none."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()

    def recv(self, size: int) -> bytes:
        return self.chunks.popleft()


class Fuzzed(ChatSession):
    """A session without a kernel; it keeps the data that it would send."""

    def __init__(self, name: str, terminator: bytes, clients: Any) -> None:
        self.socket = self.mouth = Mouth()
        self.connected = True
        self.user = "用户" + name
        self.clients = clients
        self.set_terminator(terminator)
        self.pushed: list[bytes] = []
        clients.append(self)

    def push(self, data: Any) -> None:
        self.pushed.append(bytes(data))

    def close_when_done(self) -> None:
        """Close at once: there is no queue."""

    def handle_error(self) -> None:
        raise  # noqa: PLE0704  # what a handler raises is what is looked for

    def hear(self, data: bytes) -> None:
        self.mouth.chunks.append(data)
        self.handle_read()


def differs(terminator: bytes, pool: int, plain: bool, reads: Sequence[Read]) -> str:
    """Return what a room does wrong with this input; "" if nothing."""
    clients: Any = [] if plain else Clients({})
    names = [f"10.0.0.{number}" for number in range(pool)]
    sessions = [Fuzzed(name, terminator, clients) for name in names]
    speakers = [Speaker(name, terminator) for name in names]
    expected = [b""] * pool
    here = list(range(pool))
    for who, data in reads:
        try:
            sessions[who].hear(data)
        except Exception:
            return traceback.format_exc()
        echo, told = speakers[who].says(data)
        expected[who] += echo
        if speakers[who].left and who in here:
            here.remove(who)
        for other in here:
            if other != who:
                expected[other] += told
    for who, session in enumerate(sessions):
        got = b"".join(session.pushed)
        if got != expected[who]:
            return f"{who} got      {_short(got)}\n  expected {_short(expected[who])}"
    if list(clients) != [sessions[who] for who in here]:
        return f"in the room are {len(clients)}, expected {here}"
    return ""


def make(seed: int, number: int) -> Input:
    """Return the input of that number."""
    chance = random.Random(seed << 40 | number)
    pool = chance.randint(1, MOST)
    terminator = chance.choice(TERMINATORS)
    reads = [
        (chance.randrange(pool), data)
        for _ in range(chance.randint(1, 3))
        for data in _cut(chance, _bytes(chance, terminator))
    ]
    if chance.random() < 0.5:
        # One session sends all the time, so that its segmentation matters.
        reads = [(0, data) for _, data in reads]
    return Input(terminator, pool, chance.random() < 0.3, tuple(reads))


def shorten(found: Input) -> Input:
    """Return the shortest input that still differs, found step by step."""
    while True:
        for shorter in _shorter(found):
            if differs(*shorter):
                found = shorter
                break
        else:
            return found


def main(argv: Sequence[str] | None = None) -> int:
    """Play the inputs; return exit status 1 if there is a finding."""
    options = _parser().parse_args(argv)
    begin = time.monotonic()
    found = None
    played = 0
    # Without this, the tutorial's line would be printed whenever a client leaves.
    with contextlib.redirect_stdout(None), Progress("fuzz") as progress:
        progress.expect(-(-options.inputs // A_STEP))
        while played < options.inputs and found is None:
            made = make(options.seed, played)
            if differs(*made):
                found = shorten(made)
            played += 1
            if not played % A_STEP:
                progress.step(f"a step is {A_STEP:,} inputs")
        seconds = time.monotonic() - begin
        what = "" if found is None else differs(*found)
    findings = int(found is not None)
    print(
        f"seed {options.seed}: {played:,} inputs, {seconds:.1f} s, findings: {findings}"
    )
    if found is not None:
        print(f"input {played - 1}, shortened:\n{tuple(found)!r}\n{what}")
    return findings


def _bytes(chance: random.Random, terminator: bytes) -> bytes:
    """Return mutated pieces of the corpus."""
    data = b"".join(
        terminator if chance.random() < 0.1 else _word(chance)
        for _ in range(chance.randint(1, 5))
    )
    for _ in range(chance.choice((0, 0, 1, 3))):
        data = _changed(chance, data)
    return data or b"x"


def _word(chance: random.Random) -> bytes:
    word = chance.choice(CORPUS)
    if len(word) > 1000 and chance.random() < 0.99:
        # Mostly short runs: a long one takes as much time as a hundred others.
        return word[: chance.randint(1, 300)]
    return word


def _changed(chance: random.Random, data: bytes) -> bytes:
    """Insert, remove or replace a byte; or drop, repeat or replace a part."""
    at = chance.randint(0, len(data))
    to = min(len(data), at + chance.randint(0, 9))
    byte = bytes((chance.randrange(256),))
    instead = chance.choice((b"", byte, byte, data[at:to] * 2, _word(chance)))
    return data[:at] + instead + data[to:]


def _cut(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """Return the data whole, in pieces, or in part byte by byte."""
    most = chance.choice((len(data), len(data), 40, 5, 1))
    begin = 0
    for _ in range(12):
        size = chance.randint(1, most)
        if begin < len(data):
            yield data[begin : begin + size]
        begin += size
    if begin < len(data):
        yield data[begin:]


def _shorter(found: Input) -> Iterator[Input]:
    """Yield slightly shorter inputs, the largest reductions first."""
    reads = found.reads
    for at in range(len(reads)):
        yield found._replace(reads=reads[:at] + reads[at + 1 :])
    for at, (who, data) in enumerate(reads):
        for less in _less(data):
            read = who, less
            yield found._replace(reads=(*reads[:at], read, *reads[at + 1 :]))
    if found.pool > 1 + max(who for who, _ in reads):
        yield found._replace(pool=found.pool - 1)


def _less(data: bytes) -> Iterator[bytes]:
    size = len(data) // 2
    while size:
        for at in range(0, len(data), size):
            if less := data[:at] + data[at + size :]:
                yield less
        size //= 2


def _short(data: bytes) -> str:
    return repr(data) if len(data) < 400 else f"{data[:400]!r} and {len(data) - 400}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--inputs", type=_count, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=_count, default=0, metavar="N")
    return parser


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = -1
    if count < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return count


if __name__ == "__main__":
    sys.exit(main())
