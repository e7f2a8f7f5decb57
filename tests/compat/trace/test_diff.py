"""Differences between two traces of one scenario."""

from __future__ import annotations

import asyncore
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import compat
from compat.trace.diff import TraceDifference, first_difference
from compat.trace.model import Turn
from compat.trace.reader import TraceError, read_lines, read_trace
from legacy_chat import ChatSession
from tests.compat.trace.strategies import files
from tests.compat.trace.synthetic import Room, Trace
from tests.legacy_chat.rooms import original_room, our_room
from tests.support import ORIGINALS, OURS, Peer


def diff(a: Trace, b: Trace, **options: Any) -> TraceDifference | None:
    return first_difference(a.read()[0], b.read()[0], **options)


def found(a: Trace, b: Trace, **options: Any) -> TraceDifference:
    difference = diff(a, b, **options)
    assert difference is not None
    return difference


def trace(
    *calls: tuple[str, bytes], port: int = 40_000, end: str = "closed", **kinds: Any
) -> Trace:
    """Return a trace of two sessions; each call is (session and method, bytes)."""
    made = Trace(**kinds)
    sessions = {name: made.open("Session", 7) for name in "ab"}
    for place, channel in enumerate(sessions.values()):
        peer = f"127.0.0.1:{port + place}"
        made.state(channel, status="connected", peer=peer)
    for name, data in calls:
        made.turn(read=[sessions[name[0]]])
        made.calls(name[2:], sessions[name[0]], data=data, given=True)
    if end:
        made.end(end)
    return made


COLLECT, PUSH = "a.collect_incoming_data", "b.push"
HELLO = (COLLECT, b"hello"), (PUSH, b"hello")


def test_calls_may_move_to_other_turns() -> None:
    a, b = Trace(), Trace()
    for made, apart in ((a, True), (b, False)):
        channels = [made.open("Session", 7 + apart), made.open("Session", 9 - apart)]
        made.turn(by="select" if apart else "selectors", read=channels)
        for channel in channels:
            if apart:
                made.turn(why="timeout", waited=99, asked=3)
            made.advance(1000 * apart)
            made.calls("collect_incoming_data", channel, data=b"hi", given=True)
            for _ in range(1 + apart):
                made.calls("handle_write", channel, out=2 - apart)
        made.end()
    assert diff(a, b) is None
    assert diff(b, a) is None


def test_order_between_channels_counts_only_if_strict() -> None:
    a, b = trace(*HELLO), trace(*reversed(HELLO))
    assert diff(a, b) is None
    strictly = found(a, b, strict=True)
    assert (strictly.kind, strictly.key, strictly.number) == (
        "channel",
        ("Session", 1),
        1,
    )


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ((COLLECT, b"hell"), "bytes"),
        ((COLLECT, b"jello"), "bytes"),
        (("a.found_terminator", b"hello"), "method"),
    ],
)
def test_different_call_is_a_difference(other: tuple[str, bytes], what: str) -> None:
    same = (COLLECT, b"1"), (PUSH, b"1"), (COLLECT, b"2")
    difference = found(trace(*same, *HELLO), trace(*same, other, HELLO[1]))
    assert (difference.kind, difference.key, difference.number) == (
        what,
        ("Session", 1),
        3,
    )
    assert [step.data for step, _ in difference.before] == [b"1", b"2"]
    assert difference.a is not None
    assert (difference.a.turn, difference.a.data) == (4, b"hello")


def test_first_difference_is_the_earliest_in_time() -> None:
    a = trace((PUSH, b"1"), (COLLECT, b"2"))
    b = trace((PUSH, b"x"), (COLLECT, b"y"))
    assert found(a, b).key == ("Session", 2)


def test_missing_call_is_a_difference() -> None:
    a, b = trace(*HELLO), trace(HELLO[0])
    assert (found(a, b).kind, found(a, b).key) == ("missing", ("Session", 2))
    assert (found(b, a).kind, found(b, a).key) == ("more", ("Session", 2))


def test_call_of_only_one_trace_may_be_the_first_difference() -> None:
    a = trace((COLLECT, b"1"), (COLLECT, b"2"))
    b = trace((COLLECT, b"1"), (PUSH, b"1"), (COLLECT, b"3"))
    assert found(a, b).kind == "more"
    assert found(b, a).kind == "missing"


@pytest.mark.parametrize("end", ["", "full"])
def test_calls_after_the_end_of_a_cut_trace_are_ignored(
    end: str,
) -> None:
    a, b = trace(*HELLO), trace(HELLO[0], end=end)
    assert diff(a, b) is None
    assert diff(b, a) is None


def greeting(a: int, b: int = 0) -> bytes:
    return f"用户127.0.0.1{a} 说:hello".encode() + (str(b).encode() if b else b"")


def test_corresponding_ports_are_equal() -> None:
    a = trace((PUSH, greeting(40_000, 40_001)), (PUSH, greeting(40_001)))
    b = trace((PUSH, greeting(5_000, 5_001)), (PUSH, greeting(5_001)), port=5_000)
    assert diff(a, b) is None


def test_ports_that_do_not_correspond_are_a_difference() -> None:
    a = trace((PUSH, greeting(40_000)), (PUSH, greeting(40_000)))
    b = trace((PUSH, greeting(5_000)), (PUSH, greeting(5_001)), port=5_000)
    assert (found(a, b).kind, found(a, b).number) == ("bytes", 2)


def test_number_other_than_a_port_is_compared_literally() -> None:
    a = trace((PUSH, b"costs 40000"))
    b = trace((PUSH, b"costs 7777"), port=5_000)
    assert found(a, b).kind == "bytes"


def test_ports_are_found_where_the_payload_is_cut_in_them() -> None:
    a = trace((PUSH, greeting(40_000)), payload=18)
    b = trace((PUSH, greeting(50_000)), payload=18, port=50_000)
    assert diff(a, b) is None


def test_sizes_are_compared_without_payloads() -> None:
    a = trace((PUSH, b"hello"), payload=None)
    assert diff(a, trace((PUSH, b"jello"), payload=None)) is None
    assert found(a, trace((PUSH, b"hell"), payload=None)).kind == "bytes"


def test_exceptions_are_compared_without_memory_addresses() -> None:
    def failing(error: str) -> Trace:
        made = Trace()
        channel = made.open("Session", 7)
        made.turn(read=[channel])
        made.calls("handle_close", channel, error=error)
        made.end()
        return made

    one = failing("TypeError: <Session at 0x7f0011223344> is odd")
    assert diff(one, failing("TypeError: <Session at 0x7f99aabbccdd> is odd")) is None
    assert found(one, failing("TypeError: it is odd")).kind == "error"
    assert found(one, failing("")).kind == "error"


def test_second_handle_close_of_poll_is_ignored() -> None:
    def closing(turns: int, times: int) -> Trace:
        made = Trace()
        channel = made.open("Session", 7)
        for _ in range(turns):
            made.turn(read=[channel])
            for _ in range(times):
                with made.call("handle_close", channel):
                    made.calls("close", channel)
        made.end()
        return made

    assert diff(closing(1, 1), closing(1, 2)) is None
    assert found(closing(1, 1), closing(1, 2), strict=True).kind == "more"
    assert found(closing(1, 1), closing(2, 1)).kind == "more"


def test_overridden_handle_read_calls_are_compared() -> None:
    def reading(times: int, own: bool) -> Trace:
        made = Trace()
        channel = made.open("Session", 7)
        code = made.code("def handle_read(self): ...", "Session")
        f = {} if own else {"f": code}
        for _ in range(times):
            made.turn(read=[channel])
            made.calls("handle_read", channel, data=b"hi", **{"in": 2}, **f)
        made.end()
        return made

    assert diff(reading(1, own=True), reading(2, own=True)) is None
    assert found(reading(1, own=False), reading(2, own=False)).kind == "more"


def rooms(change: Callable[[Room, int], None]) -> list[Trace]:
    """Return two runs of one conversation; the second has another end."""
    traces = []
    for end in (lambda room, who: room.send(who, b"bye"), change):
        room = Room()
        anna, bert = room.enter(), room.enter()
        for calls in range(50):
            room.send_together({anna: b"%d" % calls, bert: b"hello"})
        end(room, anna)
        room.leave(bert)
        room.trace.end()
        traces.append(room.trace)
    return traces


def test_size_of_an_audience_is_a_difference_of_its_caller() -> None:
    a, b = rooms(lambda room, who: (room.enter(), room.send(who, b"bye"))[0])
    difference = found(a, b)
    assert (difference.kind, difference.key) == ("more", ("ChatServer", 1))


def test_lines_have_the_difference_and_its_context() -> None:
    a, b = rooms(lambda room, who: room.send(who, b"I shout"))
    assert list(found(a, b).lines()) == [
        "ChatSession 1, call 151: other bytes",
        '  a: turn 53, line 676: collect_incoming_data "bye"',
        '  b: turn 53, line 676: collect_incoming_data "I sh"',
        "equal calls before it:",
        '  turn 52 in a, turn 52 in b: collect_incoming_data "49"',
        '  turn 52 in a, turn 52 in b: push "49"',
        '  turn 52 in a, turn 52 in b: push "用户127.0.0.1:40014 说:49", 28 bytes to 1',
    ]


def test_two_runs_of_the_same_are_the_same_strictly() -> None:
    a, b = rooms(lambda room, who: room.send(who, b"bye"))
    assert diff(a, b, strict=True) is None


def conversation(room: Any) -> None:
    """Play three peers that wait for each other; the tutorial's typical events."""
    a, b, c = (room.join() for _ in range(3))
    for words, echo in (("hello", "hell"), (" world", "o wor"), ("你好!", "你好!")):
        a.send(words)
        room.until(lambda echo=echo: _all_have(echo, a, b, c))
        b.send(f"{echo}?")
        room.until(lambda echo=echo: _all_have(f"{echo}?", a, b, c))
    c.send("I shout")
    room.until(lambda: c.ended and _all_have("退出聊天", a, b))
    a.close()
    room.until(lambda: len(asyncore.socket_map) == 2)


def _all_have(words: str, *peers: Peer) -> bool:
    return all(words.encode() in peer.got for peer in peers)


def recorded(path: Path, entered: AbstractContextManager[Any]) -> list[Turn]:
    with compat.tracing(path), entered as room:
        conversation(room)
    return list(read_trace(path))


def test_one_room_makes_the_same_calls_on_each_loop(tmp_path: Path) -> None:
    one, *others = [recorded(tmp_path / loop, our_room(loop)) for loop in OURS]
    assert [first_difference(one, each) for each in others] == [None] * len(others)
    assert first_difference(one, others[-1], strict=True) is None


def test_original_room_makes_the_same_calls_on_each_loop(tmp_path: Path) -> None:
    one, *others = [
        recorded(tmp_path / loop, original_room(loop)) for loop in (*ORIGINALS, *OURS)
    ]
    assert [first_difference(one, each) for each in others] == [None] * len(others)


def test_changed_program_differs_at_the_change(tmp_path: Path) -> None:
    class Loud(ChatSession):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data.replace(b"world", b"worms"))

    Loud.__name__ = "ChatSession"
    one = recorded(tmp_path / "one", our_room("select"))
    other = recorded(tmp_path / "other", our_room("selectors", session_class=Loud))
    difference = first_difference(one, other)
    assert difference is not None
    assert (difference.kind, difference.key) == ("bytes", ("ChatSession", 1))
    assert difference.a is not None
    assert difference.b is not None
    assert (difference.a.name, difference.b.data) == ("push", b"o worms")


@given(files(), files())
def test_any_two_traces_can_be_compared(a: bytes, b: bytes) -> None:
    def turns(file: bytes) -> Iterator[Turn]:
        return read_lines(file.splitlines(keepends=True))

    for strict in (False, True):
        with contextlib.suppress(TraceError):
            difference = first_difference(turns(a), turns(b), strict=strict)
            for line in difference.lines() if difference else ():
                line.encode()
                assert line.isprintable()
        with contextlib.suppress(TraceError):
            assert first_difference(turns(a), turns(a), strict=strict) is None
