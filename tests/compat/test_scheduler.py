"""Timers and wake-ups: promise 7, on every loop."""

from __future__ import annotations

import asyncore
import heapq
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from compat import scheduler
from compat._runtime import this_process
from compat.pollers import LONGEST_WAIT
from compat.wakeup import Waker
from tests.compat.test_loop import Probe
from tests.support import OURS


@pytest.fixture
def probe() -> Iterator[Probe]:
    """A channel that keeps the loop running and sends nothing."""
    probe = Probe()
    yield probe
    probe.close()
    assert this_process.schedulers == {}


def stop() -> None:
    raise asyncore.ExitNow


def run(loop: str, timeout: float = 3600.0) -> None:
    """Run the loop until stop() is called."""
    with pytest.raises(asyncore.ExitNow):
        compat.loop(timeout, loop=loop)


def test_timers_run_in_the_order_of_their_times(loop: str, probe: Probe) -> None:
    ran: list[str] = []
    compat.call_later(0.02, ran.append, "third")
    compat.call_later(0.01, ran.append, "first")
    compat.call_later(0.01, ran.append, "second")
    compat.call_later(0.03, stop)
    run(loop)
    assert ran == ["first", "second", "third"]


def test_a_timer_ends_the_wait_of_a_turn_that_could_wait_longer(
    loop: str, probe: Probe
) -> None:
    compat.call_later(0.001, stop)
    run(loop, timeout=3600.0)


def test_a_cancelled_timer_never_runs(loop: str, probe: Probe) -> None:
    ran: list[str] = []
    timer = compat.call_later(0, ran.append, "cancelled")
    compat.call_later(0.001, stop)
    assert timer.pending
    timer.cancel()
    timer.cancel()
    assert not timer.pending
    run(loop)
    assert ran == []


def test_a_timer_may_cancel_another_that_is_due_with_it(
    loop: str, probe: Probe
) -> None:
    ran: list[str] = []
    timers: list[compat.Timer] = []

    def cancel_the_other() -> None:
        timers[0].cancel()

    compat.call_later(0, cancel_the_other)
    timers.append(compat.call_later(0, ran.append, "cancelled"))
    compat.call_later(0, stop)
    run(loop)
    assert ran == []


def test_timer_added_by_a_timer_waits_for_the_next_turn(
    loop: str, probe: Probe
) -> None:
    ran: list[int] = []

    def again() -> None:
        ran.append(probe.asked)
        if len(ran) < 5:
            compat.call_later(0, again)

    compat.call_later(0, again)
    compat.loop(0, count=5, loop=loop)
    assert ran == [1, 2, 3, 4, 5]


def test_a_callback_that_raises_is_logged_and_ends_nothing(
    loop: str, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("broken callback")

    compat.call_later(0, broken)
    compat.call_soon_threadsafe(broken)
    compat.call_later(0, stop)
    run(loop)
    assert caplog.text.count("ValueError: broken callback") == 2


@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit, asyncore.ExitNow])
def test_exception_that_ends_a_loop_ends_it_from_a_callback(
    loop: str, probe: Probe, leaves: type[BaseException]
) -> None:
    def leave() -> None:
        raise leaves

    left = compat.call_later(0, leave)
    after = compat.call_later(0, stop)
    with pytest.raises(leaves):
        compat.loop(loop=loop)
    assert not left.pending
    # The timer is not lost: it runs when the loop is entered again.
    assert after.pending
    run(loop)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_negative_or_infinite_seconds_are_an_error(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be finite and >= 0, got "):
        compat.call_later(seconds, stop)


def test_a_callback_that_cannot_be_called_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="callback must be callable, got 5"):
        compat.call_later(0, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callback must be callable, got None"):
        compat.call_soon_threadsafe(None)  # type: ignore[arg-type]


def test_a_loop_that_waits_is_woken_from_another_thread(
    loop: str, probe: Probe
) -> None:
    def wake() -> None:
        waiting.wait()
        compat.call_soon_threadsafe(stop)

    waiting = threading.Event()
    thread = threading.Thread(target=wake)
    thread.start()
    compat.call_later(0, waiting.set)
    run(loop, timeout=3600.0)
    thread.join()


def test_calls_from_other_threads_run_in_their_order(loop: str, probe: Probe) -> None:
    ran: list[int] = []

    def call() -> None:
        for number in range(1000):
            compat.call_soon_threadsafe(ran.append, number)
        compat.call_soon_threadsafe(stop)

    thread = threading.Thread(target=call)
    thread.start()
    run(loop)
    thread.join()
    assert ran == list(range(1000))


def test_a_loop_with_timers_and_an_empty_map_ends(loop: str) -> None:
    map: dict[int, Any] = {}
    timer = compat.call_later(3600, stop, map=map)
    compat.loop(map=map, loop=loop)
    timer.cancel()
    compat.loop(map=map, loop=loop)
    assert this_process.schedulers == {}


def test_a_map_whose_timers_are_cancelled_is_forgotten() -> None:
    map: dict[int, Any] = {}
    first, second = (compat.call_later(3600, stop, map=map) for _ in range(2))
    first.cancel()
    assert id(map) in this_process.schedulers
    second.cancel()
    assert id(map) not in this_process.schedulers
    again = compat.call_later(3600, stop, map=map)
    second.cancel()
    assert again.pending
    again.cancel()
    assert this_process.schedulers == {}


def test_a_loop_with_wait_for_timers_waits_for_them(loop: str) -> None:
    ran: list[str] = []
    compat.call_later(0.001, ran.append, "timer")
    compat.loop(loop=loop, wait_for_timers=True)
    assert ran == ["timer"]


def test_timers_belong_to_a_map(loop: str, probe: Probe) -> None:
    ran: list[str] = []
    other: dict[int, Any] = {}
    theirs = Probe(other)
    compat.call_later(0, ran.append, "theirs", map=other)
    compat.loop(0, count=2, loop=loop)
    assert ran == []
    compat.loop(0, map=other, count=1, loop=loop)
    assert ran == ["theirs"]
    theirs.close()


def test_is_turned_is_true_while_the_loop_runs(loop: str, probe: Probe) -> None:
    seen: list[bool] = []
    assert not compat.is_running(asyncore.socket_map)
    compat.call_later(0, lambda: seen.append(compat.is_running(asyncore.socket_map)))
    compat.call_later(0, stop)
    run(loop)
    assert seen == [True]
    assert not compat.is_running(asyncore.socket_map)


def test_four_loops_in_four_threads_on_maps_of_their_own() -> None:
    done: list[str] = []

    def talk(loop: str) -> None:
        map: dict[int, Any] = {}
        probe = Probe(map)
        compat.call_later(0.001, probe.peer.sendall, b"hi", map=map)
        compat.call_later(0.002, probe.peer.close, map=map)
        compat.loop(map=map, loop=loop)
        done.append(f"{loop} {b''.join(probe.read)!r}")

    loops = ["select", "poll", "selectors", "selectors"]
    threads = [threading.Thread(target=talk, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(f"{loop} b'hi'" for loop in loops)


def test_a_hundred_thousand_timers_cost_the_heap_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted in comparisons of heap entries: O(log n) for each timer."""
    compared = 0

    class When(float):
        def __lt__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return float(self) < float(other)  # type: ignore[arg-type]

    count = 100_000
    times = iter(range(count, 0, -1))
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: When(1e9 + next(times, 0)))
    monkeypatch.setattr(When, "__add__", lambda self, other: self, raising=False)
    pending = scheduler.Scheduler({})
    for _ in range(count):
        pending.call_later(1, stop)
    # The worst order: each new timer is the earliest.
    assert compared < 2 * count * 20
    assert len(pending._heap) == count
    assert heapq.nsmallest(1, pending._heap)[0][0] == 1e9 + 1


def test_cancelled_timers_do_not_pile_up() -> None:
    pending = scheduler.Scheduler({})
    keep = pending.call_later(3600, stop)
    for _ in range(100_000):
        pending.call_later(1800, stop).cancel()
    assert len(pending._heap) < 1000
    assert keep.pending
    assert pending.pending


def test_a_signal_is_handled_between_two_turns(loop: str, probe: Probe) -> None:
    seen: list[int] = []

    def note(signum: int) -> None:
        seen.append(signum)
        stop()

    before = signal.getsignal(signal.SIGUSR1)
    with compat.on_signals([signal.SIGUSR1], note):
        compat.call_later(0, os.kill, os.getpid(), signal.SIGUSR1)
        run(loop, timeout=3600.0)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_came_before_the_loop_is_not_lost(
    loop: str, probe: Probe
) -> None:
    with compat.on_signals([signal.SIGUSR1], lambda signum: stop()):
        os.kill(os.getpid(), signal.SIGUSR1)
        run(loop, timeout=3600.0)


def test_a_signal_ends_the_wait_of_a_loop_in_another_thread(
    loop: str, probe: Probe
) -> None:
    raised: list[Exception] = []
    turned = threading.Event()

    def turn() -> None:
        try:
            run(loop)
        except Exception as error:
            raised.append(error)

    with compat.on_signals([signal.SIGUSR1], lambda signum: stop()):
        thread = threading.Thread(target=turn)
        compat.call_later(0, turned.set)
        thread.start()
        turned.wait()
        # The handler runs here, before join(): a signal that comes between Python's
        # last look and a wait of this thread would be seen when that wait is over.
        os.kill(os.getpid(), signal.SIGUSR1)
        thread.join()
    assert raised == []


def test_leaving_an_inner_on_signals_leaves_the_outer_as_it_was(
    loop: str, probe: Probe
) -> None:
    armed: list[bool] = []

    def look() -> None:
        before = signal.set_wakeup_fd(-1)
        armed.append(before != -1)
        signal.set_wakeup_fd(before)
        stop()

    with compat.on_signals([signal.SIGUSR1], lambda signum: stop()):
        with compat.on_signals([signal.SIGUSR1, signal.SIGUSR2], print):
            pass
        compat.call_later(0, look)
        run(loop)
        os.kill(os.getpid(), signal.SIGUSR1)
        run(loop)
    assert armed == [True]


def test_signals_taken_before_one_that_cannot_be_are_given_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    signums = [signal.SIGUSR1, signal.SIGUSR1, signal.SIGKILL]
    with pytest.raises(OSError), compat.on_signals(signums, print):  # noqa: PT011
        pass
    assert signal.getsignal(signal.SIGUSR1) is before
    assert this_process.schedulers == {}


def test_wake_of_a_loop_that_just_ended_is_no_error() -> None:
    pending = scheduler.Scheduler({})
    waker = Waker()
    pending.wakers.append(waker)
    waker.close()
    pending.call_soon_threadsafe(stop)
    assert pending.pending


def test_wake_of_a_loop_that_is_just_ending_is_no_error() -> None:
    """Its thread has closed one end of the pair, and is about to close the other."""
    pending = scheduler.Scheduler({})
    waker = Waker()
    pending.wakers.append(waker)
    os.close(waker.descriptors[0])
    pending.call_soon_threadsafe(stop)
    assert pending.pending
    waker.close()


def test_no_descriptor_is_left_open(loop: str) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list its descriptors")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        probe = Probe()
        compat.call_later(0, probe.close)
        compat.loop(loop=loop)
    assert os.listdir("/proc/self/fd") == before


def test_ctrl_c_while_a_waker_is_made_raises_only_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    monkeypatch.setattr("socket.socketpair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Waker()
    assert unraisable == []


def test_turn_watcher_gets_the_time_of_a_turn_without_its_wait(
    loop: str, probe: Probe
) -> None:
    turns: list[tuple[float, float]] = []
    timer = compat.call_later(0.02, lambda: None)
    with compat.on_turn(lambda seconds: turns.append((seconds, time.monotonic()))):
        while timer.pending:
            compat.loop(3600.0, count=1, loop=loop)
    seconds, told = turns[-1]
    # The wait was over when the timer was due, at the earliest.
    assert 0 < seconds <= told - timer.when
    compat.loop(0, count=1, loop=loop)
    assert turns[-1] == (seconds, told)


def test_turn_watcher_gets_the_time_in_the_handlers(
    loop: str, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[float] = []
    told: list[float] = []

    def handle_read() -> None:
        began = time.monotonic()
        probe.recv(1)
        worked.append(time.monotonic() - began)

    monkeypatch.setattr(probe, "handle_read", handle_read)
    probe.peer.send(b"!")
    with compat.on_turn(told.append):
        compat.loop(10.0, count=1, loop=loop)
    assert told[0] >= worked[0] > 0


def test_a_turn_watcher_that_raises_is_logged_and_ends_nothing(
    loop: str, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(seconds: float) -> None:
        raise ZeroDivisionError

    with compat.on_turn(fail):
        compat.loop(0, count=2, loop=loop)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        ZeroDivisionError
    ] * 2


def test_turn_watcher_that_is_not_callable_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="callback must be callable, got 3"):
        compat.on_turn(3).__enter__()  # type: ignore[arg-type]


# Numbers of every kind.

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.decimals(),
    st.fractions(),
    st.text(),
    st.sampled_from([10**400, 10**5000, 1e306, 5e-324, -0.0, True, None, b"5"]),
    st.sampled_from([Decimal("sNaN"), Decimal("1e400"), Fraction(10**400), 3e9]),
)


def refusal(call: Callable[[], object]) -> str:
    """Return why a value is rejected; "" if it is accepted."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("loop", OURS)
@settings(max_examples=100, deadline=None)
@given(seconds=NUMBERS)
def test_any_number_of_seconds_is_refused_or_waited_for(
    loop: str, seconds: Any
) -> None:
    map: dict[int, Any] = {}
    channel = Probe(map)
    timers: list[compat.Timer] = []
    why = refusal(lambda: timers.append(compat.call_later(seconds, len, "", map=map)))
    left = scheduler.scheduler_of(map).next_timeout(None)
    if why:
        assert left is None
        assert why.startswith("seconds must be finite and >= 0, got ")
        assert len(why) < 100
    else:
        # Nor is the wait longer than the kernel's limit.
        assert left is not None
        assert 0 <= left <= LONGEST_WAIT
        compat.loop(0, map=map, count=1, loop=loop)
        timers[0].cancel()
    channel.close()


@pytest.mark.parametrize("timeout", [2147484, 3e9, 1e306, math.inf, 10**400])
def test_timeout_beyond_the_kernels_is_waited_for(
    loop: str, probe: Probe, timeout: float
) -> None:
    compat.call_soon_threadsafe(stop)
    run(loop, timeout)
    probe.peer.send(b"!")
    compat.loop(timeout, count=1, loop=loop)
    assert probe.read == [b"!"]


@settings(max_examples=100, deadline=None)
@given(signum=NUMBERS)
def test_any_signal_number_is_refused_or_handled(signum: Any) -> None:
    def handle() -> None:
        with compat.on_signals([signum], print):
            assert signal.getsignal(signum) not in (signal.SIG_DFL, signal.SIG_IGN)

    try:
        why = refusal(handle)
    except OSError:
        assert signum in (signal.SIGKILL, signal.SIGSTOP)
    else:
        assert not why or why.startswith("signums must be numbers of signals, got ")
        assert len(why) < 100


def test_signal_callback_that_cannot_be_called_is_an_error() -> None:
    with (
        pytest.raises(TypeError, match="callback must be callable, got 5"),
        compat.on_signals([signal.SIGINT], 5),  # type: ignore[arg-type]
    ):
        pass
