"""An instrument gets the reports of the loops, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import compat
from compat import instrument
from tests.compat.trace.recording import Line
from tests.support import OURS, turn_once

Reports = list[tuple[Any, ...]]


class Observer(instrument.Instrument):
    """Keeps the reports that do not depend on time."""

    def __init__(self) -> None:
        self.reports: Reports = []

    def turn_begins(self, shortened_by: str) -> None:
        self.reports.append(("turn", shortened_by))

    def channel_polled(self, key: Any, channel: Any, reads: bool, writes: bool) -> None:
        self.reports.append(("polled", channel, reads, writes))

    def wait_begins(self, loop: str, timeout: float | None) -> None:
        self.reports.append(("wait", loop, timeout))

    def wait_ends(
        self, read: list[Any], write: list[Any], urgent: list[Any], woken: bool
    ) -> None:
        self.reports.append(("ready", read, write, urgent, woken))

    def timer_created(
        self, timer: object, seconds: float, callback: Callable[..., object]
    ) -> None:
        self.reports.append(("timer", seconds, callback))

    def timer_cancelled(self, timer: object) -> None:
        self.reports.append(("cancelled",))

    def run_callback(
        self,
        timer: object | None,
        callback: Callable[..., object],
        call: Callable[[], object],
    ) -> None:
        self.reports.append(("callback", timer is not None, callback))
        call()

    def broadcast(
        self, group: Any, data: Any, exclude: Any, call: Callable[[], int]
    ) -> int:
        self.reports.append(("broadcast", data, exclude))
        return call()

    def send(self, channel: Any, data: Any, call: Callable[[Any], int]) -> int:
        self.reports.append(("send", channel, bytes(data)))
        return call(data)


@pytest.fixture
def observer() -> Iterator[Observer]:
    instrument.current = found = Observer()
    yield found
    instrument.current = None


def test_selectors_loop_reports_poll_wait_and_ready_channels(
    observer: Observer,
) -> None:
    line = Line()
    line.peer.send(b"x")
    turn_once("selectors", timeout=3.0)
    assert observer.reports == [
        ("turn", ""),
        ("polled", line, True, False),
        ("wait", "selectors", 3.0),
        ("ready", [line], [], [], False),
    ]
    line.close()


@pytest.mark.parametrize("loop", OURS)
def test_timers_and_callbacks_are_reported_on_every_loop(
    loop: str, observer: Observer
) -> None:
    line, heard = Line(), list[str]()
    compat.call_later(60, heard.append, "never").cancel()
    compat.call_later(0, heard.append, "timer")
    compat.call_soon_threadsafe(heard.append, "callback")
    turn_once(loop)
    reports = [each for each in observer.reports if each[0] not in ("polled", "wait")]
    assert [each for each in reports if each[0] != "ready"] == [
        ("timer", 60, heard.append),
        ("cancelled",),
        ("timer", 0, heard.append),
        ("turn", "callback"),
        ("callback", False, heard.append),
        ("callback", True, heard.append),
    ]
    assert heard == ["callback", "timer"]
    line.close()


@pytest.mark.parametrize("kind", [instrument.Instrument, Observer])
def test_broadcast_is_sent_with_any_instrument(
    kind: type[instrument.Instrument], observer: Observer
) -> None:
    instrument.current = now = kind()
    lines = [Line(), Line()]
    group = compat.BroadcastGroup()
    for line in lines:
        line.ac_coalesce_writes = True
        group.add(line)
    compat.call_later(0, group.push, b"hello", lines[1])
    turn_once("selectors")
    assert [line.peer.receive_available() for line in lines] == [b"hello", b""]
    if isinstance(now, Observer):
        sent = [each for each in now.reports if each[0] in ("broadcast", "send")]
        assert sent == [("broadcast", b"hello", lines[1]), ("send", lines[0], b"hello")]
    for line in lines:
        line.close()
