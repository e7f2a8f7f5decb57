"""What a file may hold, and what the reader makes of it."""

from __future__ import annotations

import json

import pytest

from compat.trace.reading import Call, Reader, State, read_lines, walk
from tests.compat.trace.making import Room, Trace


@pytest.mark.parametrize(
    "line",
    [
        b'{"e": "call", "do": 5}\n',
        b'{"e": "call", "do": "push", "ch": [1]}\n',
        b'{"e": "call", "do": "push", "d": "1"}\n',
        b'{"e": "call", "do": "push", "us": %d}\n' % 10**400,
        b'{"e": "call", "do": "push", "data": "\\ud800"}\n',
        b'{"e": "call", "do": "push", "ch": -1}\n',
        b'{"e": "timer", "in": NaN}\n',
        b'{"e": "woke", "read": ["1"]}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_line_of_another_kind_is_the_end_of_what_can_be_read(line: bytes) -> None:
    trace = Trace()
    trace.calls("push")
    lines = [*trace.bytes().splitlines(True), line]
    trace.calls("close")
    lines += trace.bytes().splitlines(True)[-1:]
    reader = Reader()
    (turn,) = read_lines(lines, reader)
    assert [call.do for call in turn.calls()] == ["push"]
    assert not reader.whole


def test_calls_may_be_nested_as_deep_as_a_program_can_go() -> None:
    trace = Trace()
    deep = 5_000
    for d in range(deep, -1, -1):
        trace.lines.append(json.dumps({"e": "call", "t": d, "d": d, "do": str(d)}))
    (turn,), _ = trace.read()
    assert [call.do for call in turn.calls()] == [str(d) for d in range(deep + 1)]


def test_a_walk_comes_back_to_a_call_after_what_is_in_it() -> None:
    trace = Trace()
    with trace.call("handle_read"):
        trace.calls("push")
    trace.calls("close")
    (turn,), _ = trace.read()
    steps = [
        (call.do, begins)
        for call, begins in walk(turn.entries)
        if isinstance(call, Call)
    ]
    assert steps == [
        ("handle_read", True),
        ("push", True),
        ("push", False),
        ("handle_read", False),
        ("close", True),
        ("close", False),
    ]


def test_a_state_knows_what_its_channel_waited_for_then() -> None:
    room = Room()
    anna = room.enter()
    room.says(anna, b"hello")
    room.trace.state(anna, terminator=10)
    turns, _ = room.trace.read()
    states = [
        (entry.fields.get("held"), entry.terminator)
        for entry, _ in walk(turns[-1].entries)
        if isinstance(entry, State)
    ]
    assert (1, "out") in states
    assert states[-1] == (None, 10)
