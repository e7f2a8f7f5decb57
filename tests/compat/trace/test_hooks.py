"""A trace changes nothing for the program, and leaves nothing behind."""

from __future__ import annotations

import asyncore
import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import compat
from compat.trace.session import Session
from tests.compat.trace.recording import Line, recorded
from tests.support import in_a_turn


def test_what_is_mixed_in_and_serves_others_is_no_channel(tmp_path: Path) -> None:
    class Parser:
        __slots__ = ("got",)

        def push(self, data: Any) -> int:
            return len(data)

        def set_terminator(self, terminator: Any) -> str:
            return "set"

        def send(self, data: Any) -> int:
            return len(data)

        def add_channel(self, map: Any) -> str:
            return "added"

    class Mixed(Parser, Line):  # type: ignore[misc]
        __slots__ = ()

    with recorded(tmp_path) as trace:
        line = Mixed()
        parser = Parser()
        assert parser.push(b"abc") == parser.send(b"abc") == 3
        assert parser.set_terminator(b"x") == "set"
        assert parser.add_channel({}) == "added"
        assert line.push(b"abc") == 3
        line._map.clear()
        line.socket.close()
    assert [call.channel and call.channel.number for call in trace.calls()] == [1]


def test_a_thread_leaves_what_it_has_done_last(tmp_path: Path) -> None:
    done, end = threading.Event(), threading.Event()

    def work() -> None:
        for word in (b"a", b"b", b"c"):
            line.push(word)
        done.set()
        end.wait()

    with recorded(tmp_path) as trace:
        line = Line()
        threads = [threading.Thread(target=work) for _ in range(2)]
        threads[0].start()
        done.wait()
        end.set()
        threads[0].join()
        end.clear()
        done.clear()
        threads[1].start()
        done.wait()
    # One thread is over, the other is there still.
    end.set()
    threads[1].join()
    line.close()
    said = [call.data for call in trace.calls("push")]
    assert sorted(map(str, said)) == sorted(map(str, [b"a", b"b", b"c"] * 2))


def test_a_program_that_is_called_while_lines_are_written(tmp_path: Path) -> None:
    def collected(phase: str, info: Any) -> None:
        # As a __del__, or a signal's handler: in the middle of anything.
        line.push(b"x")

    with recorded(tmp_path) as trace:
        line = Line()
        thresholds = gc.get_threshold()
        gc.callbacks.append(collected)
        gc.set_threshold(1, 1, 1)
        try:
            for _ in range(200):
                line.set_terminator([])  # type: ignore[arg-type]
                line.handle_connect()
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(collected)
        sent = len(line.peer.take_what_is_there())
        line.close()
    assert sent
    assert sum(call.given for call in trace.calls("push")) == sent
    assert trace.calls()[-1].depth == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_in_a_call_writes_nothing(
    loop: str, tmp_path: Path
) -> None:
    parent, children = os.getpid(), []
    held, forked = threading.Event(), threading.Event()

    def write() -> None:
        # Another thread is writing at this moment, and stays behind.
        assert Session.current is not None
        with Session.current._sink._lock:  # type: ignore[attr-defined]
            held.set()
            forked.wait()

    def fork() -> None:
        writer = threading.Thread(target=write)
        writer.start()
        held.wait()
        children.append(os.fork())
        if children[0]:
            forked.set()
            writer.join()
        else:
            signal.alarm(20)

    def live() -> None:
        in_a_turn(loop, fork)
        line = Line()
        line.push(b"%d" % os.getpid())
        line.close()

    with recorded(tmp_path) as trace:
        try:
            live()
            if os.getpid() != parent:
                os._exit(0 if vars(asyncore.dispatcher)["send"] is SEND else 1)
        finally:
            if os.getpid() != parent:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert [call.data for call in trace.calls("push")] == [b"%d" % parent]


SEND = vars(asyncore.dispatcher)["send"]


class Interrupts(Line):
    """Is interrupted after so many calls and returns of any function."""

    after = 0

    def handle_connect(self) -> None:
        self.handle_expt()

    def handle_expt(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("after", range(1, 20))
def test_ctrl_c_at_any_moment_leaves_the_depth_right(
    after: int, tmp_path: Path
) -> None:
    left = after

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        here = os.path.basename(frame.f_code.co_filename)
        if here != "hooks.py" or not event.startswith("c_"):
            return
        left -= 1
        if not left:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with compat.tracing(tmp_path / "a.trace"):
        assert Session.current is not None
        recorder = Session.current._trace.here.recorder
        line = Interrupts()
        sys.setprofile(profile)
        try:
            line.handle_connect()
        except KeyboardInterrupt:
            left = 0
        finally:
            sys.setprofile(None)
        assert recorder.depth == 0
        assert recorder.channel is None
        line.close()
