"""The commands as users run them: processes, signals, pipes, exit statuses."""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import pty
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import legacy_chat
from compat.characters import visible
from legacy_chat import cli
from legacy_chat.limits import Limits
from tests.support import DEADLINE, Peer, process, room

PYTHON = sys.executable
COMMAND = (PYTHON, "-m", "legacy_chat")

# Number of connections made at once.
BURST = 800


def run(*argv: str, typed: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *argv],
        input=typed,
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1", **env},
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_room_chats(loop: str) -> None:
    with room(loop) as (server, address):
        a, b = Peer(address), Peer(address)
        b.send("b is in.")
        b.wait_for("b is in.")
        a.send("大家好!")
        a.wait_for("大家好!")
        b.wait_for(f"用户{a.name} 说:大家好!")
        a.send("out")
        a.wait_for_end()
        b.wait_for(f"用户{a.name} 说:用户{a.name}退出聊天")
        server.wait_for("accept close")
        b.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_server_after_a_flush(
    loop: str, number: signal.Signals
) -> None:
    with room(loop, "--send-queue", "0") as (server, address):
        slow, b = Peer(address), Peer(address)
        slow.send("in.")
        b.wait_for("说:in.")
        said = "x" * 3_000_000
        b.send(said)
        # The echo has arrived, so the room has read the data and queued it for the
        # slow client.
        while b.got.count(b"x") < len(said):
            b.receive()
        os.kill(server.pid, number)
        server.wait_for("shutting down", err=True)
        heard = slow.wait_for_end().decode().replace(f"用户{b.name} 说:", "")
        assert heard == "in." + said
        assert server.wait() == 0
        assert "Traceback" not in "\n".join(server.err)


def test_second_signal_does_not_wait_for_a_stalled_peer() -> None:
    with room("auto", "--grace", "3600", "--send-queue", "0") as (server, address):
        deaf, b = Peer(address), Peer(address)
        deaf.send("in.")
        b.wait_for("说:in.")
        b.got = b""
        # More than any kernel buffers for a connection: the rest is the room's queue.
        for _ in range(400):
            b.send(b"x" * 65536)
            while len(b.got) < 65536:
                b.receive()
            b.got = b""
        os.kill(server.pid, signal.SIGTERM)
        server.wait_for("shutting down", err=True)
        assert b.wait_for_end() == b""
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
        server.wait_for("the grace period is over: closing 1 clients", err=True)


def test_server_that_shuts_down_accepts_no_client(loop: str) -> None:
    with room(loop) as (server, address):
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


def test_port_in_use_is_one_line_and_status_1() -> None:
    with room("auto") as (_, address):
        done = run("serve", "--host", address[0], "--port", str(address[1]))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"port {address[1]}: Address already in use" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["serve --host", "connect"])
def test_name_that_does_not_resolve_is_one_line_and_status_1(command: str) -> None:
    # A label of 64 letters is too long for DNS: rejected without a request.
    done = run(*command.split(), "x" * 64 + ".example")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "legacy-chat: cannot" in done.stderr


def test_refused_connection_is_one_line_and_status_1() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = run("connect", "--port", str(closed.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Connection refused" in done.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("serve --port 65536", "a whole number from 0 to 65535, got '65536'"),
        ("serve --port x", "a whole number from 0 to 65535, got 'x'"),
        ("connect --port 6_5", "a whole number from 0 to 65535, got '6_5'"),
        ("serve --port ٣", "a whole number from 0 to 65535, got '٣'"),
        ("serve --grace ３", "a number from 0 to 86400, got '３'"),
        ("serve --backlog 0", "a whole number from 1 to 65535, got '0'"),
        ("serve --grace never", "a number from 0 to 86400, got 'never'"),
        ("serve --grace 86401", "a number from 0 to 86400, got '86401'"),
        ("serve --max-clients -1", "a whole number from 0 to 1,000,000,000,000, got"),
        (
            "serve --max-per-address x",
            "a whole number from 0 to 1,000,000,000,000, got",
        ),
        ("serve --send-queue 1e6", "a whole number from 0 to 1,000,000,000,000, got"),
        ("serve --flood-bytes nan", "0 or a number from 1 to 1,000,000,000,000, got"),
        ("serve --flood-bytes 1e-307", "number from 1 to 1,000,000,000,000, got '1e-3"),
        ("serve --flood-messages 1e-4", "from 0.001 to 1,000,000,000,000, got '1e-4'"),
        ("serve --flood-burst 0", "a number from 0.01 to 3600, got '0'"),
        ("serve --idle -1", "0 or a number from 0.05 to 86400, got '-1'"),
        ("serve --idle 1e-9", "0 or a number from 0.05 to 86400, got '1e-9'"),
        ("serve --keepalive 40000", "a whole number from 0 to 32767, got '40000'"),
        ("serve --tls-timeout 0", "a number from 0.01 to 86400, got '0'"),
        (f"serve --backlog {'9' * 5000}", "a whole number from 1 to 65535, got '999"),
        ("serve --terminator=", "must have at least one byte, got ''"),
        (
            r"serve --terminator \q",
            r"escapes must be \r, \n, \t, \0, \\ or \xHH, got '\q'",
        ),
        ("serve --metrics 9100", "must be HOST:PORT, such as [::1]:9100, got '9100'"),
        ("serve --metrics host:http", "port must be a whole number from 0 to 65535, g"),
        ("serve --log-format xml", "invalid choice: 'xml'"),
        ("serve --loop epoll", "loop='epoll' is none of"),
        ("listen", "invalid choice: 'listen'"),
    ],
)
def test_invalid_arguments_give_status_2(argv: str, said: str) -> None:
    with (
        pytest.raises(SystemExit) as ended,
        contextlib.redirect_stderr(io.StringIO()) as shown,
    ):
        cli.main(argv.split())
    assert ended.value.code == 2
    assert said in shown.getvalue()


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", "--terminator", ""],
        ["serve", "--port", "5\n6\r\x1b[2J\u2028"],
        ["serve", "--no\nsuch\u202eoption"],
        ["connect", "a host", "one\ntoo many"],
        ["no such\ncommand"],
    ],
)
def test_command_line_error_is_one_line(argv: list[str]) -> None:
    done = run(*argv)
    assert done.returncode == 2
    assert done.stderr.startswith("legacy-chat")
    assert done.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("command", ["serve --host", "connect"])
@pytest.mark.parametrize("host", ["5\n", "\x1b[2J", "a\r\u2028b", "\udcff\u202e"])
def test_unusable_host_is_shown_on_one_line(command: str, host: str) -> None:
    done = run(*command.split(), host, "--port", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("legacy-chat: cannot ")
    assert done.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_error_that_standard_error_refuses_keeps_its_status(redirected: str) -> None:
    words = shlex.join([*COMMAND, "serve", "--host", "5\n"])
    done = subprocess.run(
        ["sh", "-c", f"exec {words} {redirected}"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_every_option_reaches_the_server() -> None:
    given = (
        "--port 0 --host 127.0.0.1 --backlog 7 --max-clients 5 --max-per-address 2 "
        "--send-queue 1000 --flood-bytes 100 --flood-messages 0.5 --flood-burst 3 "
        r"--idle 60 --keepalive 30 --terminator /quit\r\n --metrics 127.0.0.1:0"
    )
    made: list[legacy_chat.ChatServer] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "serve", lambda args: made.append(cli.make_server(args)))
        cli.main(given.split())
    (server,) = made
    assert server.limits == Limits(5, 2, 1000, 100, 0.5, 3, 60, 30, b"/quit\r\n")
    assert server.metrics is not None
    server.close()


def test_burst_of_800_connects_before_any_is_accepted() -> None:
    """The command line's default backlog is enough; ChatServer's is not."""
    resource = pytest.importorskip("resource")
    somaxconn = Path("/proc/sys/net/core/somaxconn")
    if somaxconn.exists() and int(somaxconn.read_text("ascii")) < BURST:
        pytest.skip("this system lets fewer connections wait")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 2 * BURST:
        pytest.skip("this system has too few descriptors")
    made: list[legacy_chat.ChatServer] = []
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(cli, "serve", lambda args: made.append(cli.make_server(args)))
        cli.main(["--host", "127.0.0.1", "--port", "0"])
        stack.callback(made[0].close)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * BURST, limits[1]))
        waiting = selectors.DefaultSelector()
        stack.callback(waiting.close)
        for _ in range(BURST):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            assert sock.connect_ex(("127.0.0.1", made[0].port)) in (
                0,
                errno.EINPROGRESS,
            )
            waiting.register(sock, selectors.EVENT_WRITE)
        while waiting.get_map():
            connected = waiting.select(DEADLINE)
            assert connected, f"{len(waiting.get_map())} of {BURST} do not connect"
            for key, _ in connected:
                waiting.unregister(key.fileobj)


def test_tutorials_backlog_stays_the_default_of_the_server() -> None:
    assert (
        inspect.signature(legacy_chat.ChatServer).parameters["list_num"].default == 20
    )


def test_client_and_room_share_a_custom_terminator() -> None:
    terminator = ("--terminator", r"/quit\r\n")
    with room("auto", *terminator) as (server, address):
        b = Peer(address)
        b.send("b is in.")
        b.wait_for("b is in.")
        done = run("connect", "--port", str(address[1]), *terminator, typed=b"get out!")
        assert (done.returncode, done.stdout, done.stderr) == (0, "get out!", "")
        assert b.wait_for("退出聊天").count(b"get out!") == 1
        server.wait_for("accept close")
        b.close()


def test_wrong_compat_loop_is_status_2_with_the_names() -> None:
    done = run("serve", "--port", "0", COMPAT_LOOP="epoll")
    assert done.returncode == 2
    names = "auto, select, poll, selectors"
    assert f"COMPAT_LOOP='epoll' is none of {names}" in done.stderr


def test_no_command_serves_as_the_tutorials_script_did() -> None:
    parsed: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "serve", lambda given: parsed.append(given) or 0)
        assert cli.main([]) == 0
        assert cli.main(["--port", "5"]) == 0
    assert (parsed[0].host, parsed[0].port) == ("0.0.0.0", 19528)
    assert parsed[1].port == 5


@pytest.mark.parametrize("argv", ["--help", "serve --help", "connect --help"])
def test_help_has_examples(argv: str) -> None:
    done = run(*argv.split())
    assert done.returncode == 0
    assert "examples:\n  legacy-chat" in done.stdout


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"{legacy_chat.__version__}\n"


def test_verbose_logs_the_loop_and_quiet_nothing() -> None:
    with room("poll") as (server, _):
        server.wait_for(r"INFO port \d+, loop poll \(requested by name\)", err=True)
    with process(*COMMAND, "-q", "--host", "127.0.0.1", "--port", "0") as server:
        server.wait_for("server start")
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
        assert server.err == []


def test_piped_input_is_sent_echoed_and_ends_the_client() -> None:
    with room("auto") as (_, address):
        b = Peer(address)
        b.send("b is in.")
        b.wait_for("b is in.")
        done = run("connect", "--port", str(address[1]), typed="hello 你好".encode())
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello 你好", "")
        got = b.wait_for("退出聊天").decode()
        assert re.search(
            r"^b is in\.用户\S+ 说:hello 你好用户\S+ 说:用户\S+退出聊天$", got
        )
        b.close()


def test_large_pipe_comes_back_whole() -> None:
    text = "0123456789你好" * 150_000
    with room("auto") as (_, address):
        done = run("connect", "--port", str(address[1]), typed=text.encode())
    assert done.stdout == text
    assert done.returncode == 0


CONTROLS = "\x1b[31mred\x9b2J\x07\x00\u202e\u200b\ufeff\xad\ufff9\U000e0041\r\ttab.\n"


def test_peers_control_characters_do_not_reach_the_terminal() -> None:
    ours, theirs = pty.openpty()
    with room("auto") as (_, address), open(ours, "rb", 0):
        command = [*COMMAND, "connect", "--port", str(address[1])]
        client = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, env={**os.environ, "PYTHONUTF8": "1"}
        )
        os.close(theirs)
        try:
            os.write(ours, b"hi!\n")
            # The terminal echoes the typed line, then the room does.
            shown = b""
            while shown.count(b"hi!") < 2:
                shown += os.read(ours, 65536)
            a = Peer(address)
            a.send(CONTROLS)
            while b"tab." not in shown:
                shown += os.read(ours, 65536)
            seen = shown.decode().split(" 说:")[1]
            assert seen.startswith(
                r"\x1b[31mred\x9b2J\x07\x00\u202e\u200b\ufeff\xad\ufff9\U000e0041\x0d"
                "\ttab."
            )
            a.close()
        finally:
            client.kill()
            client.wait()


def test_piped_output_has_the_raw_bytes() -> None:
    said = CONTROLS.encode() + b"\xff\xfe end"
    with room("auto") as (_, address):
        client = subprocess.Popen(
            [*COMMAND, "connect", "--port", str(address[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdin
        assert client.stdout
        client.stdin.write(said)
        client.stdin.close()
        assert client.stdout.read() == said
        assert client.wait() == 0
        client.stdout.close()


def test_visible_lets_text_newlines_and_tabs_through() -> None:
    text = "a\tb\n大家 😀 é"
    assert visible(text) == text
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    assert all(c.isprintable() or c in "\n\t" for c in visible(controls))


def test_client_ends_at_once_when_the_server_closes() -> None:
    with (
        room("auto") as (server, address),
        process(
            *COMMAND, "connect", "--port", str(address[1]), stdin=subprocess.PIPE
        ) as client,
    ):
        server.wait_for("client 127.0.0.1 enter")
        os.kill(server.pid, signal.SIGTERM)
        # The client's standard input is still open, and nothing is written to it.
        assert client.wait() == 0
        assert client.err == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_lets_the_client_leave_the_room(number: signal.Signals) -> None:
    with room("auto") as (server, address):
        b = Peer(address)
        b.send("b is in.")
        b.wait_for("b is in.")
        with process(
            *COMMAND, "connect", "--port", str(address[1]), stdin=subprocess.PIPE
        ) as client:
            assert client.popen.stdin is not None
            print("hi!", file=client.popen.stdin, flush=True)
            client.wait_for("hi!")
            os.kill(client.pid, number)
            assert client.wait() == 0
            assert client.err == []
        b.wait_for("退出聊天")
        server.wait_for("accept close")
        b.close()


def test_ctrl_d_leaves_and_lines_are_sent_without_newline() -> None:
    with room("auto") as (server, address):
        b = Peer(address)
        b.send("b is in.")
        b.wait_for("b is in.")
        ours, theirs = pty.openpty()
        with process(
            *COMMAND, "connect", "--port", str(address[1]), stdin=theirs
        ) as client:
            os.close(theirs)
            os.write(ours, b"hi there!\n")
            b.wait_for("说:hi there!")
            os.write(ours, b"\x04")
            assert client.wait() == 0
            assert client.err == []
        assert b"\n" not in b.wait_for("退出聊天")
        os.close(ours)
        b.close()
        server.wait_for("accept close")


def test_closed_reader_ends_the_client_without_a_traceback() -> None:
    with room("auto") as (_, address):
        client = subprocess.Popen(
            [*COMMAND, "connect", "--port", str(address[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert client.stdin
        assert client.stdout
        assert client.stderr
        client.stdout.close()
        client.stdin.write(b"hi!")
        client.stdin.close()
        assert client.wait(20) == 1
        assert client.stderr.read() == b""
        client.stderr.close()


def test_low_descriptor_limit_is_logged() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256));"
        "from legacy_chat.cli import raise_descriptor_limit;"
        "import logging; logging.basicConfig();"
        "print(raise_descriptor_limit('poll'), "
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    with process(PYTHON, "-c", script) as limited:
        limited.wait_for("^256 256$")
        limited.wait_for("allows only 256 descriptors", err=True)


def test_descriptor_limit_for_select_is_at_most_1024() -> None:
    script = (
        "from legacy_chat.cli import raise_descriptor_limit;"
        "print(raise_descriptor_limit('select'))"
    )
    with process(PYTHON, "-c", script) as limited:
        assert int(limited.wait_for(r"^(\d+)$")[1]) <= 1024


def test_tutorials_two_thread_client_reaches_the_server() -> None:
    with room("auto") as (_, address):
        script = (
            f"from legacy_chat import client; client.port = {address[1]}; client.loop()"
        )
        with process(PYTHON, "-c", script, stdin=subprocess.PIPE) as client:
            assert client.popen.stdin is not None
            print("hi!", file=client.popen.stdin, flush=True)
            # The other thread may print its prompt in the middle of the line.
            client.wait_for(r"revice from *(input:)? *b'hi!'")
            client.popen.stdin.close()
            assert client.wait() == 0


def test_tutorials_client_ends_when_the_server_goes() -> None:
    with room("auto") as (server, address):
        script = (
            f"from legacy_chat import client; client.port = {address[1]}; client.loop()"
        )
        with process(PYTHON, "-c", script, stdin=subprocess.PIPE) as client:
            assert client.popen.stdin is not None
            print("hi!", file=client.popen.stdin, flush=True)
            client.wait_for("revice from")
            os.kill(server.pid, signal.SIGTERM)
            assert server.wait() == 0
            lines = 0
            while client.popen.poll() is None and lines < 1000:
                lines += 1
                with contextlib.suppress(BrokenPipeError):
                    print("still there?", file=client.popen.stdin, flush=True)
            assert client.wait() == 0
