"""Traced or not, peers get the same bytes; and the trace has them, to the byte."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from tests.compat.trace.recording import Line, Recording, recorded
from tests.support import ORIGINALS, OURS, turn_once, turn_until

# Senders and their data, in order.
Conversation: TypeAlias = list[tuple[int, bytes]]

PEOPLE = 3

# Data that ends with, and begins, the terminator "out".
words = st.lists(
    st.sampled_from([b"hello", b"out", b"o", b"u", b"t", b"x" * 70, b"\xe4\xbd"]),
    min_size=1,
    max_size=4,
).map(b"".join)
conversations = st.lists(
    st.tuples(st.integers(0, PEOPLE - 1), words), min_size=1, max_size=8
)


class Guest(Line):
    """A channel that echoes its data, and pushes it to the others."""

    def __init__(self, guests: list[Guest], audience: Any, gathers: bool) -> None:
        super().__init__()
        self.ac_coalesce_writes = gathers
        self.guests = guests
        self.audience = audience
        self.read = 0

    def recv(self, size: int) -> bytes:
        data = super().recv(size)
        self.read += len(data)
        return data

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(b"you: " + data)
        if self.audience is not None:
            self.audience.push(data, exclude=self)
        else:
            for guest in self.guests:
                if guest is not self:
                    guest.push(data)

    def found_terminator(self) -> None:
        self.push(b".")


def held(name: str, conversation: Conversation, gathers: bool) -> list[bytes]:
    """Play the conversation; return the data that each peer received."""
    audience = compat.BroadcastGroup() if gathers else None
    guests: list[Guest] = []
    guests += (Guest(guests, audience, gathers) for _ in range(PEOPLE))
    for guest in guests:
        if audience is not None:
            audience.add(guest)
    sent = [0] * PEOPLE
    for who, data in conversation:
        sent[who] += len(data)
        guests[who].peer.send(data)
        turn_until(name, lambda: [guest.read for guest in guests] == sent)
    while any(guest.writable() for guest in guests):
        turn_once(name)
    got = [guest.peer.receive_available() for guest in guests]
    for guest in guests:
        guest.close()
    return got


def agree(trace: Recording, conversation: Conversation, got: list[bytes]) -> None:
    """Check that the trace has the sent and received data of each channel."""
    opened = trace.events("open")
    numbers = [event.channel.number for event in opened if event.channel]
    assert len(numbers) == PEOPLE
    for who, number in enumerate(numbers):
        sent = b"".join(data for speaker, data in conversation if speaker == who)
        calls = trace.calls(channel=number)
        reads = [call for call in calls if call.received]
        assert sum(call.received for call in reads) == len(sent)
        assert b"".join(call.data or b"" for call in reads) == sent
        assert sum(call.sent for call in calls) == len(got[who])
        collected = [
            call.data or b"" for call in calls if call.name == "collect_incoming_data"
        ]
        ends = sum(call.name == "found_terminator" for call in calls)
        last = trace.changes(number, "held")[-1:] or [0]
        assert len(b"".join(collected)) + 3 * ends + last[0] == len(sent)
        assert trace.reader.channels[number].status == "closed"


@pytest.mark.parametrize("name", [*ORIGINALS, *OURS])
@settings(max_examples=12)
@given(conversation=conversations, gathers=st.booleans())
def test_trace_of_any_conversation_has_all_bytes(
    name: str, conversation: Conversation, gathers: bool
) -> None:
    plain = held(name, conversation, gathers)
    with tempfile.TemporaryDirectory() as folder:
        with recorded(Path(folder), payload=1 << 16) as trace:
            traced = held(name, conversation, gathers)
        assert traced == plain
        agree(trace, conversation, traced)
