"""A trace for ui.perfetto.dev, in Chrome's trace event format."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given

from compat.trace.reader import Reader, read_lines
from compat.trace.render.perfetto import chunks
from tests.compat.trace.strategies import files
from tests.compat.trace.synthetic import Room, Trace, hello

Events = list[dict[str, Any]]


def events(file: bytes) -> Events:
    reader = Reader()
    turns = read_lines(io.BytesIO(file), reader)
    document = json.loads("".join(chunks(turns, reader)), parse_constant=refuse)
    assert list(document) == ["displayTimeUnit", "traceEvents"]
    found: Events = document["traceEvents"]
    return found


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def check_nesting(found: Events) -> None:
    """Slices of a track end before those around them, and begin in their order."""
    threads = {each["tid"] for each in found}
    for thread in threads:
        ends: list[int] = []
        now = 0
        for each in found:
            if each["tid"] != thread or each["ph"] != "X":
                continue
            begin, end = each["ts"], each["ts"] + each["dur"]
            assert now <= begin <= end
            now = begin
            while ends and ends[-1] <= begin and (end > ends[-1]):
                ends.pop()
            assert not ends or end <= ends[-1]
            ends.append(end)


def test_turn_has_slices_for_interest_wait_and_calls() -> None:
    room = Room()
    room.send(room.enter(), b"hello")
    names = [
        (each["name"], each["dur"])
        for each in events(room.trace.bytes())
        if each["ph"] == "X"
    ]
    assert names[-9:] == [
        ("turn 2", 299),
        ("interest", 5),
        ("wait", 250),
        ("ChatSession#2.handle_read", 26),
        ("ChatSession#2.collect_incoming_data", 15),
        ("ChatSession#2.push", 3),
        ("BroadcastGroup.push", 4),
        ("flush", 18),
        ("ChatSession#2.send", 14),
    ]


def test_queues_and_held_back_bytes_are_counters() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.state(anna, backlog=4, queued=1)
    trace.state(anna, held=1, backlog=0)
    trace.state(anna, status="closed")
    assert [
        (each["name"], each["args"]["bytes"])
        for each in events(trace.bytes())
        if each["ph"] == "C"
    ] == [
        ("Session#1 backlog", 4),
        ("Session#1 backlog", 0),
        ("Session#1 held", 1),
        ("Session#1 backlog", 0),
        ("Session#1 held", 0),
    ]


def test_tracks_have_names_and_open_and_close_are_instants() -> None:
    found = events(hello().bytes())
    assert [each["args"]["name"] for each in found if each["ph"] == "M"] == [
        "room.py 19528",
        "thread 1",
    ]
    instants = [each["name"] for each in found if each["ph"] == "i"]
    assert "ChatSession#2 opened: descriptor 6, room.ChatSession" in instants
    assert "ChatSession#2 is closed" in instants


def test_slices_nest_despite_rounding() -> None:
    trace = Trace()
    for t, us, d in ((10, 5, 2), (14, 9, 1), (9, 13, 0), (21, 7, 0)):
        line = {"e": "call", "t": t, "us": us, "do": "f"}
        trace.lines.append(json.dumps(line | ({"d": d} if d else {})))
    trace.turn(asked=3, waited=1)
    check_nesting(events(trace.bytes()))


def test_slices_of_a_conversation_nest() -> None:
    check_nesting(events(hello().bytes()))


@given(files())
def test_slices_of_any_trace_nest_in_order_of_time(file: bytes) -> None:
    found = events(file)
    check_nesting(found)
    times: dict[int, int] = {}
    for each in found:
        if each["ph"] != "M":
            assert each["ts"] >= times.get(each["tid"], 0)
            times[each["tid"]] = each["ts"]
