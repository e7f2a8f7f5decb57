"""What passes between real clients and a server is written down, and can be checked."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from legacy_chat.baseline import (
    Action,
    Got,
    Header,
    Place,
    RunError,
    Step,
    Transcript,
    check,
)
from legacy_chat.baseline.proxy import listen
from tests.baseline.line_server import LINES, line_server
from tests.support import Peer


@contextmanager
def recording(server: Place) -> Iterator[tuple[tuple[str, int], list[Step]]]:
    """A proxy in a thread: where it listens, and the steps, complete at the end."""
    steps: list[Step] = []
    free, where = ("127.0.0.1", 0), (server.host, server.port)
    with listen(free, where, LINES, 20.0) as proxy:
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
        with listen(("127.0.0.1", 0), where, LINES, 20.0) as proxy:
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
            a.wait_for(b"said my token")
            b.send("ALL of you\r\n")
            b.wait_for("hear of you")
            a.wait_for("hear of you")
            a.send("QUIT\r\n")
            a.wait_for_end()
            b.sock.shutdown(socket.SHUT_WR)
            b.wait_for_end()
            a.close()
            b.close()
        told = {step.action: step.heard for step in steps}
        assert told[Action("a", "send", b"my token is {token1}\r\n")] == {
            "a": Got(b"you said my token is {token1}\r\n")
        }
        assert told[Action("b", "send", b"ALL of you\r\n")] == {
            "a": Got(b"hear of you\r\n"),
            "b": Got(b"hear of you\r\n"),
        }
        assert told[Action("b", "half-close")] == {"b": Got(b"", "eof")}
        transcript = Transcript(Header("recorded"), steps)
        assert check(transcript, server, LINES).outcome == "same"
    with line_server("you whispered") as other:
        assert check(transcript, other, LINES).outcome == "different"


def test_a_reset_is_passed_on_and_written_down() -> None:
    with line_server() as server, recording(server) as (address, steps):
        a, b = Peer(address), Peer(address)
        a.wait_for("welcome")
        a.reset()
        b.send("still here\r\n")
        b.wait_for("you said still here")
        b.close()
    assert Action("a", "reset") in [step.action for step in steps]


def test_who_closes_after_the_server_has_is_no_step_of_its_own() -> None:
    with line_server() as server:
        for _ in range(3):
            with recording(server) as (address, steps):
                a = Peer(address)
                a.send("QUIT\r\n")
                a.wait_for_end()
                a.close()
            assert [step.action.do for step in steps][:2] == ["open", "send"]
            assert steps[1].heard["a"].end == "eof"


def test_a_server_that_is_not_there_refuses() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with recording(Place(*nobody.getsockname())) as (address, steps):
            a = Peer(address)
            a.wait_for_end()
            a.close()
    assert steps == [Step(Action("a", "open"), {"a": Got(end="refused")})]


def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with (
            pytest.raises(RunError, match="cannot listen"),
            listen(address, address, LINES, 1.0),
        ):
            pytest.fail("it listens")
