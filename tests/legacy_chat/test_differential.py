"""Random conversations: on each loop ours answers them as the tutorial's server does.

Every client's bytes are compared after every step, with names in place of addresses. A
conversation follows from its number alone; a failure shows the step and both answers.
``LEGACY_CHAT_CONVERSATIONS=900`` plays nine hundred, ``17:18`` just number 17. For more
than that, and for the shortest form of what is found: ``legacy-chat baseline fuzz``.

The original is different on purpose where ours repairs it, or does what chance wants.
The tutorial's profile keeps conversations where it has one answer, and where the two
must agree; ``legacy_chat/baseline/profiles/tutorial.toml`` says how. Besides:

Rule 1: in a later segment than its ``out`` nobody says anything; it would be heard or
not, as the turns fall.
Rule 2: any push to a connection that was reset closes it with what it said unread, in
the original as in ours, and whether a push comes first is chance. Apart from that the
original is reliable here: who drops stays in its ``clients`` for ever (R1), closed, and
every push to it is queued and forgotten; the walk never changes the list.
Rule 3: a message of megabytes is ASCII, and compared without the names that each read
puts into it, because where reads cut it is chance. ``out`` comes at its end only: with
a backlog, what follows would be heard or not, as above.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator

import pytest

from legacy_chat.baseline import (
    Action,
    Conversation,
    Got,
    Header,
    Heard,
    Place,
    Step,
    Transcript,
    check,
    find_profile,
)
from legacy_chat.baseline.fuzz import Author
from tests.legacy_chat.servers import ORIGINAL, Servers, server, servers
from tests.original import MISSING

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

PROFILE = find_profile("tutorial")

# How many conversations, or from which number up to which.
VARIABLE = "LEGACY_CHAT_CONVERSATIONS"
FIRST, _, END = os.environ.get(VARIABLE, "120").rpartition(":")
NUMBERS = range(int(FIRST or 0), int(END))

# Seconds for all of them on one server, where each needs a few hundredths.
PATIENCE = 60 + len(NUMBERS)


@pytest.fixture(scope="module")
def rooms() -> Iterator[Servers]:
    with servers() as address:
        yield address


@pytest.fixture(scope="module")
def answers() -> list[Transcript]:
    """What the original says to each of the conversations."""
    return [record(number, place) for number, place in with_originals()]


def with_originals() -> Iterator[tuple[int, Place]]:
    """Each conversation's number, and an original to play it to.

    A new one every now and then: the clients that dropped stay in its room, and every
    message is kept for each of them, a gigabyte after a few hundred conversations.
    """
    few = PROFILE.fuzz.fresh
    for first in range(0, len(NUMBERS), few):
        with server(ORIGINAL) as address:
            for number in NUMBERS[first : first + few]:
                yield number, Place(*address)


def record(number: int, place: Place) -> Transcript:
    """What everybody gets in each step of a conversation."""
    author = Author(PROFILE, 0, number)
    steps = []
    with Conversation(place, PROFILE, witness=True) as conversation:
        for action in author:
            steps.append(Step(action, conversation.step(action)))
            author.hear(steps[-1].heard)
    title = f"{VARIABLE}={number}:{number + 1}"
    return Transcript(Header(title, witness=True), steps)


def hold(answer: Transcript, place: Place) -> None:
    """Play a conversation to a server; fail at its first other answer."""
    result = check(answer, place, PROFILE)
    lines = result.difference.lines() if result.difference else (result.error,)
    assert result.outcome == "same", "\n".join([answer.header.title, *lines])


@pytest.mark.timeout(PATIENCE)
def test_our_room_sends_what_the_original_sends(
    loop: str, rooms: Servers, answers: list[Transcript]
) -> None:
    for answer in answers:
        hold(answer, Place(*rooms(loop)))


@pytest.mark.timeout(PATIENCE)
def test_original_gives_the_same_answers_twice(answers: list[Transcript]) -> None:
    for (_, place), answer in zip(with_originals(), answers, strict=True):
        hold(answer, place)


def test_generated_conversations_cover_actions_and_edge_cases(
    answers: list[Transcript],
) -> None:
    written = [step.action for answer in answers[:60] for step in answer.steps]
    data = [action.data for action in written]
    assert {action.do for action in written} == {
        *("open", "send", "drop", "reset", "half-close")
    }
    assert max(map(len, data)) > PROFILE.fuzz.longest * 0.9
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


@pytest.fixture(scope="module")
def megabytes_of_the_original() -> list[Heard]:
    with server(ORIGINAL) as address:
        return heard_of_megabytes(Place(*address))


def heard_of_megabytes(place: Place) -> list[Heard]:
    """What everybody gets in each step."""
    with Conversation(place, PROFILE) as conversation:
        return [without_prefixes(conversation.step(action)) for action in megabytes()]


def test_megabytes_arrive_as_from_the_original(
    loop: str, rooms: Servers, megabytes_of_the_original: list[Heard]
) -> None:
    heard = heard_of_megabytes(Place(*rooms(loop)))
    steps = zip(megabytes(), heard, megabytes_of_the_original, strict=True)
    for action, ours, theirs in steps:
        same = ours == theirs
        assert same, f"{action.client} says {action.data[:20]!r}"
