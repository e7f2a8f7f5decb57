"""The bytes that each well-behaved client of a room must receive.

All members of a room receive the same messages in the same order. A sender receives an
echo of its message, without its name before it. So the bytes that one observer has
received, the transcript, determine the bytes of every other member, noise included.
The senders determine the observer's messages: each once, in the order of its numbers.

Rule 1: a message begins with STX, which noise never contains.
Rule 2: a client that is compared joined before the first message.
Rule 3: a client that has received one wrong byte is wrong from there on. The messages
that this has cost are counted at the end; see tally.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Receiver", "Tally", "Transcript", "message", "tally"]

STX, ETX = b"\2", b"\3"
MESSAGE = re.compile(rb"\x02(\d+):(\d+):([^\x02\x03]*)\x03")

# Longest prefix and message in bytes: the part that may be incomplete at the end.
LONGEST = 1024

# Characters of two to four bytes, without any of ``out``.
FILLING = "聊天室 é😀"

# A message: the number of its sender, and its number among the sender's messages.
Token = tuple[int, int]


def message(sender: int, number: int) -> bytes:
    """Return a sender's message of that number: the same at each call."""
    check = zlib.crc32(b"%d:%d" % (sender, number))
    text = f"{check:08x} " + FILLING * (check % 16)
    return b"%b%d:%d:%b%b" % (STX, sender, number, text.encode(), ETX)


class Tally(NamedTuple):
    """Numbers of messages with each kind of error."""

    lost: int
    duplicated: int
    reordered: int
    altered: int


def tally(due: Sequence[Token], got: Sequence[Token], altered: int = 0) -> Tally:
    """Compare the messages due with the messages received."""
    owed, had = Counter(due), Counter(got)
    lost = sum((owed - had).values())
    duplicated = sum((had - owed).values())
    place = {token: position for position, token in enumerate(due)}
    places = [place[token] for token in dict.fromkeys(got) if token in place]
    reordered = sum(b < a for a, b in pairwise(places))
    return Tally(lost, duplicated, reordered, altered)


class Transcript:
    """The room's messages, as its observer received them.

    Args:
        prefixes: for each sender, the bytes that other members receive before each of
            its messages.

    Attributes:
        sent: number of messages of each sender.
        received: number of these that the observer has received.
        tokens: the received messages, in their order.
        altered: number of received messages with other bytes than were sent.
        end, settled: offsets of the end of the text, and of the end of its last
            complete message.
    """

    def __init__(self, prefixes: Sequence[bytes]) -> None:
        self.prefixes = prefixes
        self.sent = [0] * len(prefixes)
        self.received: Counter[int] = Counter()
        self.tokens: list[Token] = []
        self.altered = 0
        # The part of the text that is kept; the offset of its first byte.
        self._text = bytearray()
        self._begin = self.end = self.settled = 0
        self._parsed = 0
        self._ends: list[int] = []
        # Offsets of each sender's prefix, which the sender itself does not receive.
        self.own: list[deque[int]] = [deque() for _ in prefixes]

    def next_message(self, sender: int) -> bytes:
        """Return the sender's next message, which is due from now on."""
        number = self.sent[sender]
        self.sent[sender] += 1
        return message(sender, number)

    def add(self, data: bytes) -> None:
        """Append bytes that the observer has received."""
        self._text += data
        self.end += len(data)
        for found in MESSAGE.finditer(self._text, self._parsed - self._begin):
            self._found(found)
        # The text after that may be the beginning of a message.
        unfinished = self._text.rfind(STX, self._parsed - self._begin)
        self._parsed = self.end if unfinished < 0 else self._begin + unfinished

    def _found(self, found: re.Match[bytes]) -> None:
        self._parsed = self._begin + found.end()
        token = int(found[1]), int(found[2])
        self.tokens.append(token)
        self.received[token[0]] += 1
        self.settled = self._parsed
        self._ends.append(self._parsed)
        prefix = (
            self.prefixes[token[0]] if token[0] < len(self.prefixes) else b"unknown"
        )
        start = found.start() - len(prefix)
        if self._text[max(0, start) : found.end()] != prefix + message(*token):
            self.altered += 1
        else:
            self.own[token[0]].append(self._begin + start)

    def get(self, begin: int, end: int) -> memoryview:
        """Return a part of the text; release it before the next add()."""
        return memoryview(self._text)[begin - self._begin : end - self._begin]

    def count_until(self, offset: int) -> int:
        """Return the number of messages that end at or before that offset."""
        return bisect_left(self._ends, offset + 1)

    def drop_until(self, offset: int) -> None:
        """Drop the text before that offset, except an incomplete message."""
        keep = min(offset, self.end - LONGEST, self._parsed - LONGEST)
        if keep > self._begin:
            del self._text[: keep - self._begin]
            self._begin = keep

    def tally(self) -> Tally:
        """Compare the messages sent with those that the observer received."""
        totals = [0, 0, 0]
        for sender, count in enumerate(self.sent):
            due = [(sender, number) for number in range(count)]
            got = [token for token in self.tokens if token[0] == sender]
            for place, value in enumerate(tally(due, got)[:3]):
                totals[place] += value
        return Tally(totals[0], totals[1], totals[2], self.altered)


class Receiver:
    """The bytes that one client receives, compared with the transcript.

    Args:
        transcript: of its room.
        sender: its number, if it is a sender.

    Attributes:
        offset: end of the compared part of the transcript.
        wrong: "", or the first difference, in words.
    """

    def __init__(self, transcript: Transcript, sender: int | None = None) -> None:
        self.offset = 0
        self.wrong = ""
        self._transcript = transcript
        self._own: deque[int] = deque()
        self._prefix_size = 0
        if sender is not None:
            self._own = transcript.own[sender]
            self._prefix_size = len(transcript.prefixes[sender])
        # Bytes received before the observer has received them.
        self._ahead = b""
        self._astray = b""

    def add(self, data: bytes) -> None:
        """Append bytes that the client has received, and compare."""
        if self.wrong:
            self._astray += data
            return
        self._ahead += data
        self.compare()

    def compare(self) -> None:
        """Compare up to the end of the transcript."""
        while not self.wrong and self._ahead:
            end = min(self.offset + len(self._ahead), self._limit())
            size = end - self.offset
            with self._transcript.get(self.offset, end) as due:
                if due != self._ahead[:size]:
                    self._stray(bytes(due))
                    return
            self.offset, self._ahead = end, self._ahead[size:]
            if self._own and self.offset == self._own[0]:
                self.offset += self._prefix_size
                self._own.popleft()
            elif not size:
                return

    def _limit(self) -> int:
        """Return the offset up to which the due bytes are known."""
        if not self._prefix_size:
            return self._transcript.end
        # The next bytes may begin its own prefix: only a complete message decides.
        settled = max(self.offset, self._transcript.settled)
        return min(settled, self._own[0]) if self._own else settled

    def _stray(self, due: bytes) -> None:
        got, self._ahead = self._ahead, b""
        same = next(
            (n for n, (a, b) in enumerate(zip(due, got, strict=False)) if a != b), 0
        )
        near = slice(max(0, same - 80), same + 80)
        where = self.offset + same
        self.wrong = f"at byte {where}: due {due[near]!r}, got {got[near]!r}"
        self._astray = got

    def tally(self) -> tuple[int, Tally]:
        """Return the number of messages received, and the errors."""
        received = self._transcript.count_until(self.offset)
        due = self._transcript.tokens[received:]
        rest = self._astray + self._ahead
        found = [(int(m[1]), int(m[2])) for m in MESSAGE.finditer(rest)]
        # A message that the observer missed is counted there, as lost for all members.
        known = set(self._transcript.tokens)
        got = [token for token in found if token in known]
        return received + len(got), tally(due, got, altered=bool(self.wrong))
