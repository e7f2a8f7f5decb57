"""The doctor finds each kind of fault, and none in a healthy room."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from itertools import islice
from typing import Any

import pytest
from hypothesis import given

from compat.trace import doctor
from compat.trace.diff import first_difference
from compat.trace.doctor.findings import Finding, Severity
from compat.trace.doctor.thresholds import Thresholds
from compat.trace.reader import Reader, TraceError, read_lines
from tests.compat.trace.strategies import files
from tests.compat.trace.synthetic import Room, Trace, large

TOO_MANY = "OSError: [Errno 24] Too many open files"


def examine(trace: Trace, **limits: Any) -> list[Finding]:
    return doctor.examine(*trace.read(), Thresholds(**limits))


def only(trace: Trace, **limits: Any) -> Finding:
    """Return the only finding."""
    (finding,) = examine(trace, **limits)
    return finding


def session(trace: Trace, kind: str = "Session") -> int:
    channel = trace.open(kind, 7)
    trace.state(channel, status="connected", peer="127.0.0.1:40000")
    return channel


def listener(trace: Trace) -> int:
    channel = trace.open("Server", 4)
    trace.state(channel, status="listening", local="0.0.0.0:19528")
    return channel


def test_busy_room_is_healthy() -> None:
    room = large(10_000)
    assert [each.rule for each in examine(room)] == ["full"]


def test_report_of_a_trace_full_at_once_names_no_place() -> None:
    trace = Trace()
    trace.end("full")
    finding = only(trace)
    assert finding.rule == "full"
    assert not any("look at" in line for line in doctor.report([finding]))


def test_busy_room_without_slow_readers_is_healthy() -> None:
    room = Room()
    inside = [room.enter() for _ in range(40)]
    for number in range(100):
        room.send_together(dict.fromkeys(inside[:: 1 + number % 7], b"hello" * number))
    for each in inside[::2]:
        room.send(each, b"I shout")
    for each in inside[1::2]:
        room.leave(each)
    room.trace.end()
    assert examine(room.trace) == []


def test_slow_callback_is_the_innermost_with_known_code() -> None:
    trace = Trace()
    channel = session(trace)
    code = trace.code(
        "def collect_incoming_data(self, data): ...", "Session", "a.py", 8
    )
    for us in (99_000, 400_000, 150_000, 150_000):
        trace.turn(read=[channel])
        with (
            trace.call("handle_read", channel),
            trace.call("collect_incoming_data", channel, f=code),
        ):
            trace.calls("push", channel, us=us)
    finding = only(trace)
    assert finding.rule == "slow-callback"
    assert finding.summary.startswith(
        "Session.collect_incoming_data blocks the loop: 3 times for 100 ms or more, "
        "400 ms at worst"
    )
    assert (finding.count, finding.location.turn, finding.where) == (3, 2, "a.py:8")
    assert finding.channel == "Session#1 (127.0.0.1:40000)"


@pytest.mark.parametrize("us", [250_000, 400_000, 800_000])
def test_one_noticeable_block_is_a_finding(us: int) -> None:
    finding = only(blocked(us))
    assert finding.rule == "slow-callback"
    assert finding.summary.startswith("Session.handle_read blocks the loop: once for")


def test_delay_of_a_busy_machine_is_healthy() -> None:
    assert examine(blocked(249_000, 60_000, 99_999, 240_000)) == []


def test_severity_of_a_block_depends_on_its_share_of_the_time() -> None:
    for waits, us, severity in [
        (20_000_000, 400_000, Severity.DELAYS),
        (2_000_000, 400_000, Severity.STALLS),
        (200_000_000, 1_000_000, Severity.STALLS),
    ]:
        trace = blocked(us)
        trace.turn(why="timeout", waited=waits)
        assert only(trace).severity is severity


def test_delay_sorts_after_leak_and_before_swallowed_error() -> None:
    trace = list(late_writes(turns=100))[-1]
    trace.turn(read=[2], waited=60_000_000)
    trace.calls("handle_read", 2, us=400_000, **{"in": 5})
    trace.turn(why="timer")
    trace.calls("timer", error="KeyError: 3", where="a.py:3")
    assert [each.rule for each in examine(trace)] == [
        "write-after-close",
        "slow-callback",
        "swallowed-error",
    ]


def test_threshold_of_a_slow_callback_can_be_set() -> None:
    trace = blocked(50_000)
    assert doctor.examine(*trace.read(), Thresholds().with_slow(0.06)) == []
    (finding,) = doctor.examine(*trace.read(), Thresholds().with_slow(0.05))
    assert "once for 50.0 ms, 99% of the time" in finding.summary


def blocked(*each: int) -> Trace:
    """Return a trace of a handler that takes these microseconds, turn by turn."""
    trace = Trace()
    channel = session(trace)
    code = trace.code("def handle_read(self): ...", "Session", "a.py", 8)
    for us in each:
        trace.turn(read=[channel])
        trace.calls("handle_read", channel, us=us, f=code, **{"in": 5})
    return trace


def test_handler_with_many_quick_calls_is_the_slow_one() -> None:
    trace = Trace()
    channel = session(trace)
    code = trace.code("def handle_read(self): ...", "Session", "a.py", 8)
    trace.turn(read=[channel])
    with trace.call("handle_read", channel, f=code):
        for _ in range(1_000):
            trace.calls("push", channel, us=1_000)
    finding = only(trace)
    assert finding.where == "a.py:8"
    assert finding.details == ["the worst one made 1,000 calls"]


def test_waits_of_a_nested_loop_are_healthy() -> None:
    trace = Trace()
    channel = session(trace)
    trace.turn(read=[channel])
    with trace.call("handle_read", channel, **{"in": 1}):
        trace.turn(waited=900_000, why="timeout")
    assert examine(trace) == []


def test_writable_that_is_always_true_is_a_busy_writer() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(5_000):
        trace.turn(write=[channel], waited=3, asked=2)
        trace.calls("handle_write", channel)
    finding = only(trace)
    assert finding.rule == "busy-writer"
    assert (finding.count, finding.location.turn) == (5_000, 1)
    assert finding.summary == (
        "Session.writable() is true with nothing to send: 5,000 turns without "
        "progress, 55.0 ms, 100% of the time"
    )


def test_channel_that_writes_in_each_turn_is_healthy() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(200):
        trace.turn(write=[channel], waited=3)
        trace.calls("handle_write", channel, out=100)
    assert examine(trace) == []


def spinning(turns: int, calm: int, **state: int) -> Trace:
    """Return a trace: writable() is true in some turns; data arrives in others."""
    trace = Trace()
    channel, other = session(trace), session(trace)
    trace.state(channel, **state)
    for _ in range(calm):
        trace.turn(read=[other])
        trace.calls("handle_read", other, **{"in": 5})
    for _ in range(turns):
        trace.turn(write=[channel], waited=3)
        trace.calls("handle_write", channel)
    return trace


def test_busy_writer_in_a_short_trace_is_a_finding() -> None:
    finding = only(spinning(turns=3, calm=20))
    assert (finding.rule, finding.count) == ("busy-writer", 3)
    assert finding.details[1] == "the trace has only 23 turns"
    # Microseconds of the interest update, of the wait and of the call.
    assert finding.weight == 3 * (8 + 3 + 6)


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(spinning(turns=2, calm=2), id="once or twice"),
        pytest.param(spinning(turns=3, calm=40), id="a small part of the turns"),
        pytest.param(spinning(turns=9, calm=2, queued=1), id="a record not sent"),
    ],
)
def test_writer_that_is_idle_for_a_moment_is_healthy(trace: Trace) -> None:
    assert examine(trace) == []


def test_channel_closed_between_turns_counts_as_idle_before() -> None:
    trace = spinning(turns=3, calm=5)
    trace.calls("close", 1)
    trace.state(1, status="closed")
    assert only(trace).count == 3


def test_channel_that_closes_in_the_third_turn_is_healthy() -> None:
    trace = spinning(turns=2, calm=5)
    trace.turn(write=[1], waited=3)
    with trace.call("handle_write", 1):
        trace.state(1, status="closed")
    assert examine(trace) == []


def test_spinning_channels_of_one_turn_count_once() -> None:
    trace = Trace()
    channels = [session(trace) for _ in range(5)]
    for turn in range(100):
        trace.turn(write=channels[: 1 + turn // 10], waited=3)
    finding = only(trace)
    assert finding.count == 100
    assert finding.details == ["100 in a row, from that turn on", "5 channels did so"]


def test_turn_that_waited_is_healthy() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(200):
        trace.turn(read=[channel], waited=20_000)
    assert examine(trace) == []


def test_listener_without_descriptors_spins() -> None:
    trace = Trace()
    channel = listener(trace)
    for _ in range(80):
        trace.turn(read=[channel], waited=2)
        trace.calls("handle_accept", channel, error=TOO_MANY, where="server.py:20")
        trace.calls("handle_error", channel, error=TOO_MANY, where="server.py:20")
    spin, hidden = examine(trace)
    assert (spin.rule, spin.count) == ("spinning-listener", 80)
    assert f"the last error: {TOO_MANY}" in spin.details
    assert (hidden.rule, hidden.count) == ("swallowed-error", 80)


def test_three_listener_errors_in_a_row_are_a_spin() -> None:
    trace = Trace()
    channel = listener(trace)
    for _ in range(3):
        trace.turn(read=[channel], waited=2)
        trace.calls("handle_accept", channel, error=TOO_MANY, where="server.py:20")
        trace.calls("handle_error", channel, error=TOO_MANY, where="server.py:20")
    trace.calls("close", channel)
    trace.state(channel, status="closed")
    assert [each.rule for each in examine(trace)] == [
        "spinning-listener",
        "swallowed-error",
    ]


def test_listener_shared_with_other_processes_is_healthy() -> None:
    trace = Trace()
    channel = listener(trace)
    for _ in range(40):
        trace.turn(read=[channel], waited=2)
        trace.calls("handle_accept", channel)
    assert examine(trace) == []


def test_listener_that_accepts_in_each_turn_is_healthy() -> None:
    trace = Trace()
    channel = listener(trace)
    for _ in range(200):
        trace.turn(read=[channel], waited=2)
        with trace.call("handle_accept", channel):
            session(trace)
    assert examine(trace) == []


def test_handle_close_that_does_not_close_is_an_ignored_end() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(60):
        trace.turn(read=[channel], waited=2)
        with trace.call("handle_read", channel):
            trace.calls("handle_close", channel)
    finding = only(trace)
    assert finding.rule == "ignored-end"
    assert finding.summary.startswith(
        "Session.handle_close does not close the channel: 60 turns"
    )


def test_ready_channel_that_does_not_read_is_an_idle_reader() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(60):
        trace.turn(read=[channel], waited=2)
        trace.calls("handle_read", channel)
    assert only(trace).rule == "unread-input"


def test_channel_with_a_partial_tls_record_is_healthy() -> None:
    # A part of a record has arrived, and then another part.
    trace = Trace()
    channel = session(trace)
    for _ in range(200):
        trace.turn(read=[channel], waited=2)
    for _ in range(40):
        trace.turn(write=[channel], waited=2)
    assert examine(trace) == []


def test_unread_urgent_data_spins() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(60):
        trace.turn(urgent=[channel], waited=2)
        trace.calls("handle_expt", channel)
    assert only(trace).rule == "unread-urgent-data"


def late_writes(turns: int) -> Iterator[Trace]:
    """Yield traces: one of two clients closes; the other goes on, turn by turn."""
    trace = Trace()
    gone, there = session(trace), session(trace)
    code = trace.code("def broadcasting(self, msg): ...", "Session", "room.py", 77)
    trace.turn(read=[gone])
    with trace.call("handle_close", gone):
        trace.state(gone, status="closed")
        # Not known to the others yet, and no ghost.
        trace.calls("push", gone, data=b"bye", given=True)
    yield trace
    for _ in range(turns):
        trace.turn(read=[there])
        with (
            trace.call("handle_read", there, **{"in": 5}),
            trace.call("collect_incoming_data", there, f=code),
            trace.call("push", gone, data=b"hello", given=True),
        ):
            trace.calls("send", gone, data=b"hello")
    yield trace


def test_push_to_a_closed_channel_is_a_finding() -> None:
    trace = list(late_writes(turns=100))[-1]
    finding = only(trace)
    assert finding.rule == "write-after-close"
    assert finding.summary == (
        "Session: 1 closed channel still written to, 100 times, 500 bytes queued and "
        "never sent"
    )
    assert (finding.location.turn, finding.where) == (2, "room.py:77")


def test_push_in_the_turn_of_the_close_is_healthy() -> None:
    assert examine(next(late_writes(turns=0))) == []


def test_write_to_a_reopened_channel_is_healthy() -> None:
    trace = list(late_writes(turns=3))[-1]
    trace.event("open", ch=1, fd=7, **{"class": "Session"}, module="room")
    assert examine(trace) == []


def growing(trace: Trace, backlogs: list[int]) -> int:
    channel = session(trace)
    for backlog in backlogs:
        trace.turn(why="timeout")
        trace.state(channel, backlog=backlog)
    return channel


def test_backlog_that_only_grows_is_a_finding() -> None:
    trace = Trace()
    growing(trace, [0, 5000, 0, *range(10_000, 1_000_000, 10_000)])
    finding = only(trace)
    assert finding.rule == "growing-backlog"
    assert finding.summary.endswith(
        "the backlog of 1 peer only grows, to 990.0 kB at worst"
    )
    assert (finding.location.turn, finding.severity) == (4, Severity.LEAKS)
    assert finding.details == [
        "it grew in 99 turns from that one on: 990.0 kB queued, 0 bytes sent"
    ]


@pytest.mark.parametrize(
    "backlogs",
    [
        pytest.param(
            [10_000_000, *range(9_900_000, 9_000_000, -10_000)], id="one push"
        ),
        pytest.param([*range(0, 900_000, 10_000), 0], id="taken in the end"),
        pytest.param([*range(0, 60_000, 1_000)], id="few bytes"),
        pytest.param([n % 3 * 200_000 + n for n in range(90)], id="up and down"),
    ],
)
def test_backlog_that_shrinks_again_is_healthy(backlogs: list[int]) -> None:
    trace = Trace()
    growing(trace, backlogs)
    assert examine(trace) == []


def test_growing_backlog_in_a_short_trace_is_a_finding() -> None:
    trace = Trace()
    growing(trace, [20_000, 40_000, 60_000, 80_000, 100_000])
    assert only(trace).rule == "growing-backlog"


@pytest.mark.parametrize(
    "backlogs",
    [
        pytest.param([*range(20_000, 100_000, 20_000)], id="four turns"),
        pytest.param([*range(20_000, 120_000, 20_000), 99_999], id="it takes some"),
        pytest.param([0] * 20 + [*range(20_000, 120_000, 20_000)], id="for a while"),
        pytest.param([*range(2_000, 30_000, 2_000)], id="few bytes"),
    ],
)
def test_backlog_at_the_end_of_a_short_trace_is_healthy(
    backlogs: list[int],
) -> None:
    trace = Trace()
    growing(trace, backlogs)
    assert examine(trace) == []


def test_peer_closed_at_the_limit_is_a_slow_reader() -> None:
    trace = Trace()
    channel = growing(trace, [*range(20_000, 100_000, 20_000)])
    code = trace.code("def handle_backlog(self): ...", "Session", "a.py", 8)
    with trace.call("handle_backlog", channel, f=code):
        trace.state(channel, status="closed", backlog=100_000)
    trace.end()
    finding = only(trace)
    assert (finding.rule, finding.severity) == ("slow-reader", Severity.LOST)
    assert finding.summary == (
        "Session: 1 peer read too slowly and reached the backlog limit: 1 closed, "
        "100.0 kB or more lost"
    )
    assert (finding.location.turn, finding.where) == (4, "a.py:8")


def test_channel_at_its_limit_has_no_growing_backlog() -> None:
    trace = Trace()
    channel = growing(trace, [*range(20_000, 900_000, 20_000)])
    with trace.call("handle_backlog", channel):
        trace.state(channel, status="closed")
    trace.end()
    assert only(trace).rule == "slow-reader"


def test_limit_that_closes_no_channel_lost_nothing() -> None:
    trace = Trace()
    channel = growing(trace, [100_000])
    trace.calls("handle_backlog", channel)
    trace.turn()
    assert only(trace).summary.endswith("reached the backlog limit")


def test_closed_slow_reader_is_healthy_below_many_megabytes() -> None:
    for step, rules in ((10_000, []), (1_000_000, ["growing-backlog"])):
        trace = Trace()
        channel = growing(trace, [*range(step, 100 * step, step)])
        trace.state(channel, status="closed")
        trace.turn(why="timeout")
        assert [each.rule for each in examine(trace)] == rules


def test_backlog_closed_only_at_the_programs_end_is_found() -> None:
    trace = Trace()
    channel = growing(trace, [*range(10_000, 1_000_000, 10_000)])
    trace.state(channel, status="closed")
    trace.end()
    assert only(trace).rule == "growing-backlog"


def test_error_that_is_swallowed_repeatedly_is_one_finding() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(1_000):
        trace.turn(read=[channel])
        trace.calls("handle_read", channel, error="ValueError: no", **{"in": 3})
        error = {"error": "ValueError: no", "where": "a.py:3"}
        with trace.call("handle_error", channel, **error):
            trace.calls("handle_error", channel, **error)
    finding = only(trace)
    assert (finding.rule, finding.count) == ("swallowed-error", 1_000)
    assert finding.summary == "ValueError: no: 1,000 times, swallowed by handle_error"
    assert (finding.location.turn, finding.where) == (1, "a.py:3")
    assert finding.details == ["the channel stayed open 1,000 times"]


def test_error_of_a_timer_is_swallowed_by_the_log() -> None:
    trace = Trace()
    trace.turn(why="timer")
    trace.calls("timer", error="KeyError: 3", where="a.py:3")
    assert only(trace).summary == "KeyError: 3: once, swallowed by the log"


def test_interest_that_costs_more_than_the_work_is_found() -> None:
    trace = Trace()
    channel = session(trace)
    for asked in range(500, 700, 5):
        trace.turn(read=[channel], asked=asked, channels=2)
        trace.calls("handle_read", channel, us=60, **{"in": 3})
    finding = only(trace)
    assert (finding.rule, finding.location.turn) == ("slow-interest", 40)
    assert "299 µs for each channel" in finding.details[0]
    assert finding.details[1] == "in the map then: 1 Session"


def test_interest_of_a_few_hundred_idle_channels_is_healthy() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(40):
        trace.turn(read=[channel], asked=300, channels=300)
        trace.calls("handle_read", channel, us=60, **{"in": 3})
    assert examine(trace) == []


@pytest.mark.parametrize(("others", "name"), [(0, "Session#1"), (1, "")])
def test_costly_interest_names_the_only_channel_of_a_map(
    others: int, name: str
) -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(others):
        session(trace, "Other")
    for _ in range(40):
        trace.turn(read=[channel], asked=500, channels=1 + others)
        trace.calls("handle_read", channel, us=60, **{"in": 3})
    assert only(trace).channel.partition(" ")[0] == name


def test_interest_update_with_a_small_share_is_healthy() -> None:
    trace = Trace()
    channel = session(trace)
    for _ in range(40):
        trace.turn(read=[channel], asked=500, channels=2, waited=20_000)
        trace.calls("handle_read", channel, us=60, **{"in": 3})
    assert examine(trace) == []


def test_interest_update_interrupted_once_is_healthy() -> None:
    trace = Trace()
    channel = session(trace)
    for turn in range(40):
        trace.turn(read=[channel], asked=9_000 if turn == 9 else 15, channels=3)
        trace.calls("handle_read", channel, us=60, **{"in": 3})
    assert examine(trace) == []


def test_descriptor_limit_of_select_is_reported_early() -> None:
    for by, rules in (("select", ["select-limit"]), ("poll", [])):
        trace = Trace()
        trace.turn(by=by)
        trace.open("Session", 1_001)
        assert [each.rule for each in examine(trace)] == rules


def failing(trace: Trace, error: str, then: str = "") -> None:
    """Let a session's handler raise, and perhaps its handle_error, too."""
    trace.turn(read=[2])
    trace.calls("handle_read", 2, error=error, **{"in": 3})
    if then:
        trace.calls("handle_error", 2, error=then, where="room.py:90")


def test_exception_that_left_the_loop_is_worst() -> None:
    trace = list(late_writes(turns=9))[-1]
    failing(trace, "ValueError: no", then="NameError: log")
    trace.end()
    left, *others = examine(trace)
    assert (left.rule, left.severity) == ("escaped-error", Severity.STOPPED)
    assert [each.rule for each in others] == ["write-after-close", "swallowed-error"]


@pytest.mark.parametrize(
    ("error", "then"),
    [
        ("ExitNow: bye", ""),
        # Ctrl-C came before handle_error was called, or while it was.
        ("ValueError: no", ""),
        ("ValueError: no", "KeyboardInterrupt: "),
    ],
)
def test_exception_that_ends_the_loop_on_purpose_is_healthy(
    error: str, then: str
) -> None:
    trace = list(late_writes(turns=0))[-1]
    failing(trace, error, then)
    trace.end()
    assert [each.rule for each in examine(trace)] == []


def test_error_of_handle_error_that_ends_no_loop_is_hidden() -> None:
    trace = list(late_writes(turns=0))[-1]
    failing(trace, "ValueError: no", then="NameError: log")
    trace.turn()
    assert only(trace).rule == "swallowed-error"


def test_report_has_places_and_advice() -> None:
    trace = list(late_writes(turns=100))[-1]
    assert list(doctor.report(examine(trace))) == [
        "1. leaks: Session: 1 closed channel still written to, 100 times, "
        "500 bytes queued and never sent",
        "   look at: turn 2, Session#1 (127.0.0.1:40000), room.py:77, "
        "line 15 of the trace",
        "   the worst one: 100 times, 500 bytes",
        "   do: The program still refers to the channel, so its queue is never freed: "
        "override handle_close, remove the channel from every list there, then call "
        "close().",
        "",
        "1 finding",
    ]
    assert list(doctor.report([])) == ["nothing found"]


def test_turns_are_read_once_and_not_kept() -> None:
    turns, reader = large(2_000).read()
    waiting = iter(turns)
    doctor.examine(islice(waiting, 5), reader)
    assert len(list(waiting)) == len(turns) - 5


def test_calls_that_are_deep_in_each_other_are_walked_through() -> None:
    trace = Trace()
    channel = session(trace)
    trace.turn(read=[channel])
    with ExitStack() as stack:
        for _ in range(2_000):
            stack.enter_context(trace.call("handle_read", channel, us=900))
    trace.end()
    assert only(trace).rule == "slow-callback"
    assert first_difference(trace.read()[0], trace.read()[0]) is None


@given(files())
def test_any_trace_can_be_examined(file: bytes) -> None:
    reader = Reader()
    lowest = Thresholds(**{field.name: 0 for field in fields(Thresholds)})
    with contextlib.suppress(TraceError):
        turns = read_lines(file.splitlines(keepends=True), reader)
        for line in doctor.report(doctor.examine(turns, reader, lowest)):
            line.encode()
            assert line.isprintable()
