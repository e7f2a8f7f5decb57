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
returns the difference.
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

# Most sessions: a sender and two others, which must receive the same bytes.
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


class Source:
    """A socket that returns the given bytes and sends none."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()

    def recv(self, size: int) -> bytes:
        return self.chunks.popleft()


class Fuzzed(ChatSession):
    """A session without a kernel; it keeps the data that it would send."""

    def __init__(self, name: str, terminator: bytes, clients: Any) -> None:
        self.socket = self.source = Source()
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
        raise  # noqa: PLE0704  # an exception of a handler is a finding

    def receive(self, data: bytes) -> None:
        self.source.chunks.append(data)
        self.handle_read()


def differs(terminator: bytes, pool: int, plain: bool, reads: Sequence[Read]) -> str:
    """Return the difference between room and model for this input, or ""."""
    clients: Any = [] if plain else Clients({})
    names = [f"10.0.0.{number}" for number in range(pool)]
    sessions = [Fuzzed(name, terminator, clients) for name in names]
    speakers = [Speaker(name, terminator) for name in names]
    expected = [b""] * pool
    here = list(range(pool))
    for sender, data in reads:
        try:
            sessions[sender].receive(data)
        except Exception:
            return traceback.format_exc()
        echo, sent = speakers[sender].outputs(data)
        expected[sender] += echo
        if speakers[sender].left and sender in here:
            here.remove(sender)
        for other in here:
            if other != sender:
                expected[other] += sent
    for sender, session in enumerate(sessions):
        got = b"".join(session.pushed)
        if got != expected[sender]:
            due = expected[sender]
            return f"{sender} got      {_short(got)}\n  expected {_short(due)}"
    if list(clients) != [sessions[sender] for sender in here]:
        return f"the room has {len(clients)} clients, expected {here}"
    return ""


def make(seed: int, number: int) -> Input:
    """Return the input of that number."""
    rng = random.Random(seed << 40 | number)
    pool = rng.randint(1, MOST)
    terminator = rng.choice(TERMINATORS)
    reads = [
        (rng.randrange(pool), data)
        for _ in range(rng.randint(1, 3))
        for data in _cut(rng, _bytes(rng, terminator))
    ]
    if rng.random() < 0.5:
        # One session sends all the time, so that its segmentation matters.
        reads = [(0, data) for _, data in reads]
    return Input(terminator, pool, rng.random() < 0.3, tuple(reads))


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
    with (
        contextlib.redirect_stdout(None),
        Progress(f"fuzz in steps of {A_STEP:,} inputs") as progress,
    ):
        progress.total = -(-options.inputs // A_STEP)
        while played < options.inputs and found is None:
            made = make(options.seed, played)
            if differs(*made):
                found = shorten(made)
            played += 1
            if not played % A_STEP:
                progress.step()
        seconds = time.monotonic() - begin
        difference = "" if found is None else differs(*found)
    findings = int(found is not None)
    print(
        f"seed {options.seed}: {played:,} inputs, {seconds:.1f} s, findings: {findings}"
    )
    if found is not None:
        print(f"input {played - 1}, shortened:\n{tuple(found)!r}\n{difference}")
    return findings


def _bytes(rng: random.Random, terminator: bytes) -> bytes:
    """Return mutated pieces of the corpus."""
    data = b"".join(
        terminator if rng.random() < 0.1 else _word(rng)
        for _ in range(rng.randint(1, 5))
    )
    for _ in range(rng.choice((0, 0, 1, 3))):
        data = _changed(rng, data)
    return data or b"x"


def _word(rng: random.Random) -> bytes:
    word = rng.choice(CORPUS)
    if len(word) > 1000 and rng.random() < 0.99:
        # Mostly short runs: a long one takes as much time as a hundred others.
        return word[: rng.randint(1, 300)]
    return word


def _changed(rng: random.Random, data: bytes) -> bytes:
    """Insert, remove or replace a byte; or drop, repeat or replace a part."""
    at = rng.randint(0, len(data))
    to = min(len(data), at + rng.randint(0, 9))
    byte = bytes((rng.randrange(256),))
    instead = rng.choice((b"", byte, byte, data[at:to] * 2, _word(rng)))
    return data[:at] + instead + data[to:]


def _cut(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """Return the data whole, in pieces, or in part byte by byte."""
    most = rng.choice((len(data), len(data), 40, 5, 1))
    begin = 0
    for _ in range(12):
        size = rng.randint(1, most)
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
    for at, (sender, data) in enumerate(reads):
        for less in _less(data):
            read = sender, less
            yield found._replace(reads=(*reads[:at], read, *reads[at + 1 :]))
    if found.pool > 1 + max(sender for sender, _ in reads):
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
    for option, default in (("--inputs", 1_000_000), ("--seed", 0)):
        parser.add_argument(option, type=_count, default=default, metavar="N")
    return parser


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = -1
    if count < 0:
        raise argparse.ArgumentTypeError(
            f"number must be an integer >= 0, got {text!r}"
        )
    return count


if __name__ == "__main__":
    sys.exit(main())
