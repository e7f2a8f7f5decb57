"""Random conversations: our server answers as the tutorial's does, on each loop.

Every client's bytes are compared after every step, with names in place of addresses. A
conversation depends only on its number; a failure shows the step and both answers.
``LEGACY_CHAT_CONVERSATIONS=900`` plays nine hundred, ``17:18`` just number 17. For more
conversations, and for minimised differences: ``legacy-chat baseline fuzz``.

The original differs on purpose where ours repairs it, and some of its answers depend on
chance. The tutorial's profile, ``legacy_chat/baseline/profiles/tutorial.toml``, keeps
to conversations with a single answer, on which the two must agree. In addition:

Rule 1: a client sends nothing after the segment with its ``out``; whether later data
is delivered depends on the turns.
Rule 2: any push to a reset connection closes the connection and loses its unread data,
in both servers; whether a push comes first is chance. Otherwise the original is
deterministic here: a dropped client stays in its ``clients`` for ever (R1), closed, and
every push to it is queued and never sent; the broadcast never changes the list.
Rule 3: a message of megabytes is ASCII and is compared without the names that each read
inserts, because the boundaries of reads are chance. ``out`` comes only at its end: with
a backlog, whether later data is delivered is chance, too.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator

import pytest

from legacy_chat.baseline import (
    Action,
    Endpoint,
    Received,
    Step,
    Transcript,
    TranscriptHeader,
    check,
    conversation,
    find_profile,
)
from legacy_chat.baseline.fuzz.generator import Generator
from legacy_chat.baseline.model.transcript import Answers
from legacy_chat.baseline.report.results import mismatch_lines
from tests.legacy_chat.servers import ORIGINAL, Servers, server, servers
from tests.original import MISSING

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

PROFILE = find_profile("tutorial")
WITNESSED = TranscriptHeader(witness=True)

# Environment variable: the number of conversations, or a range of their numbers.
VARIABLE = "LEGACY_CHAT_CONVERSATIONS"
FIRST, _, END = os.environ.get(VARIABLE, "120").rpartition(":")
NUMBERS = range(int(FIRST or 0), int(END))

# Seconds for all conversations on one server; each takes a few hundredths.
PATIENCE = 60 + len(NUMBERS)


@pytest.fixture(scope="module")
def rooms() -> Iterator[Servers]:
    with servers() as address:
        yield address


@pytest.fixture(scope="module")
def answers() -> list[Transcript]:
    """Return the original's answers to each conversation."""
    return [record(number, endpoint) for number, endpoint in with_originals()]


def with_originals() -> Iterator[tuple[int, Endpoint]]:
    """Yield each conversation's number, and an original to play the conversation to.

    The original is restarted now and then: dropped clients stay in its room and every
    message is queued for each of them, a gigabyte after a few hundred conversations.
    """
    few = PROFILE.fuzz.restart_after
    for first in range(0, len(NUMBERS), few):
        with server(ORIGINAL) as address:
            for number in NUMBERS[first : first + few]:
                yield number, Endpoint(*address)


def record(number: int, endpoint: Endpoint) -> Transcript:
    """Return the data that each client receives in each step of a conversation."""
    generator = Generator(PROFILE, 0, number)
    steps = []
    with conversation(endpoint, PROFILE, header=WITNESSED) as player:
        for action in generator:
            steps.append(Step(action, player.step(action)))
            generator.update(steps[-1].answers)
    title = f"{VARIABLE}={number}:{number + 1}"
    return Transcript(TranscriptHeader(title, witness=True), steps)


def hold(answer: Transcript, endpoint: Endpoint) -> None:
    """Play a conversation to a server; fail at the first answer that differs."""
    result = check(answer, endpoint, PROFILE)
    lines = mismatch_lines(result.difference) if result.difference else (result.error,)
    assert result.outcome == "same", "\n".join([answer.header.title, *lines])


@pytest.mark.timeout(PATIENCE)
def test_room_sends_the_same_data_as_the_original(
    loop: str, rooms: Servers, answers: list[Transcript]
) -> None:
    for answer in answers:
        hold(answer, Endpoint(*rooms(loop)))


@pytest.mark.timeout(PATIENCE)
def test_original_gives_the_same_answers_twice(answers: list[Transcript]) -> None:
    for (_, endpoint), answer in zip(with_originals(), answers, strict=True):
        hold(answer, endpoint)


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
    """Return actions: two clients exceed a read, and one exceeds the kernel's buffers.

    That client receives only after sending, so its ``out`` finds a long queue of echo.
    """
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


def without_prefixes(answers: Answers) -> Answers:
    """Remove the senders' names: only one client sends in a step."""
    return {
        client: Received(re.sub("用户{.} 说:".encode(), b"", data), ended)
        for client, (data, ended) in answers.items()
    }


@pytest.fixture(scope="module")
def megabytes_of_the_original() -> list[Answers]:
    with server(ORIGINAL) as address:
        return answers_to_megabytes(Endpoint(*address))


def answers_to_megabytes(endpoint: Endpoint) -> list[Answers]:
    """Return the data that each client receives in each step."""
    with conversation(endpoint, PROFILE) as player:
        return [without_prefixes(player.step(action)) for action in megabytes()]


def test_megabytes_arrive_as_from_the_original(
    loop: str, rooms: Servers, megabytes_of_the_original: list[Answers]
) -> None:
    answers = answers_to_megabytes(Endpoint(*rooms(loop)))
    steps = zip(megabytes(), answers, megabytes_of_the_original, strict=True)
    for action, ours, theirs in steps:
        same = ours == theirs
        assert same, f"{action.client} says {action.data[:20]!r}"
