"""A small soak, and the model with wrong data.

``python -m tests.soak`` is the long run.
"""

from __future__ import annotations

import math
import sys

import pytest

from tests.soak.model import Receiver, Tally, Transcript, message

PREFIX = b"sender: "


@pytest.mark.skipif(sys.platform != "linux", reason="it needs epoll and /proc")
def test_soak_run_loses_no_message() -> None:
    from tests.soak.faults import FAULTS
    from tests.soak.room import Plan
    from tests.soak.run import soak

    messages = 4 * len(FAULTS)
    plan = Plan("selectors", 24, 20.0, messages, rate=math.inf, seed=1)
    for outcome in soak(plan):
        assert not outcome.errors
        assert outcome.sent == messages // 2
        assert outcome.delivered == 12 * outcome.sent
        assert len(outcome.faults) == len(FAULTS)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_model_accepts_a_right_transcript_in_any_segmentation(size: int) -> None:
    room = Transcript([PREFIX])
    sender, listener = Receiver(room, 0), Receiver(room)
    sent = [room.next_message(0) for _ in range(3)]
    received = b"noise " + b" noise ".join(PREFIX + each for each in sent)
    echoed = b"noise " + b" noise ".join(sent)
    for start in range(0, len(received), size):
        # The others may be ahead of the observer, or behind.
        sender.add(echoed[start : start + size])
        room.add(received[start : start + size])
        listener.add(received[start : start + size])
    sender.compare()
    assert room.tally() == Tally(0, 0, 0, 0)
    assert sender.tally() == listener.tally() == (3, Tally(0, 0, 0, 0))
    assert not sender.wrong
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
    room = Transcript([PREFIX])
    listener = Receiver(room)
    room.add(b"".join(PREFIX + room.next_message(0) for _ in range(3)))
    listener.add(b"".join(PREFIX + message(0, number) for number in order))
    assert listener.tally()[1] == wrong


def test_observer_counts_lost_and_damaged_messages() -> None:
    room = Transcript([PREFIX])
    sent = [room.next_message(0) for _ in range(3)]
    room.add(PREFIX + sent[0] + PREFIX + sent[2].replace(b" ", b"_"))
    assert room.tally() == Tally(1, 0, 0, 1)
