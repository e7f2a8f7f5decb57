"""Traffic between real clients and a server is recorded, and can be checked."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from legacy_chat.baseline import (
    Action,
    Endpoint,
    Received,
    ReplayError,
    Step,
    Transcript,
    TranscriptHeader,
    check,
)
from legacy_chat.baseline.replay import client_pool
from legacy_chat.baseline.replay import proxy as proxy_module
from legacy_chat.baseline.replay.proxy import listen
from tests.baseline.line_server import LINES, line_server, serving
from tests.support import DEADLINE, Peer

# Seconds: the server has answered when its client has got the answer.
QUIET = 0.05


@pytest.fixture(autouse=True)
def short_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait briefly for late data when a recording is stopped."""
    monkeypatch.setattr(proxy_module, "LAST_WAIT", 0.03)


@contextmanager
def recording(
    server: Endpoint,
    quiet: float = QUIET,
    timeout: float = 20.0,
    warn: Callable[[str], object] = pytest.fail,
) -> Iterator[tuple[tuple[str, int], list[Step]]]:
    """Run a proxy in a thread; yield its address and the steps so far."""
    steps: list[Step] = []
    free, where = ("127.0.0.1", 0), (server.host, server.port)
    with listen(free, where, LINES, timeout, quiet, warn) as proxy:
        thread = threading.Thread(target=lambda: steps.extend(proxy.steps()))
        thread.start()
        try:
            yield proxy.address, steps
        finally:
            proxy.stop()
            thread.join()


def test_a_signal_before_the_wait_stops_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with line_server() as server:
        where = (server.host, server.port)
        with listen(("127.0.0.1", 0), where, LINES, 20.0, QUIET, pytest.fail) as proxy:
            with proxy.stopped_by_signals():
                # If it comes right before the wait, no handler is called until then.
                os.kill(os.getpid(), signal.SIGTERM)
                assert list(proxy.steps()) == []
            assert signal.getsignal(signal.SIGTERM) is before
            assert signal.set_wakeup_fd(-1) == -1


def test_a_recorded_conversation_can_be_checked() -> None:
    with line_server() as server:
        with recording(server) as (address, steps):
            a, b = Peer(address), Peer(address)
            a.wait_for("welcome")
            b.wait_for("welcome")
            a.send("TOKEN\r\n")
            token = a.wait_for("yours is ").split()[-1]
            a.send(b"my token is " + token + b"\r\n")
            a.wait_for(b"sent my token")
            b.send("ALL of you\r\n")
            b.wait_for("all: of you")
            a.wait_for("all: of you")
            a.send("QUIT\r\n")
            a.wait_for_end()
            b.sock.shutdown(socket.SHUT_WR)
            b.wait_for_end()
            a.close()
            b.close()
        told = {step.action: step.answers for step in steps}
        assert told[Action("a", "send", b"my token is {token1}\r\n")] == {
            "a": Received(b"you sent my token is {token1}\r\n")
        }
        assert told[Action("b", "send", b"ALL of you\r\n")] == {
            "a": Received(b"all: of you\r\n"),
            "b": Received(b"all: of you\r\n"),
        }
        assert told[Action("b", "half-close")] == {"b": Received(b"", "eof")}
        transcript = Transcript(TranscriptHeader("recorded"), steps)
        assert check(transcript, server, LINES).outcome == "same"
    with line_server("you whispered") as other:
        assert check(transcript, other, LINES).outcome == "different"


def test_reset_is_forwarded_and_recorded() -> None:
    with line_server() as server, recording(server) as (address, steps):
        a, b = Peer(address), Peer(address)
        a.wait_for("welcome")
        a.reset()
        b.send("still here\r\n")
        b.wait_for("you sent still here")
        b.close()
    assert Action("a", "reset") in [step.action for step in steps]


def test_close_after_the_servers_close_is_no_step() -> None:
    with line_server() as server:
        for _ in range(3):
            with recording(server) as (address, steps):
                a = Peer(address)
                a.send("QUIT\r\n")
                a.wait_for_end()
                a.close()
            assert [step.action.do for step in steps][:2] == ["open", "send"]
            assert steps[1].answers["a"].end == "eof"


def test_unreachable_server_is_a_refused_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with recording(Endpoint(*nobody.getsockname())) as (address, steps):
            a = Peer(address)
            a.wait_for_end()
            a.close()
    assert steps == [Step(Action("a", "open"), {"a": Received(end="refused")})]


def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with (
            pytest.raises(ReplayError, match="cannot listen"),
            listen(address, address, LINES, 1.0, QUIET, pytest.fail),
        ):
            pytest.fail("it listens")


class Talker(socketserver.BaseRequestHandler):
    """A server that is never quiet."""

    def handle(self) -> None:
        with suppress(OSError):
            while True:
                self.request.sendall(b"tick " * 10)


def test_stop_keeps_the_step_of_a_server_that_is_never_quiet() -> None:
    with serving(Talker) as server, recording(server, quiet=3600.0) as (where, steps):
        a = Peer(where)
        a.wait_for("tick tick")
        reader = threading.Thread(target=a.wait_for_end)
        reader.start()
    reader.join()
    assert [step.action for step in steps] == [Action("a", "open")]
    assert steps[0].answers["a"].data.startswith(b"tick tick")


def test_stop_does_not_wait_for_a_client_that_reads_nothing() -> None:
    with serving(Talker) as server, recording(server, quiet=3600.0) as (where, steps):
        a = Peer(where)
        a.wait_for("tick tick")
    a.close()
    assert steps[0].answers["a"].data.startswith(b"tick tick")


def test_step_of_a_server_that_is_never_quiet_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_pool, "STEP_SIZE", 1 << 40)
    warned = threading.Event()
    lines: list[str] = []

    def warn(line: str) -> None:
        lines.append(line)
        warned.set()

    with (
        serving(Talker) as server,
        recording(server, timeout=0.1, warn=warn) as (where, steps),
    ):
        a = Peer(where)
        reader = threading.Thread(target=a.wait_for_end)
        reader.start()
        assert warned.wait(DEADLINE)
    reader.join()
    assert lines[0].startswith("step 1 was cut: the server was never quiet for 0.05 s")
    assert steps[0].action == Action("a", "open")


def test_recording_that_fails_keeps_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_pool, "STEP_SIZE", 1 << 16)
    free = ("127.0.0.1", 0)
    with (
        serving(Talker) as server,
        listen(free, (server.host, server.port), LINES, 20.0, QUIET, print) as proxy,
    ):
        a = Peer(proxy.address)
        (step,) = proxy.steps()
        a.close()
    assert proxy.error == "the server sent more than 0 MiB in one step"
    assert step.answers["a"].data.startswith(b"tick tick")
