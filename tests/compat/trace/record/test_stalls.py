"""A trace's reader that stalls, or never comes, does not stop the program."""

from __future__ import annotations

import asyncore
import logging
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

import compat
from compat.nonblocking import write_some
from compat.trace.reader import Reader, read_lines
from compat.trace.record.live import Live
from compat.trace.record.session import Session
from compat.trace.record.sink import WAITING, File
from tests.compat.trace.recording import Line
from tests.support import DEADLINE, ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")

HEADER = b'{"format":"compat-trace","version":1}\n'

# A block of a few lines.
BLOCK = b'{"e":"call","t":%d,"do":"push"}\n' * 50


def block(at: int) -> bytes:
    return BLOCK % ((at,) * 50)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "a.trace"
    os.mkfifo(path)
    return path


@contextmanager
def reading(fifo: Path) -> Iterator[int]:
    """Yield a non-blocking descriptor of the reader."""
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def available(fd: int) -> bytes:
    got = b""
    try:
        while data := os.read(fd, 1 << 20):
            got += data
    except BlockingIOError:
        return got
    return got


def never() -> None:
    raise AssertionError("the trace is over")


def test_stalled_reader_loses_lines_and_the_trace_marks_them(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compat.trace.record.sink.WAITING", 1 << 16)
    with reading(fifo) as fd:
        sink = File(str(fifo), 1 << 30, never)
        sink.write(HEADER, 0)
        queue, at, got = sink._queue, 0, b""
        assert queue is not None
        for _ in range(2):
            queue.has_lost = False
            while not queue.has_lost:
                at += 1
                sink.write(block(at), at)
            assert len(queue) <= WAITING
            dropped = at
            for at in range(dropped + 1, dropped + 5):
                sink.write(block(at), at)
            while len(queue):
                got += available(fd)
                queue.flush()
            at += 1
            sink.write(block(at), at)
        sink.close(at)
        got += available(fd)
    reader = Reader()
    (turn,) = read_lines(got.splitlines(True), reader)
    assert (reader.is_intact, reader.end_reason, reader.gaps) == (True, "closed", 2)
    assert reader.lost_lines + sum(1 for _ in turn.calls()) == at * 50
    # A gap is between the events before it and those after it.
    times = [entry.at for entry in turn.entries]
    assert times == sorted(times)
    lost = [entry.fields["n"] for entry in turn.entries if entry.fields["e"] == "lost"]
    assert lost == [250, 250]


def test_lines_after_a_gap_wait_until_half_the_queue_is_free(fifo: Path) -> None:
    with reading(fifo) as fd:
        sink = File(str(fifo), 1 << 30, never)
        sink.write(HEADER, 0)
        queue = sink._queue
        assert queue is not None
        while not queue.has_lost:
            sink.write(block(1), 1)
        os.read(fd, WAITING // 8)
        before = len(queue)
        sink.write(block(2), 2)
        assert len(queue) <= before
        sink.abandon()


def test_block_larger_than_the_room_waits_if_it_is_alone(fifo: Path) -> None:
    large = b'{"e":"new","x":"%s"}\n' % (b"x" * (2 * WAITING))
    got: list[bytes] = []

    def reads() -> None:
        with open(fifo, "rb") as file:
            got.append(file.read())

    thread = threading.Thread(target=reads)
    thread.start()
    sink = File(str(fifo), 1 << 30, never)
    sink.write(HEADER, 0)
    sink.write(large, 0)
    while sink._queue is not None and len(sink._queue):
        sink._queue.flush()
    sink.close(1)
    thread.join()
    assert got[0].startswith(HEADER + large)
    assert got[0].endswith(b'"why":"closed"}\n')


def test_fifo_may_get_its_reader_later(
    fifo: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The program may be in another folder by then.
    monkeypatch.chdir(fifo.parent)
    with compat.tracing(fifo.name):
        line = Line()
        line.receive("select", b"before")
        monkeypatch.chdir("/")
        with reading(fifo) as fd:
            line.receive("select", b"after")
            line.close()
            assert Session.current is not None
            sink = Session.current._sink
            assert isinstance(sink, File)
            Session.current._trace.flush()
            got = available(fd)
            assert sink._queue is not None
            while len(sink._queue):
                sink._queue.flush()
                got += available(fd)
            Session.current.end()
            got += available(fd)
    reader = Reader()
    turns = list(read_lines(got.splitlines(True), reader))
    calls = [call.data for turn in turns for call in turn.calls() if call.received]
    assert calls == [b"before", b"after"]
    assert (reader.end_reason, reader.lost_lines) == ("closed", 0)
    assert not caplog.text


def test_fifo_without_a_reader_is_logged_at_the_end(
    fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with compat.tracing(fifo):
        line = Line()
        line.receive("select", b"x")
        line.close()
    assert "the reader of the trace left" in caplog.text
    assert line.received == [b"x"]


def test_fifo_that_another_file_replaced_is_not_written(
    fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = File(str(fifo), 1 << 20, lambda: None)
    sink.write(HEADER, 0)
    fifo.unlink()
    fifo.write_text("kept")
    sink.write(block(1), 1)
    sink.close(1)
    assert fifo.read_text() == "kept"
    assert "the trace ends here" in caplog.text


def test_gap_is_logged_once(fifo: Path, caplog: pytest.LogCaptureFixture) -> None:
    with reading(fifo):
        sink = File(str(fifo), 1 << 30, never)
        sink.write(HEADER, 0)
        for at in range(WAITING // len(BLOCK) * 3):
            sink.write(block(at), at)
        sink.close(0)
    assert caplog.text.count("are dropped") == 1


def test_stalled_log_does_not_block_the_trace(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    logger = logging.getLogger("compat")
    monkeypatch.setattr("compat.trace.record.sink.WAITING", 1 << 14)
    with open(reader, "rb", 0), open(writer, "w") as stream, reading(fifo):
        while write_some(writer, b"x" * 4096) == 4096:
            """The pipe is not full yet."""
        handler = logging.StreamHandler(stream)
        logger.addHandler(handler)
        try:
            sink = File(str(fifo), 1 << 30, never)
            sink.write(HEADER, 0)
            for at in range(WAITING // len(BLOCK)):
                sink.write(block(at), at)
            sink.close(0)
        finally:
            logger.removeHandler(handler)
        assert sink._queue is not None
        assert sink._queue.has_lost


def test_full_trace_into_a_stalled_fifo_ends(fifo: Path) -> None:
    over: list[bool] = []
    with reading(fifo):
        sink = File(str(fifo), 1 << 17, lambda: over.append(True))
        sink.write(HEADER, 0)
        while not over:
            sink.write(block(1), 1)
        sink.close(0)
    assert over == [True]


def test_dropped_lines_do_not_count_as_written(fifo: Path) -> None:
    limit = 3 * WAITING
    with reading(fifo):
        sink = File(str(fifo), limit, never)
        sink.write(HEADER, 0)
        for at in range(2 * limit // len(BLOCK)):
            sink.write(block(at), at)
        sink.abandon()


def terminal() -> tuple[int, int]:
    return pty.openpty()


def sockets() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


KINDS: dict[str, Callable[[], tuple[int, int]]] = {
    "pipe": os.pipe,
    "terminal": terminal,
    "socket": sockets,
}


@pytest.mark.parametrize("kind", KINDS)
def test_stalled_terminal_loses_turns_and_reports_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compat.trace.record.sink.WAITING", 1 << 14)
    monkeypatch.setenv("NO_COLOR", "1")
    reader, fd = KINDS[kind]()
    got: list[bytes] = []

    def reads() -> None:
        try:
            while data := os.read(reader, 1 << 16):
                got.append(data)
        except OSError:
            # As Linux ends a terminal.
            return

    turn = b'{"e":"turn","t":%d,"n":%d,"by":"select","channels":7}\n'
    with open(fd, "w", encoding="utf-8") as stream:
        live = Live(1 << 30, never, stream)
        live.write(HEADER, 0)
        number = 0
        while not live._queue.has_lost:
            number += 1
            live.write(turn % (number, number), number)
        thread = threading.Thread(target=reads)
        thread.start()
        while len(live._queue):
            live._queue.flush()
        for last in (number + 1, number + 2):
            live.write(turn % (last, last), last)
        live.close(last)
    thread.join()
    os.close(reader)
    shown = b"".join(got).decode().replace("\r", "").splitlines()
    (gap,) = (line for line in shown if "lines of the trace are missing" in line)
    assert f"turn {last} " in shown[-2]
    # No line was torn.
    rest = [line for line in shown if line != gap]
    assert all(line.startswith(("turn ", "  ")) for line in rest)


def test_unfinished_line_of_the_program_does_not_stall_the_trace() -> None:
    reader, fd = os.pipe()
    with open(fd, "w", encoding="utf-8") as stream:
        while write_some(fd, b"x" * 4096) == 4096:
            """Another process fills the pipe."""
        stream.write("unfinished")
        thread = threading.Thread(target=_print_a_turn, args=(stream,), daemon=True)
        thread.start()
        thread.join(DEADLINE)
        was_stalled = thread.is_alive()
        os.read(reader, 1 << 20)
        thread.join()
        assert not was_stalled
    os.close(reader)


def _print_a_turn(stream: TextIO) -> None:
    live = Live(1 << 30, never, stream)
    live.write(HEADER + block(1), 0)
    live.close(1)


@pytest.mark.parametrize("into", ["-", "/dev/stderr"])
def test_program_with_an_unread_standard_error_ends(into: str) -> None:
    program = (
        "import socket, compat\n"
        "class Echo(compat.async_chat):\n"
        "    def collect_incoming_data(self, data):\n"
        "        self.close()\n"
        "    def found_terminator(self): pass\n"
        "for _ in range(700):\n"
        "    ours, theirs = socket.socketpair()\n"
        "    Echo(ours).set_terminator(b'out')\n"
        "    theirs.sendall(b'hello' * 20)\n"
        "    compat.loop()\n"
        "print('over', flush=True)\n"
    )
    command = (sys.executable, "-m", "compat", "--trace", into, "-c", program)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as popen:
        try:
            assert popen.stdout is not None
            assert popen.stdout.read() == b"over\n"
            assert popen.wait(DEADLINE) == 0
        finally:
            popen.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("into", ["-", "fifo"])
def test_signal_stops_a_room_with_a_stalled_trace_reader(
    signum: signal.Signals, into: str, fifo: Path
) -> None:
    trace = str(fifo) if into == "fifo" else into
    where = ("--host", "127.0.0.1", "--port", "0", "--trace", trace)
    command = (sys.executable, "-m", "legacy_chat", "serve", *where)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as popen:
        try:
            assert popen.stdout is not None
            assert popen.stdout.readline() == b"***server start***\n"
            popen.send_signal(signum)
            assert popen.wait(DEADLINE) == 0
        finally:
            popen.kill()


def test_threads_lose_no_line_uncounted(fifo: Path) -> None:
    with reading(fifo) as fd:
        sink = File(str(fifo), 1 << 30, never)
        sink.write(HEADER, 0)

        def write() -> None:
            for at in range(400):
                sink.write(block(at), at)

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sink._queue is not None
        got = available(fd)
        while len(sink._queue):
            sink._queue.flush()
            got += available(fd)
        sink.close(400)
        got += available(fd)
    reader = Reader()
    (turn,) = read_lines(got.splitlines(True), reader)
    assert reader.lost_lines > 0
    assert reader.lost_lines + sum(1 for _ in turn.calls()) == 4 * 400 * 50


def test_trace_leaves_nothing_in_the_way_after_a_stall(fifo: Path) -> None:
    send = asyncore.dispatcher.send
    with reading(fifo), compat.tracing(fifo):
        assert asyncore.dispatcher.send is not send
    assert asyncore.dispatcher.send is send
