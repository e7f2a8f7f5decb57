"""For any fault of the output, the program goes on, and written lines are whole."""

from __future__ import annotations

import asynchat
import asyncore
import contextlib
import io
import os
import platform
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import compat
from compat.trace.format import MIN_SIZE
from compat.trace.reader import Reader, read_trace
from compat.trace.record.live import Live
from compat.trace.record.session import Session
from compat.trace.record.sink import File
from tests.compat.trace.recording import Line, recorded
from tests.support import ROOT, Peer, Process, process, room

NOTHING = b'{"e":"code"}\n'


@pytest.mark.parametrize("limit", [MIN_SIZE, 3 * MIN_SIZE + 1])
def test_full_trace_is_intact_and_the_program_continues(
    limit: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recorded(tmp_path, max_bytes=limit) as trace:
        line = Line()
        for _ in range(1000):
            line.receive("selectors", b"x")
        assert Session.current is None
        line.close()
    assert len(line.received) == 1000
    assert limit - 1000 < trace.path.stat().st_size <= limit
    assert trace.reader.end_reason == "full"
    assert trace.lines[-1]["e"] == "end"
    assert "it is full" in caplog.text


def test_closed_trace_has_the_reason_closed(tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        Line().close()
    assert trace.reader.end_reason == "closed"


def test_second_trace_may_follow_but_not_overlap(tmp_path: Path) -> None:
    for word in (b"a", b"b"):
        with recorded(tmp_path) as trace:
            with (
                pytest.raises(RuntimeError, match="one trace at a time"),
                compat.tracing(tmp_path / "a.trace"),
            ):
                """Never here."""
            line = Line()
            line.push(word)
            line.close()
        assert [call.data for call in trace.calls("push")] == [word]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payload": -1}, "payload must be from 0 to 1099511627776, got -1"),
        ({"payload": 1.5}, "payload must be an integer, got 1.5"),
        ({"max_bytes": 4095}, "max_bytes must be from 4096 to .*, got 4095"),
        ({"max_bytes": "8k"}, "max_bytes must be an integer, got '8k'"),
        ({"max_bytes": 10**5000}, "max_bytes must be from .*, got an int of 16610"),
        ({"payload": 10**5000}, "payload must be from .*, got an int of 16610 bits"),
        ({"payload": -(10**5000)}, "payload must be from .*, got an int of 16610"),
    ],
)
def test_limits_are_checked_before_the_file_is_touched(
    options: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    wrong = pytest.raises((TypeError, ValueError), match=message)
    with wrong, compat.tracing(path, **options):
        """Never here."""
    assert path.read_text() == "kept"


def test_long_command_line_fits_into_the_smallest_trace(tmp_path: Path) -> None:
    with recorded(tmp_path, max_bytes=MIN_SIZE, program="x" * 100_000) as trace:
        """Nothing happens."""
    assert trace.reader.header is not None
    assert set(trace.reader.header.program) == {"x"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
def test_full_disk_ends_only_the_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with compat.tracing("/dev/full"):
        assert Session.current is None
        line = Line()
        line.receive("select", b"x")
        line.close()
    assert caplog.text.count("the trace ends here") == 1
    assert line.received == [b"x"]


def test_removed_file_does_not_stop_the_trace(tmp_path: Path) -> None:
    with compat.tracing(tmp_path / "a.trace"):
        (tmp_path / "a.trace").unlink()
        line = Line()
        line.receive("select", b"x")
        line.close()
    assert line.received == [b"x"]


def test_trace_that_cannot_begin_leaves_no_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*args: object) -> None:
        raise KeyboardInterrupt

    send = asyncore.dispatcher.send
    monkeypatch.setattr("compat.trace.record.session.SelectProxy", raises)
    with pytest.raises(KeyboardInterrupt), compat.tracing(tmp_path / "a.trace"):
        pass
    assert Session.current is None
    assert asyncore.dispatcher.send is send


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_closed_reader_ends_the_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = tmp_path / "a.trace"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with compat.tracing(fifo):
        line = Line()
        line.receive("select", b"x")
        assert os.read(reader, 10) == b'{"format":'
        os.close(reader)
        line.receive("select", b"y")
        line.close()
        assert Session.current is None
    assert "Broken pipe" in caplog.text


def test_reused_descriptor_of_the_trace_file_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with compat.tracing(tmp_path / "a.trace"):
            assert Session.current is not None
            sink = Session.current._sink
            assert isinstance(sink, File)
            fd = sink._fd
            os.dup2(ours.fileno(), fd)
            line = Line()
            line.receive("select", b"x")
            line.close()
        # The trace has not closed it either.
        os.write(fd, b"the program's own")
        os.close(fd)
        assert theirs.recv(100) == b"the program's own"
    assert "the program has closed it" in caplog.text


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[io.TextIOWrapper]:
    """A file in place of standard error."""
    with (tmp_path / "err").open("w") as stream:
        yield stream


def test_live_output_never_goes_to_a_reused_descriptor(
    terminal: io.TextIOWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    over = []
    live = Live(1 << 20, lambda: over.append(True), terminal)
    line = b'{"e":"turn","n":%d,"t":1}\n'
    header = b'{"format":"compat-trace","version":1}\n'
    live.write(header + line % 1 + line % 2, 0)
    before = os.fstat(terminal.fileno()).st_size
    assert before
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.dup2(ours.fileno(), terminal.fileno())
        live.write(line % 3, 0)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
    assert over == [True]
    # Where it would go by default is not to be trusted either.
    assert not caplog.text


def test_closed_terminal_ends_the_output(terminal: io.TextIOWrapper) -> None:
    over = []
    live = Live(1 << 20, lambda: over.append(True), terminal)
    terminal.close()
    live.write(b'{"format":"compat-trace","version":1}\n', 0)
    live.write(b'{"e":"turn","n":1}\n{"e":"turn","n":2}\n{"e":"turn","n":3}\n', 0)
    live.close(0)
    assert over


def test_live_trace_without_standard_error_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(OSError, match="closed"), compat.tracing("-"):
        """Never here."""
    assert Session.current is None


CRASH = """
import asyncore, os, signal, socket, sys
import compat

class Last(compat.async_chat):
    def collect_incoming_data(self, data):
        os.kill(os.getpid(), {signal})

    def found_terminator(self):
        pass

ours, theirs = socket.socketpair()
last = Last(ours)
last.set_terminator(b"x")
theirs.send(b"hello")
compat.loop(loop="{loop}")
"""


def test_crash_leaves_whole_lines_and_the_ready_channels(
    loop: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.trace"
    program = CRASH.format(signal=int(signal.SIGKILL), loop=loop)
    command = (sys.executable, "-m", "compat", "--trace", str(path), "-c", program)
    with process(*command, cwd=ROOT) as crashed:
        assert crashed.wait() == -signal.SIGKILL
    reader = Reader()
    turns = list(read_trace(path, reader))
    assert reader.is_intact
    assert reader.end_reason == ""
    assert turns[-1].why == "ready"
    assert [channel.class_name for channel in turns[-1].read] == ["Last"]


ECHO = """
import asyncore, sys
import compat

class Echo(asyncore.dispatcher):
    def handle_read(self):
        data = self.recv(100)
        if data:
            self.send(data)
            self.close()
            server.close()

    def writable(self):
        return False

class Server(asyncore.dispatcher):
    def handle_accepted(self, sock, address):
        Echo(sock)

server = Server()
server.create_socket()
server.bind(("127.0.0.1", 0))
server.listen(1)
print(server.socket.getsockname()[1], flush=True)
asyncore.loop()
print("over", compat.__name__)
"""


def talk(server: Process) -> None:
    peer = Peer(("127.0.0.1", int(server.wait_for(r"^(\d+)$")[1])))
    peer.send("hello")
    assert peer.wait_for_end() == b"hello"
    peer.close()
    assert server.wait() == 0
    server.wait_for("over")


def test_script_is_traced_from_the_command_line(tmp_path: Path) -> None:
    path, script = tmp_path / "a.trace", tmp_path / "old.py"
    script.write_text(ECHO)
    command = (sys.executable, "-m", "compat", "--trace", str(path), str(script))
    with process(*command, "--its", "own", cwd=ROOT) as server:
        talk(server)
        assert server.err == []
    reader = Reader()
    calls = [call for turn in read_trace(path, reader) for call in turn.calls()]
    assert reader.end_reason == "closed"
    (read,) = (call for call in calls if call.name == "handle_read")
    assert (read.received, read.sent, read.data) == (5, 5, b"hello")
    assert read.code is not None
    assert read.code.file == "old.py"


def test_script_with_its_own_compat_is_printed_live(tmp_path: Path) -> None:
    script = tmp_path / "old.py"
    script.write_text(ECHO.replace("compat.__name__", "compat.MINE"))
    (tmp_path / "compat.py").write_text("MINE = 'mine'")
    command = (sys.executable, "-m", "compat", "--trace", "-", str(script))
    with process(*command, cwd=ROOT) as server:
        talk(server)
        server.wait_for("over mine")
        server.wait_for("handle_read", err=True)
        server.wait_for("hello", err=True)
        assert not any("Traceback" in line for line in server.err)


def test_trace_of_a_room_has_its_calls(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with room("selectors", "--trace", str(path), "--trace-payload", "2") as (
        server,
        address,
    ):
        peer = Peer(address)
        peer.send("hello")
        peer.wait_for("hell")
        peer.close()
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
    reader = Reader()
    calls = [call for turn in read_trace(path, reader) for call in turn.calls()]
    assert reader.end_reason == "closed"
    assert [
        call.data for call in calls if call.name == "handle_read" and call.data
    ] == [b"he"]
    assert "soon" in {call.name for call in calls}


@pytest.mark.parametrize(
    "command",
    [
        ("compat", "--trace", "/nowhere/a.trace", "-c", "print('never')"),
        ("legacy_chat", "serve", "--port", "0", "--trace", "/nowhere/a.trace"),
    ],
)
def test_unwritable_file_is_reported_in_one_line(command: tuple[str, ...]) -> None:
    with process(sys.executable, "-m", *command, cwd=ROOT) as refused:
        assert refused.wait() == 1
    assert refused.out == []
    (line,) = refused.err
    assert "cannot write the trace /nowhere/a.trace" in line
    assert "No such file" in line


def test_blocks_of_many_threads_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    sink = File(str(path), 1 << 20, lambda: None)
    block = NOTHING * 50

    def write() -> None:
        for _ in range(50):
            sink.write(block, 0)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close(7)
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[:-1] == [NOTHING] * 10_000
    assert lines[-1] == b'{"e":"end","t":7,"why":"closed"}\n'


@pytest.mark.parametrize("module", ["compat", "legacy_chat"])
@pytest.mark.parametrize("option", [("--trace-payload", "none"), ("--trace-max", "1M")])
def test_trace_limits_without_a_trace_are_an_error(
    module: str, option: tuple[str, str]
) -> None:
    command = (sys.executable, "-m", module, *option)
    with process(*command, cwd=ROOT) as program:
        assert program.wait() == 2
    why = "--trace-payload and --trace-max need --trace FILE"
    assert program.err[-1].endswith(f": {why}")


def test_modules_shipped_with_a_program_are_traced(tmp_path: Path) -> None:
    for module in (asyncore, asynchat):
        shutil.copy(str(module.__file__), tmp_path / f"{module.__name__}.py")
    shutil.copytree(Path(compat.__file__).parent, tmp_path / "compat")
    path = tmp_path / "a.trace"
    run = f"import compat\nwith compat.tracing({str(path)!r}):\n    compat.loop()"
    # Without site-packages.
    command = (sys.executable, "-W", "ignore", "-S", "-c", run)
    with process(*command, env={"PYTHONPATH": str(tmp_path)}) as program:
        assert (program.wait(), program.err) == (0, [])
    reader = Reader()
    list(read_trace(path, reader))
    assert reader.header is not None
    expected = "asyncore of no package that is installed"
    if sys.version_info < (3, 12):
        expected = f"standard library of Python {platform.python_version()}"
    assert reader.header.asyncore == expected


@pytest.mark.parametrize(
    "program",
    [("nosuch.py",), ("-m", "no_such_module"), ("-c", "not Python")],
)
def test_program_that_cannot_start_keeps_the_last_trace(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "precious.trace"
    path.write_text("kept")
    command = (sys.executable, "-m", "compat", "--trace", str(path), *program)
    with process(*command, cwd=ROOT) as failing:
        assert failing.wait() != 0
    assert path.read_text() == "kept"


@pytest.mark.parametrize("left", [SystemExit, None])
def test_trace_of_an_idle_program_is_whole(
    left: type[BaseException] | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.trace"
    path.write_text("gone")
    with contextlib.suppress(SystemExit), compat.tracing(path):
        if left is not None:
            raise left
    reader = Reader()
    assert [each.number for each in read_trace(path, reader)] == [0]
    assert reader.end_reason == "closed"


def test_second_room_keeps_the_trace_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with room("selectors", "--trace", str(path)) as (first, (_, port)):
        traced = path.read_bytes()
        for where in (str(port), "0"):
            command = (sys.executable, "-m", "legacy_chat", "serve", "--port", where)
            options = ("--host", "127.0.0.1", "--trace", str(path))
            with process(*command, *options, cwd=ROOT) as second:
                assert second.wait() == 1
            assert second.out == []
            assert second.err == [
                f"legacy-chat: cannot write the trace {path}: "
                "another program is writing its trace to it"
            ]
        assert path.read_bytes().startswith(traced)
        os.kill(first.pid, signal.SIGTERM)
        assert first.wait() == 0
    reader = Reader()
    assert list(read_trace(path, reader))
    assert (reader.is_intact, reader.end_reason) == (True, "closed")


def test_room_that_cannot_listen_keeps_the_last_trace(tmp_path: Path) -> None:
    path, new = tmp_path / "precious.trace", tmp_path / "new.trace"
    path.write_text("kept")
    with room("selectors") as (_, (_, port)):
        for trace in (path, new):
            command = (sys.executable, "-m", "legacy_chat", "serve")
            options = ("--host", "127.0.0.1", "--port", str(port))
            argv = (*command, *options, "--trace", str(trace))
            with process(*argv, cwd=ROOT) as second:
                assert second.wait() == 1
            assert "cannot listen" in second.err[-1]
    assert path.read_text() == "kept"
    assert not new.exists()
