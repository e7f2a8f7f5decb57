"""A command that a signal ends leaves no server, no descendant, no part of a file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from legacy_chat.baseline import find_transcripts
from legacy_chat.baseline.replay.signals import Ended, ended_by_signals
from tests.baseline.rewrites import COMMAND
from tests.support import DEADLINE, ROOT, Peer, Process, process

# Connects to the test, which notices its end by the connection's end. Starts a child in
# another session that does the same. Accepts one client and sends nothing.
SERVER = """\
import os, signal, socket, subprocess, sys, threading
def report(text):
    control.sendall(text.encode() + b"\\n")
control = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
if sys.argv[1] == "child":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    report("child")
    # Until the test is over, or a signal kills it.
    control.recv(1)
    sys.exit()
if len(sys.argv) > 3:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = [sys.executable, "-I", "-S", __file__, "child", sys.argv[2]]
subprocess.Popen(child, start_new_session=True)
report(f"server {os.getppid()}")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
client, _ = listener.accept()
report("client")
threading.Event().wait()
"""

SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]


@contextmanager
def running(
    tmp_path: Path, *command: str, servers: int = 1
) -> Iterator[tuple[Process, list[Peer]]]:
    """Yield a command whose servers have a client each, and the servers' reports."""
    script = tmp_path / "server.py"
    script.write_text(SERVER, "utf8")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(DEADLINE)
        port = listener.getsockname()[1]
        server = f"{sys.executable} -I -S {script} {{port}} {port}"
        argv = [server if each == "SERVER" else each for each in command]
        tool = stack.enter_context(
            process(sys.executable, "-m", "legacy_chat", "baseline", *argv, cwd=ROOT)
        )
        peers = [Peer(listener.accept()[0]) for _ in range(2 * servers)]
        for peer in peers:
            if peer.wait_for("\n").startswith(b"server"):
                peer.wait_for("client")
        yield tool, peers


def commands(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    right = COMMAND.replace("NAME", "right")
    return {
        "check": ("check", "k3-out", "--command", "SERVER"),
        "record": (
            *("record", str(find_transcripts("k3-out")[0]), "--command", "SERVER"),
            *("-o", str(tmp_path / "recorded.jsonl")),
        ),
        "fuzz": ("fuzz", "--reference", "SERVER", "--command", right),
        "jobs": ("check", "kept", "--jobs", "2", "--command", "SERVER"),
    }


@pytest.mark.parametrize("name", SIGNALS)
def test_first_signal_raises_and_later_ones_do_not(name: str) -> None:
    signum = getattr(signal, name)
    before = signal.getsignal(signum)
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(signum)
        finally:
            signal.raise_signal(signum)
            cleaned.append(name)

    with pytest.raises(Ended, match=name), ended_by_signals():
        work()
    assert cleaned == [name]
    assert signal.getsignal(signum) is before


def test_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("check", name) for name in SIGNALS),
        *((command, "SIGTERM") for command in ("record", "fuzz", "jobs")),
    ],
)
def test_command_that_a_signal_ends_leaves_nothing(
    command: str, name: str, tmp_path: Path
) -> None:
    argv = commands(tmp_path)[command]
    servers = 2 if command == "jobs" else 1
    with running(tmp_path, *argv, servers=servers) as (tool, peers):
        tool.popen.send_signal(getattr(signal, name))
        assert tool.wait() == 2
        assert tool.err == [f"legacy-chat baseline: ended by {name}"]
        for peer in peers:
            peer.wait_for_end()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["server.py"]


def test_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER, "utf8")
    code = (
        "import sys; from legacy_chat.baseline.replay import supervisor\n"
        "supervisor.GRACE = 0.1; sys.exit(supervisor.main(sys.argv[1:]))"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        server = [sys.executable, "-I", "-S", str(script), "0"]
        server += [str(listener.getsockname()[1]), "ignores SIGTERM"]
        with subprocess.Popen(
            [sys.executable, "-c", code, *server],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        ) as supervisor:
            peers = [Peer(listener.accept()[0]) for _ in "sc"]
            for peer in peers:
                peer.wait_for("\n")
            assert supervisor.stdin is not None
            supervisor.stdin.close()
            for peer in peers:
                peer.wait_for_end()
    assert supervisor.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize("command", ["check", "jobs"])
@pytest.mark.skipif(sys.platform != "linux", reason="finds orphans in /proc")
def test_command_that_is_killed_leaves_no_server(command: str, tmp_path: Path) -> None:
    argv = commands(tmp_path)[command]
    servers = 2 if command == "jobs" else 1
    with running(tmp_path, *argv, servers=servers) as (tool, peers):
        tool.popen.kill()
        for peer in peers:
            peer.wait_for_end()


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_server_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, *commands(tmp_path)["check"]) as (tool, peers):
        (server,) = (peer for peer in peers if peer.got.startswith(b"server"))
        os.kill(int(server.got.split()[1]), signal.SIGKILL)
        server.wait_for_end()
        tool.wait()
