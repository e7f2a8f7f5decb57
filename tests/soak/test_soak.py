"""A small soak; ``python -m tests.soak`` is the real one. And the model, misled."""

from __future__ import annotations

import math
import sys

import pytest

from tests.soak.model import Hearer, Tally, Transcript, message

VOICE = b"speaker says:"


@pytest.mark.skipif(sys.platform != "linux", reason="it needs epoll and /proc")
def test_soak_run_loses_no_message() -> None:
    from tests.soak.run import FAULTS, Plan, soak

    messages = 4 * len(FAULTS)
    plan = Plan("selectors", 24, 20.0, messages, rate=math.inf, seed=1)
    for outcome in soak(plan):
        assert not outcome.trouble
        assert outcome.sent == messages // 2
        assert outcome.delivered == 12 * outcome.sent
        assert len(outcome.faults) == len(FAULTS)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_model_accepts_a_right_transcript_in_any_segmentation(size: int) -> None:
    room = Transcript([VOICE])
    speaker, listener = Hearer(room, 0), Hearer(room)
    said = [room.say(0) for _ in range(3)]
    heard = b"noise " + b" noise ".join(VOICE + each for each in said)
    echoed = b"noise " + b" noise ".join(said)
    for start in range(0, len(heard), size):
        # The others may be ahead of the observer, or behind.
        speaker.add(echoed[start : start + size])
        room.add(heard[start : start + size])
        listener.add(heard[start : start + size])
    speaker.compare()
    assert room.tally() == Tally(0, 0, 0, 0)
    assert speaker.tally() == listener.tally() == (3, Tally(0, 0, 0, 0))
    assert not speaker.wrong
    assert not listener.wrong


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        ([0, 2], Tally(1, 0, 0, 1)),
        ([0, 1, 1, 2], Tally(0, 1, 0, 1)),
        ([0, 2, 1], Tally(0, 0, 1, 1)),
        ([0, 1], Tally(1, 0, 0, 0)),
    ],
)
def test_model_counts_lost_repeated_and_reordered_messages(
    order: list[int], wrong: Tally
) -> None:
    room = Transcript([VOICE])
    listener = Hearer(room)
    room.add(b"".join(VOICE + room.say(0) for _ in range(3)))
    listener.add(b"".join(VOICE + message(0, number) for number in order))
    assert listener.tally()[1] == wrong


def test_observer_counts_lost_and_damaged_messages() -> None:
    room = Transcript([VOICE])
    said = [room.say(0) for _ in range(3)]
    room.add(VOICE + said[0] + VOICE + said[2].replace(b" ", b"_"))
    assert room.tally() == Tally(1, 0, 0, 1)
