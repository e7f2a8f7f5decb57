"""Random conversations: on each loop ours answers them as the tutorial's server does.

Every client's bytes are compared after every step, with names in place of addresses. A
conversation follows from its number alone; a failure shows the number and all that was
said. ``LEGACY_CHAT_CONVERSATIONS=900`` plays nine hundred, ``17:18`` just number 17.

The original is different on purpose where ours repairs it, or does what chance wants.
Conversations stay where it has one answer, and where the two must agree:

Rule 1: a message is whole characters in one segment. From a cut or a wrong one the
original's session dies (R2, R3).
Rule 2: one ``out`` for each client, be it in one message or in pieces, and nothing
after it but in the same segment. At a second one the original raises (R4); what comes
in a later segment is heard or not, as the turns fall.
Rule 3: a client drops at any moment, also with last words, but not with a reset on top
of them. Any push to a connection that was reset closes it with what it said unread, in
the original as in ours, and whether a push comes first is chance. Apart from that the
original is reliable here: who drops stays in its ``clients`` for ever (R1), closed, and
every push to it is queued and forgotten; the walk never changes the list.
Rule 4: a message of megabytes is ASCII, and compared without the names that each read
puts into it, because where reads cut it is chance. ``out`` comes at its end only: with
a backlog, what follows would be heard or not, as above.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence

import pytest

from tests.conversation import Action, Conversation, Got, Heard
from tests.legacy_chat.servers import ORIGINAL, Address, Servers, server, servers
from tests.original import MISSING
from tests.transcripts import Step, Transcript, unparse

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

# How many conversations, or from which number up to which.
VARIABLE = "LEGACY_CHAT_CONVERSATIONS"
FIRST, _, END = os.environ.get(VARIABLE, "120").rpartition(":")
NUMBERS = range(int(FIRST or 0), int(END))

# Seconds for all of them on one server, where each needs a few hundredths.
PATIENCE = 60 + len(NUMBERS)

# Conversations that an original lives through.
FEW = 25

# Steps of a conversation, clients in the room at a time, bytes of a message at most.
STEPS = 30
CROWD = 5
LONGEST = 4096

TERMINATOR = b"out"
WORDS = (
    *("hello", "you", "too", "about", "to", "go", "photo", "route", "outlook", "Otto"),
    *("tutu", "OUT", "oUt", "Ou", "用户", "你好", "大家", "再见", "说:", "退出聊天"),
    *(
        "龍",
        "𠮷",
        "😀",
        "👩\u200d👩\u200d👧",
        "🇨🇳",
        "é",
        "\0",
        "\n",
        "\r\n",
        "{a}",
        "\\",
    ),
)
PIECES = ("o", "u", "t", "ou", "ut", "ot", "oo", "uo", "to", "out", " ", "好", "😀")


class Author:
    """Makes a conversation up. It knows what of each client's words is held back."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)
        self._held_back: dict[str, bytes] = {}
        self._came = 0

    def write(self) -> list[Action]:
        """All that is done in the conversation."""
        return [self._open(), *(self._action() for _ in range(STEPS - 1))]

    def _action(self) -> Action:
        present = len(self._held_back)
        if present < 2 or (present < CROWD and self._random.random() < 0.15):
            return self._open()
        client = self._random.choice(list(self._held_back))
        kind = self._random.random()
        if kind < 0.86:
            return self._say(client, "send")
        if kind < 0.93:
            return self._leave(client, self._random.choice(["drop", "half-close"]))
        return self._say(client, self._random.choice(["drop", "half-close"]))

    def _open(self) -> Action:
        client = f"c{self._came}"
        self._came += 1
        self._held_back[client] = b""
        return Action(client, "open")

    def _leave(self, client: str, do: str) -> Action:
        if do == "drop" and self._random.random() < 0.3:
            do = "reset"
        del self._held_back[client]
        return Action(client, do)

    def _say(self, client: str, do: str) -> Action:
        data = self._message()
        while not _is_clear(self._held_back[client] + data):
            data = self._message()
        text = self._held_back.pop(client) + data
        if do == "send" and TERMINATOR not in text:
            self._held_back[client] = _held_back(text)
        return Action(client, do, data)

    def _message(self) -> bytes:
        kind = self._random.random()
        if kind < 0.35:
            return "".join(self._some(PIECES, 4)).encode()
        if kind < 0.9:
            return self._random.choice(["", " "]).join(self._some(WORDS, 6)).encode()
        return self._long()

    def _long(self) -> bytes:
        """Much of the same, with something sharp at the end, within, or in front."""
        sharp = self._random.choice(PIECES)
        plain = self._random.choice(["你", "x", "😀", "tu", "o", "u 好"])
        room = self._random.randint(1, LONGEST) - len(sharp.encode())
        text = plain * (room // len(plain.encode()))
        cut = self._random.choice([0, self._random.randint(0, len(text)), len(text)])
        return (text[:cut] + sharp + text[cut:]).encode()

    def _some(self, pool: Sequence[str], most: int) -> list[str]:
        return self._random.choices(pool, k=self._random.randint(1, most))


def _is_clear(text: bytes) -> bool:
    """Something is said, and no more than one ``out``."""
    return bool(text) and text.count(TERMINATOR) <= 1


def _held_back(text: bytes) -> bytes:
    """What the room keeps of it until more comes."""
    return next((tail for tail in (b"ou", b"o") if text.endswith(tail)), b"")


@pytest.fixture(scope="module")
def rooms() -> Iterator[Servers]:
    with servers() as address:
        yield address


@pytest.fixture(scope="module")
def answers() -> list[list[Heard]]:
    """What the original says to each of the conversations."""
    return [play(number, address) for number, address in with_originals()]


def with_originals() -> Iterator[tuple[int, Address]]:
    """Each conversation's number, and an original to play it to.

    A new one every now and then: the clients that dropped stay in its room, and every
    message is kept for each of them, a gigabyte after a few hundred conversations.
    """
    for first in range(0, len(NUMBERS), FEW):
        with server(ORIGINAL) as address:
            for number in NUMBERS[first : first + FEW]:
                yield number, address


def play(number: int, address: Address) -> list[Heard]:
    """What everybody gets in each step of a conversation."""
    with Conversation(address) as conversation:
        return [conversation.step(action) for action in Author(number).write()]


def compare(number: int, theirs: list[Heard], address: Address) -> None:
    """Play conversation *number* to a server; fail at its first other answer."""
    said: list[Step] = []
    with Conversation(address) as conversation:
        for action, expected in zip(Author(number).write(), theirs, strict=True):
            said.append(Step(action, expected))
            try:
                heard: Heard | AssertionError = conversation.step(action)
            except AssertionError as error:
                heard = error
            if heard != expected:
                script = unparse(Transcript(f"number {number}", "the original", said))
                pytest.fail(f"{VARIABLE}={number}:{number + 1}\n{script}now: {heard}")


@pytest.mark.timeout(PATIENCE)
def test_ours_says_what_the_original_says(
    loop: str, rooms: Servers, answers: list[list[Heard]]
) -> None:
    for number, theirs in zip(NUMBERS, answers, strict=True):
        compare(number, theirs, rooms(loop))


@pytest.mark.timeout(PATIENCE)
def test_the_original_says_the_same_twice(answers: list[list[Heard]]) -> None:
    for (number, address), theirs in zip(with_originals(), answers, strict=True):
        compare(number, theirs, address)


def test_the_conversations_have_what_they_are_for() -> None:
    written = [action for number in range(60) for action in Author(number).write()]
    data = [action.data for action in written]
    assert {action.do for action in written} == {
        *("open", "send", "drop", "reset", "half-close")
    }
    assert max(map(len, data)) > LONGEST * 0.9
    for piece in (b"o", b"ou", b"out", b"t", "好".encode(), "😀".encode()):
        assert piece in data
        assert any(each.startswith(piece) and each != piece for each in data)
        assert any(each.endswith(piece) and each != piece for each in data)
        assert any(piece in each[1:-1] for each in data)


def megabytes() -> list[Action]:
    """Two who say more than a read takes, and one more than the kernel: it listens only
    when it has said all, so much of its echo is still queued at its ``out``."""
    source = random.Random(2)
    words = ("o", "u", "t", "ou", "hello you ", "to go out\n", "tutu", "0123456789" * 9)
    said = "".join(source.choices(words, k=100_000)).replace("out", "...").encode()
    return [
        *(Action(client, "open") for client in "abc"),
        Action("a", "send", said[: 1 << 20] + b"."),
        Action("b", "send", said + b"."),
        Action("c", "send", b"short"),
        Action("b", "send", b".".join([said] * 6) + b".out"),
        Action("a", "send", said + b"!"),
    ]


def without_prefixes(heard: Heard) -> Heard:
    """Whose words they are is known: only one client speaks in a step."""
    return {
        client: Got(re.sub("用户{.} 说:".encode(), b"", data), ended)
        for client, (data, ended) in heard.items()
    }


def test_megabytes_arrive_as_from_the_original(loop: str, rooms: Servers) -> None:
    with (
        server(ORIGINAL) as original,
        Conversation(original) as theirs,
        Conversation(rooms(loop)) as ours,
    ):
        for action in megabytes():
            expected, heard = theirs.step(action), ours.step(action)
            same = without_prefixes(heard) == without_prefixes(expected)
            assert same, f"{action.client} says {action.data[:20]!r}"
