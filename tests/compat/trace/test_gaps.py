"""A trace with missing lines is shown, and its gaps prove nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.trace.cli import main
from compat.trace.diff import first_difference
from compat.trace.doctor import examine
from compat.trace.model import Call, Turn, walk
from compat.trace.reader import Reader, read_lines
from compat.trace.render.html import page
from compat.trace.render.mermaid import diagram
from compat.trace.render.perfetto import chunks
from compat.trace.render.text import lines
from tests.compat.trace.synthetic import Room, Trace, hello, large

Capture = pytest.CaptureFixture[str]

# Two ends of a gap, as parts of a trace.
Gap = tuple[float, float]


def lost(trace: Iterable[str], *gaps: tuple[int, int]) -> list[bytes]:
    """Return a trace's lines without the dropped ones, from the last gap on."""
    kept = [f"{line}\n".encode() for line in trace]
    for begin, end in sorted(gaps, reverse=True):
        at = json.loads(kept[end - 1]).get("t", 0)
        kept[begin:end] = [b'{"e":"lost","t":%d,"n":%d}\n' % (at, end - begin)]
    return kept


def read(file: Iterable[bytes]) -> tuple[list[Turn], Reader]:
    reader = Reader()
    return list(read_lines(file, reader)), reader


def placed(count: int, gaps: Iterable[Gap]) -> list[tuple[int, int]]:
    """Draw gaps that do not overlap, in a trace of that many lines after the header."""
    edges = sorted({1 + int(part * (count - 1)) for gap in gaps for part in gap})
    return list(zip(edges[::2], edges[1::2], strict=False))


def index_of(trace: Trace, what: str, number: int = 0) -> int:
    found = [at for at, line in enumerate(trace.lines) if what in line]
    return found[number]


def test_gap_is_counted_and_keeps_its_place() -> None:
    trace = hello()
    begin = index_of(trace, '"n":3,')
    turns, reader = read(lost(trace.lines, (begin + 1, begin + 4)))
    assert (reader.lost_lines, reader.gaps, reader.is_intact) == (3, 1, True)
    assert [turn.number for turn in turns if turn.has_gap] == [3]
    text = "\n".join(lines(turns[3], reader))
    assert "3 lines of the trace are missing here" in text
    assert "waits still" not in text


def test_call_gets_nothing_that_began_before_it() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    with trace.call("handle_read", anna, us=5):
        trace.calls("push", anna, us=1)
    begin = index_of(trace, "handle_read")
    trace.calls("close", anna)
    (turn,), _ = read(lost(trace.lines, (begin, begin + 1)))
    assert [call.name for call in turn.calls()] == ["push", "close"]
    close = next(call for call in turn.calls() if call.name == "close")
    assert not close.children


def test_gap_inside_of_a_call_stays_inside() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    with trace.call("handle_read", anna):
        for word in (b"a", b"b", b"c"):
            trace.calls("push", anna, data=word, given=True)
    begin = index_of(trace, '"b"')
    (turn,), _ = read(lost(trace.lines, (begin, begin + 1)))
    (call,) = (each for each in turn.entries if isinstance(each, Call))
    inside = [each for each, begins in walk(call.children) if begins]
    assert [getattr(each, "data", None) for each in inside] == [b"a", None, b"c"]


def test_wait_of_a_later_turn_is_not_the_turns_own() -> None:
    trace = Trace()
    trace.turn(why="timeout", waited=100)
    trace.turn(why="ready", waited=200)
    begin = index_of(trace, '"n":2,')
    turns, _ = read(lost(trace.lines, (begin, begin + 1)))
    assert [turn.waited for turn in turns if turn.number] == [100]


def test_views_report_missing_lines(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.trace"
    trace = hello()
    begin = index_of(trace, '"n":3,')
    path.write_bytes(b"".join(lost(trace.lines, (begin + 1, begin + 5))))
    message = f"{path}: 4 lines missing in 1 place: the reader of the trace was"
    for view in ("text", "mermaid", "html", "perfetto", "doctor"):
        main([view, str(path)])
        out, err = capsys.readouterr()
        assert message in err
        assert "missing" in out or view == "html"
    assert main(["diff", str(path), str(path)]) == 0
    assert message in capsys.readouterr().err


def test_gap_is_in_every_selection(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.trace"
    trace = hello()
    begin = index_of(trace, '"n":3,')
    path.write_bytes(b"".join(lost(trace.lines, (begin + 3, begin + 5))))
    for part in (("--channel", "2"), ("--calls-only",)):
        assert main(["text", "--turns", "3", *part, str(path)]) == 0
        assert "2 lines of the trace are missing here" in capsys.readouterr().out


def gaps() -> st.SearchStrategy[list[Gap]]:
    part = st.floats(0, 1, exclude_max=True)
    return st.lists(st.tuples(part, part), min_size=1, max_size=6)


def busy() -> Trace:
    """Return a healthy room's trace: all clients read, nothing fails."""
    room = Room()
    inside = [room.enter() for _ in range(5)]
    for turn in range(60):
        room.send(inside[turn % 5], b"message %d" % turn)
        room.quiet(2_000)
    room.leave(inside[0])
    room.send(inside[1], b"out")
    room.trace.end()
    return room.trace


BUSY = busy().lines


@settings(max_examples=25)
@given(gaps())
def test_doctor_finds_nothing_in_a_healthy_trace_with_gaps(where: list[Gap]) -> None:
    places = placed(len(BUSY), where)
    turns, reader = read(lost(BUSY, *places))
    found = [each.rule for each in examine(turns, reader)]
    assert found == (["gaps"] if places else [])


@settings(max_examples=25)
@given(gaps())
def test_gaps_are_not_a_difference(where: list[Gap]) -> None:
    whole, _ = read(f"{line}\n".encode() for line in BUSY)
    torn, _ = read(lost(BUSY, *placed(len(BUSY), where)))
    for strict in (False, True):
        assert first_difference(whole, torn, strict=strict) is None
        assert first_difference(torn, whole, strict=strict) is None


SHOWN: dict[str, Callable[[list[Turn], Reader], Any]] = {
    "text": lambda turns, reader: [
        line for turn in turns for line in lines(turn, reader)
    ],
    "mermaid": diagram,
    "html": page,
    "perfetto": lambda turns, reader: list(chunks(turns, reader)),
}
MANY = large(400, clients=8).lines


@pytest.mark.parametrize("view", SHOWN)
@settings(max_examples=25)
@given(where=gaps())
def test_views_show_a_trace_with_gaps(view: str, where: list[Gap]) -> None:
    places = placed(len(MANY), where)
    turns, reader = read(lost(MANY, *places))
    assert reader.is_intact
    assert reader.lost_lines == sum(end - begin for begin, end in places)
    SHOWN[view](turns, reader)


def finding(trace: Trace, *places: tuple[int, int]) -> list[str]:
    turns, reader = read(lost(trace.lines, *places))
    return [each.rule for each in examine(turns, reader) if each.rule != "gaps"]


def spins(turns: int) -> Trace:
    """Return a trace of a writer that is ready in each turn, with nothing to write."""
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.state(anna, status="connected")
    for _ in range(turns):
        trace.turn(write=[anna], waited=3, channels=1)
        trace.calls("handle_write", anna, us=4)
    trace.end()
    return trace


def test_fault_between_gaps_is_found() -> None:
    trace = spins(200)
    assert finding(trace, (10, 20), (500, 520)) == ["busy-writer"]


def test_turns_on_two_sides_of_a_gap_are_not_in_a_row() -> None:
    trace = spins(80)
    middle = len(trace.lines) // 2
    assert finding(trace, (middle, middle + 1)) == []


def test_lost_wait_of_an_inner_loop_makes_no_slow_callback() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.turn(read=[anna], channels=1)
    with trace.call("handle_read", anna):
        trace.turn(read=[anna], waited=5_000_000, channels=1)
    trace.turn(why="timeout", waited=9)
    trace.end()
    assert finding(trace) == []
    begin = index_of(trace, '"woke"', 1)
    assert finding(trace, (begin, begin + 1)) == []


def test_write_after_a_gap_is_healthy() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    for _ in range(2):
        trace.turn(read=[anna], channels=1)
        with trace.call("close", anna):
            trace.state(anna, status="closed")
        trace.turn(why="timeout")
        trace.event("open", ch=anna, fd=6, **{"class": "Session"}, module="room")
        trace.calls("push", anna, data=b"hello", given=True)
    trace.end()
    assert finding(trace) == []
    begin = index_of(trace, '"open"', 1)
    assert finding(trace, (begin, begin + 1)) == []
