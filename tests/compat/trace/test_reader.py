"""The reader on any file."""

from __future__ import annotations

import json

import pytest

from compat.trace.model import Call, StateChange, walk
from compat.trace.reader import Reader, read_lines
from tests.compat.trace.synthetic import Trace


@pytest.mark.parametrize(
    "line",
    [
        b'{"e": "call", "do": 5}\n',
        b'{"e": "call", "do": "push", "ch": [1]}\n',
        b'{"e": "call", "do": "push", "d": "1"}\n',
        b'{"e": "call", "do": "push", "us": %d}\n' % 10**400,
        b'{"e": "call", "do": "push", "data": "\\ud800"}\n',
        b'{"e": "call", "do": "push", "ch": -1}\n',
        b'{"e": "call", "do": "push", "to": "\\u0001"}\n',
        b'{"e": "timer", "in": NaN}\n',
        b'{"e": "woke", "read": ["1"]}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_line_with_a_wrong_type_ends_the_reading(line: bytes) -> None:
    trace = Trace()
    trace.calls("push")
    lines = [*trace.bytes().splitlines(True), line]
    trace.calls("close")
    lines += trace.bytes().splitlines(True)[-1:]
    reader = Reader()
    (turn,) = read_lines(lines, reader)
    assert [call.name for call in turn.calls()] == ["push"]
    assert not reader.is_intact


def test_calls_may_be_nested_as_deep_as_a_program_can_go() -> None:
    trace = Trace()
    deep = 5_000
    for d in range(deep, -1, -1):
        trace.lines.append(json.dumps({"e": "call", "t": d, "d": d, "do": str(d)}))
    (turn,), _ = trace.read()
    assert [call.name for call in turn.calls()] == [str(d) for d in range(deep + 1)]


def test_walk_returns_to_a_call_after_its_children() -> None:
    trace = Trace()
    with trace.call("handle_read"):
        trace.calls("push")
    trace.calls("close")
    (turn,), _ = trace.read()
    steps = [
        (call.name, begins)
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


def states(trace: Trace) -> list[StateChange]:
    return [
        entry
        for turn in trace.read()[0]
        for entry, _ in walk(turn.entries)
        if isinstance(entry, StateChange)
    ]


def test_state_change_has_the_terminator_of_its_time() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.state(anna, terminator=b"out")
    trace.state(anna, backlog=1)
    trace.state(anna, terminator=10)
    assert [each.terminator for each in states(trace)] == ["out", "out", 10]


def test_held_back_bytes_are_the_end_of_the_read_data() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    for data in (b"a\r", b"\n", b"b"):
        trace.calls("handle_read", anna, data=data, **{"in": len(data)})
        trace.state(anna, held=2)
    assert [each.held_bytes for each in states(trace)] == [b"a\r", b"\r\n", b"\nb"]


def test_held_back_bytes_of_a_truncated_read_are_unknown() -> None:
    trace = Trace(payload=2)
    anna = trace.open("Session", 6)
    for data in (b"ho", b"hello"):
        trace.calls("handle_read", anna, data=data, **{"in": len(data)})
        trace.state(anna, held=1)
    assert [each.held_bytes for each in states(trace)] == [b"o", None]
