"""``legacy-chat connect`` on streams that are closed, full, stalled or gone."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

import pytest

import compat
from compat.console import write_line
from legacy_chat import conversation
from legacy_chat.screen import FULL, Screen
from legacy_chat.secure_conversation import SecureConversation
from tests import secure
from tests.support import DEADLINE, Peer, room, turn_until

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextmanager
def server(*words: bytes, closes: bool = False) -> Iterator[tuple[int, Any]]:
    """Accept one client, send *words*; yield the port and an event that is set then."""
    accepted: list[socket.socket] = []
    arrived = threading.Event()

    def accept() -> None:
        accepted.append(listener.accept()[0])
        for each in words:
            with suppress(OSError):
                accepted[0].sendall(each)
        if closes:
            accepted[0].close()
        arrived.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], arrived
        finally:
            # Otherwise accept() would block if no client connected.
            with suppress(OSError):
                socket.create_connection(listener.getsockname()).close()
            for each in accepted:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)
            for each in accepted:
                each.close()


@contextmanager
def connect(
    port: int, *options: str, closed: tuple[int, ...] = (), **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command on these streams, without the descriptors in *closed*."""
    code = (
        f"import os, sys\nfor fd in {closed}: os.close(fd)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'legacy_chat', *sys.argv[1:]])"
    )
    argv = [sys.executable, "-c", code, "connect", "--port", str(port), *options]
    usual = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    client = subprocess.Popen(argv, stderr=subprocess.PIPE, **{**usual, **streams})
    try:
        yield client
    finally:
        client.kill()
        client.wait()
        for stream in (client.stdin, client.stdout, client.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def result(client: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Return the exit status and the standard error."""
    assert client.stderr is not None
    said = client.stderr.read().decode()
    return client.wait(DEADLINE), said


@pytest.mark.parametrize("stdin", ["closed", "null"])
def test_connect_without_input_leaves_the_room(stdin: str) -> None:
    closed = (0,) if stdin == "closed" else ()
    with (
        room("auto") as (chat, (_, port)),
        connect(port, closed=closed, stdin=subprocess.DEVNULL) as client,
    ):
        assert result(client) == (0, "")
        chat.wait_for("accept close")


def test_connect_with_unreadable_input_reports_the_error() -> None:
    with (
        open(os.devnull, "wb") as write_only,
        server() as (port, _),
        connect(port, stdin=write_only) as client,
    ):
        assert result(client) == (
            1,
            "legacy-chat: cannot talk: standard input: Bad file descriptor\n",
        )


def test_connect_without_output_reports_the_error() -> None:
    with server() as (port, _), connect(port, closed=(1,)) as client:
        assert result(client) == (
            1,
            "legacy-chat: cannot talk: standard output is closed\n",
        )


def test_connect_with_full_output_reports_the_error() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with (
        open("/dev/full", "wb") as full,
        server(b"hello") as (port, _),
        connect(port, stdout=full) as client,
    ):
        assert result(client) == (
            1,
            "legacy-chat: cannot talk: standard output: No space left on device\n",
        )


def test_connect_without_standard_error_prints_no_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with connect(port, closed=(2,)) as client:
        assert client.stdout is not None
        assert client.stdout.read() == b""
        assert client.wait(DEADLINE) == 1


@pytest.mark.parametrize(
    ("stream", "number"),
    [
        ("pipe", signal.SIGINT),
        ("pipe", signal.SIGHUP),
        ("terminal", signal.SIGTERM),
    ],
)
def test_signal_ends_connect_with_stalled_output(
    stream: str, number: signal.Signals
) -> None:
    ours, theirs = os.pipe() if stream == "pipe" else pty.openpty()
    # More bytes than a pipe and the screen take together.
    with (
        open(ours, "rb", 0) as reader,
        server(b"x" * 400_000) as (port, _),
        connect(port, stdout=theirs) as client,
    ):
        os.close(theirs)
        assert reader.read(1) == b"x"
        os.kill(client.pid, number)
        assert result(client) == (0, "")


def test_second_signal_ends_connect_to_a_room_that_never_stops() -> None:
    with server(*[b"x" * 1_000_000] * 100) as (port, _), connect(port) as client:
        assert client.stdout is not None
        while client.poll() is None:
            client.stdout.read(65536)
            os.kill(client.pid, signal.SIGTERM)
        assert result(client) == (0, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_in_a_handshake_ends_connect_at_once(number: signal.Signals) -> None:
    with (
        server() as (port, accepted),
        connect(port, "--tls", "127.0.0.1") as client,
    ):
        assert accepted.wait(DEADLINE)
        os.kill(client.pid, number)
        assert result(client) == (0, "")


def test_stalled_output_arrives_whole() -> None:
    said = b"0123456789" * 100_000
    with (
        server(said, closes=True) as (port, _),
        connect(port) as client,
    ):
        assert client.stdout is not None
        assert client.stdout.read() == said
        assert result(client) == (0, "")


def test_connect_takes_streams_that_are_non_blocking() -> None:
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    said = b"0123456789" * 30_000
    with (
        room("auto") as (_, (_, port)),
        open(ours_in, "wb", 0) as typed,
        open(ours_out, "rb", 0) as shown,
    ):
        for each in (theirs_in, theirs_out):
            os.set_blocking(each, False)
        with connect(port, stdin=theirs_in, stdout=theirs_out) as client:
            os.close(theirs_in)
            os.close(theirs_out)
            typing = threading.Thread(target=lambda: (typed.write(said), typed.close()))
            typing.start()
            assert shown.read() == said
            typing.join(DEADLINE)
            assert result(client) == (0, "")


def test_connect_ends_when_its_terminal_hangs_up() -> None:
    ours, theirs = pty.openpty()
    with room("auto") as (chat, (_, port)), connect(port, stdin=theirs) as client:
        os.close(theirs)
        chat.wait_for("enter")
        os.close(ours)
        assert result(client) == (0, "")
        chat.wait_for("accept close")


def test_end_of_input_waits_for_the_end_of_a_handshake(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "PATIENCE", 0.0)
    map: dict[int, Any] = {}
    ours, theirs = socket.socketpair()
    context = secure.client_context()
    with theirs:
        talk = SecureConversation(ours, sys.stdout, map)
        talk.start_tls(context, server_hostname="localhost")
        talk.leave()
        waited: list[int] = []
        compat.call_later(0.001, waited.append, 1, map=map)
        turn_until(loop, lambda: waited, map)
        assert talk.socket.fileno() >= 0
        talk.interrupt()
        assert map == {}


# The screen.


def test_full_screen_reports_when_it_has_room_again() -> None:
    changed = threading.Event()
    ours, theirs = os.pipe()
    with open(ours, "rb", 0) as reader, open(theirs, "w") as stream:
        screen = Screen(stream, changed.set)
        screen.write(b"x" * FULL * 4)
        assert screen.is_full
        left = FULL * 4
        while left:
            left -= len(reader.read(left))
        assert changed.wait(DEADLINE)
        screen.flush(DEADLINE)
        assert screen.failure is None


def test_screen_without_reader_reports_a_failure() -> None:
    changed = threading.Event()
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as stream:
        screen = Screen(stream, changed.set)
        screen.write(b"lost")
        assert changed.wait(DEADLINE)
        screen.flush(None)
        assert isinstance(screen.failure, BrokenPipeError)


# The server's own lines.


def write_lines(stream: TextIO, line: str) -> NoReturn:
    while True:
        write_line(stream, line)


@pytest.mark.parametrize("length", [1, 100, 1000, 5000])
def test_line_is_not_written_to_a_terminal_that_stalls(length: int) -> None:
    ours, theirs = pty.openpty()
    with (
        open(ours, "rb", 0),
        open(theirs, "w", encoding="utf8") as stream,
        pytest.raises(BlockingIOError),
    ):
        write_lines(stream, "x" * length)


def test_line_at_a_terminal_follows_printed_output() -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", 0) as screen, open(theirs, "w", encoding="utf8") as stream:
        stream.write("first ")
        write_line(stream, "大家好!")
        seen = b""
        while b"\n" not in seen:
            seen += screen.read(1024)
        assert seen.decode() == "first 大家好!\r\n"


def test_server_in_a_terminal_that_stalls_still_chats() -> None:
    ours, theirs = pty.openpty()
    command = ["serve", "--host", "127.0.0.1", "--port", "0", "-vv"]
    chat = subprocess.Popen(
        [sys.executable, "-m", "legacy_chat", *command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with open(ours, "rb", 0) as screen:
        try:
            seen = b""
            while b", loop" not in seen:
                seen += screen.read(4096)
            port = int(seen.split(b"INFO port ")[1].split(b",")[0])
            # From now on, the terminal has no reader.
            for _ in range(700):
                peer = Peer(("127.0.0.1", port))
                peer.send("hi.")
                peer.wait_for("hi.")
                peer.close()
            os.kill(chat.pid, signal.SIGTERM)
            assert chat.wait(DEADLINE) == 0
        finally:
            chat.kill()
            chat.wait()


def test_no_socket_gets_the_number_of_a_closed_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code = (
        "import os, sys\nfrom legacy_chat import cli\n"
        "for fd in range(3): os.close(fd)\nsys.stdin = sys.stdout = sys.stderr = None\n"
        f"cli.main(['connect', '--port', '{port}'])\n"
        "os._exit(len({os.fstat(fd).st_rdev for fd in range(3)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=DEADLINE)
    assert done.returncode == 1
