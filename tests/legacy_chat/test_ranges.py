"""Every number is either rejected with a reason, or the server runs with it.

Rule: the test's own clock jumps to the next timer after each turn. A busy loop
therefore shows in the number of its turns.
"""

from __future__ import annotations

import asyncore
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from legacy_chat import ChatServer
from legacy_chat.limits import RANGES, Limits, check
from tests.legacy_chat.rooms import our_room
from tests.support import OURS

NAMES = sorted(RANGES)

# Maximum turns in a second of the test's clock: the sweeps of the shortest --idle.
BUSY = 100

anything = st.one_of(
    st.integers(),
    st.sampled_from([10**400, -(10**400), 10**5000, 1 << 31, 1 << 63, -1, True, False]),
    st.floats(),
    st.sampled_from([5e-324, 1e-307, 1e306, math.inf, -math.inf, math.nan, -0.0]),
    st.decimals(),
    st.fractions(),
    st.sampled_from(
        [Decimal("sNaN"), Decimal("1e400"), Fraction(1, 3), None, b"5", []]
    ),
    st.text(),
)


class Clock:
    """The clock of timers and limits."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic(self) -> float:
        return self.now


def inside(name: str) -> st.SearchStrategy[Any]:
    """Values inside a range, with both ends."""
    expected = RANGES[name]
    ends: list[float] = [
        expected.least,
        expected.most,
        getattr(Limits, name, expected.least),
    ]
    if expected.or_zero:
        ends.append(0)
    if expected.whole:
        more: st.SearchStrategy[float] = st.integers(
            int(expected.least), int(expected.most)
        )
    else:
        ends += [math.nextafter(expected.least, math.inf)]
        more = st.floats(expected.least, expected.most)
    return st.sampled_from(ends) | more


# Values of these are given to each server. The system chooses the port.
OPTIONS = st.fixed_dictionaries(
    {name: inside(name) for name in NAMES if name not in ("port", "grace")}
)


def runs(loop: str, server_options: dict[str, Any], grace: float) -> None:
    """Exchange a message with a client; then check that the loop is not busy."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compat.scheduler.time", clock)
        patch.setattr("legacy_chat.idle.time", clock)
        patch.setattr("legacy_chat.rate_limit.time", clock)
        with our_room(loop, **server_options) as room:
            scheduler = compat.scheduler.scheduler_of(asyncore.socket_map)

            def turn() -> None:
                compat.loop(0, count=1, loop=loop)
                clock.now += scheduler.next_timeout(60.0) or 0.0

            peer = room.join()
            peer.send("hi!")
            for _ in range(1000):
                if peer.receive_available() == b"hi!" or peer.ended:
                    break
                turn()
            # Read byte by byte, a message may take longer than the idle limit.
            assert peer.got == b"hi!" or server_options["idle"]
            turns, end = 0, clock.now + 1.0
            while clock.now < end:
                turn()
                turns += 1
            assert turns <= BUSY
            room.server.shut_down(grace)


@pytest.mark.parametrize("loop", OURS)
@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, grace=inside("grace"))
def test_every_value_in_range_runs_with_every_other(
    loop: str, options: dict[str, Any], grace: float
) -> None:
    runs(loop, options, grace)


@pytest.mark.parametrize("name", [each for each in NAMES if each != "grace"])
@settings(max_examples=60, deadline=None)
@given(value=anything)
def test_value_out_of_range_is_refused_with_a_reason(name: str, value: Any) -> None:
    if RANGES[name].has(value) or (name == "port" and value is None):
        return
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # asserted below
        ChatServer(**{"host": "127.0.0.1", "port": 0, name: value})
    message = str(refused.value)
    assert message.startswith(f"{name} must be ")
    assert ", got " in message
    assert message.isprintable()
    assert len(message) < 200
    assert not asyncore.socket_map


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=st.text() | st.floats().map(repr) | st.integers().map(str))
def test_option_and_keyword_accept_the_same_numbers(name: str, text: str) -> None:
    spelled, message = read(name, text)
    if message:
        assert message.startswith("must be ")
        assert message.isprintable()
        assert not (text.isdecimal() and RANGES[name].has(int(text)))
    else:
        check(name, spelled)


def read(name: str, text: str) -> tuple[float, str]:
    """Return the number, or the reason of its rejection."""
    try:
        return RANGES[name].parse(text), ""
    except ValueError as error:
        return -1, str(error)
