"""What each well-behaved client of a room must get, to the byte.

Everybody in a room is told the same in the same order; only who speaks gets its own
words as an echo, without its name before them. So what one observer has got, the
transcript, says what is due to each of the others, noise included. What is due to the
observer is known from the speakers: each message, once and in the order of its numbers.

Rule 1: a message begins with STX, which noise never has.
Rule 2: whoever is compared was in the room before the first word.
Rule 3: who has got one byte that is not due is wrong from there on. What that has cost
is reckoned at the end, message by message; see tally.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Hearer", "Tally", "Transcript", "message", "tally"]

STX, ETX = b"\2", b"\3"
MESSAGE = re.compile(rb"\x02(\d+):(\d+):([^\x02\x03]*)\x03")

# Bytes of a voice and a message at the most: what may be unfinished at an end.
LONGEST = 1024

# Characters of two to four bytes, and nothing of ``out``.
FILLING = "聊天室 é😀"

# A message: the number of who speaks, and its own.
Token = tuple[int, int]


def message(speaker: int, number: int) -> bytes:
    """What that speaker says as its message of that number: the same each time."""
    check = zlib.crc32(b"%d:%d" % (speaker, number))
    text = f"{check:08x} " + FILLING * (check % 16)
    return b"%b%d:%d:%b%b" % (STX, speaker, number, text.encode(), ETX)


class Tally(NamedTuple):
    """What is not as it must be, in messages."""

    lost: int
    duplicated: int
    reordered: int
    altered: int


def tally(due: Sequence[Token], got: Sequence[Token], altered: int = 0) -> Tally:
    """Compare what was due with what has come."""
    owed, had = Counter(due), Counter(got)
    lost = sum((owed - had).values())
    duplicated = sum((had - owed).values())
    place = {token: position for position, token in enumerate(due)}
    places = [place[token] for token in dict.fromkeys(got) if token in place]
    reordered = sum(b < a for a, b in pairwise(places))
    return Tally(lost, duplicated, reordered, altered)


class Transcript:
    """What the room has said, as its observer got it.

    Args:
        voices: of the speakers: the bytes that others get before each message.

    Attributes:
        said: how many messages each speaker has sent.
        come: and how many have come.
        tokens: those, in their order.
        altered: of those, how many were not what was sent.
        end, settled: of its text; and of the last whole message in it.
    """

    def __init__(self, voices: Sequence[bytes]) -> None:
        self.voices = voices
        self.said = [0] * len(voices)
        self.come: Counter[int] = Counter()
        self.tokens: list[Token] = []
        self.altered = 0
        # What is kept of the text, and where that begins and ends in all of it.
        self._text = bytearray()
        self._begin = self.end = self.settled = 0
        self._parsed = 0
        self._ends: list[int] = []
        # Where the voice of each speaker is, which it does not get itself.
        self.own: list[deque[int]] = [deque() for _ in voices]

    def say(self, speaker: int) -> bytes:
        """The speaker's next message, which is due from now on."""
        number = self.said[speaker]
        self.said[speaker] += 1
        return message(speaker, number)

    def add(self, data: bytes) -> None:
        """The observer has got it."""
        self._text += data
        self.end += len(data)
        for found in MESSAGE.finditer(self._text, self._parsed - self._begin):
            self._found(found)
        # What follows may be the beginning of a message.
        unfinished = self._text.rfind(STX, self._parsed - self._begin)
        self._parsed = self.end if unfinished < 0 else self._begin + unfinished

    def _found(self, found: re.Match[bytes]) -> None:
        self._parsed = self._begin + found.end()
        token = int(found[1]), int(found[2])
        self.tokens.append(token)
        self.come[token[0]] += 1
        self.settled = self._parsed
        self._ends.append(self._parsed)
        voice = self.voices[token[0]] if token[0] < len(self.voices) else b"nobody's"
        start = found.start() - len(voice)
        if self._text[max(0, start) : found.end()] != voice + message(*token):
            self.altered += 1
        else:
            self.own[token[0]].append(self._begin + start)

    def get(self, begin: int, end: int) -> memoryview:
        """A part of all of the text; to be released before more is added."""
        return memoryview(self._text)[begin - self._begin : end - self._begin]

    def come_until(self, offset: int) -> int:
        """How many messages have come whole before that offset."""
        return bisect_left(self._ends, offset + 1)

    def forget_until(self, offset: int) -> None:
        """Nobody needs the text before it, save what is unfinished."""
        keep = min(offset, self.end - LONGEST, self._parsed - LONGEST)
        if keep > self._begin:
            del self._text[: keep - self._begin]
            self._begin = keep

    def tally(self) -> Tally:
        """What has become of what the speakers said, on its way to the observer."""
        totals = [0, 0, 0]
        for speaker, count in enumerate(self.said):
            due = [(speaker, number) for number in range(count)]
            got = [token for token in self.tokens if token[0] == speaker]
            for place, value in enumerate(tally(due, got)[:3]):
                totals[place] += value
        return Tally(totals[0], totals[1], totals[2], self.altered)


class Hearer:
    """What one client has got, against what was due to it.

    Args:
        transcript: of its room.
        speaker: its number, if it speaks.

    Attributes:
        offset: where in the transcript it has come to.
        wrong: "", or what was due and what came in its place.
    """

    def __init__(self, transcript: Transcript, speaker: int | None = None) -> None:
        self.offset = 0
        self.wrong = ""
        self._transcript = transcript
        self._own: deque[int] = deque()
        self._voice_size = 0
        if speaker is not None:
            self._own = transcript.own[speaker]
            self._voice_size = len(transcript.voices[speaker])
        # What came before the observer had got it.
        self._ahead = b""
        self._astray = b""

    def add(self, data: bytes) -> None:
        """It has got it."""
        if self.wrong:
            self._astray += data
            return
        self._ahead += data
        self.compare()

    def compare(self) -> None:
        """As far as the transcript goes."""
        while not self.wrong and self._ahead:
            end = min(self.offset + len(self._ahead), self._limit())
            size = end - self.offset
            with self._transcript.get(self.offset, end) as due:
                if due != self._ahead[:size]:
                    self._stray(bytes(due))
                    return
            self.offset, self._ahead = end, self._ahead[size:]
            if self._own and self.offset == self._own[0]:
                self.offset += self._voice_size
                self._own.popleft()
            elif not size:
                return

    def _limit(self) -> int:
        """Up to where it is known what is due."""
        if not self._voice_size:
            return self._transcript.end
        # The next bytes may begin its own voice, which shows when a message is whole.
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
        """How many messages it has got; and what it has not, as it must."""
        come = self._transcript.come_until(self.offset)
        due = self._transcript.tokens[come:]
        rest = self._astray + self._ahead
        found = [(int(m[1]), int(m[2])) for m in MESSAGE.finditer(rest)]
        # What the observer has missed is counted there, as lost to everybody.
        known = set(self._transcript.tokens)
        got = [token for token in found if token in known]
        return come + len(got), tally(due, got, altered=bool(self.wrong))
