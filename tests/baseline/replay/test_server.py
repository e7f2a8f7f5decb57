"""A server is started on a free port, and terminated with all its descendants."""

from __future__ import annotations

import os
import select
import socket
import sys
from pathlib import Path

import pytest

from legacy_chat.baseline import ReplayError, started
from legacy_chat.baseline.replay import server
from legacy_chat.baseline.replay.server import Endpoint, Target
from tests.support import DEADLINE

# Accepts at the given address, and writes its process ID to a file.
SERVER = """\
import os, pathlib, socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
pathlib.Path(sys.argv[3]).write_text(str(os.getpid()))
while True:
    client, _ = server.accept()
    client.sendall(b" ".join(arg.encode() for arg in sys.argv[4:]) + b"!")
    client.close()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER, "utf8")
    return path


def receive(endpoint: Endpoint) -> bytes:
    with endpoint.connect() as sock:
        return sock.recv(100)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_first_client_waits_until_the_server_listens(
    script: Path, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    command = f"{{python}} {script} {{host}} {{port}} {pid} on {{loop}} '{{x}} y'"
    with started(Target(command, loop="poll")) as endpoint:
        assert receive(endpoint) == b"on poll {x} y!"
        assert is_alive(int(pid.read_text()))
    assert not is_alive(int(pid.read_text()))
    with pytest.raises(ConnectionRefusedError):
        Endpoint(endpoint.host, endpoint.port).connect()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd")
def test_child_processes_of_the_command_end_too(script: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = f"sh -c '{sys.executable} {script} {{host}} {{port}} {pid}; :'"
    with started(Target(command)) as it:
        assert receive(it) == b"!"
        # The shell is its parent, so this process can wait for it only by a pidfd.
        process = os.pidfd_open(int(pid.read_text()))
    try:
        assert select.select([process], [], [], DEADLINE)[0]
    finally:
        os.close(process)


def test_a_fixed_address_needs_no_port(script: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    command = f"{{python}} {script} 127.0.0.1 {address[1]} {tmp_path / 'pid'} fixed"
    with started(Target(command, address)) as endpoint:
        assert receive(endpoint) == b"fixed!"


def test_error_of_a_server_that_exits_early_has_its_output() -> None:
    command = "{python} -c 'import sys; sys.exit(\"no {port} today\")'"
    with started(Target(command)) as endpoint, pytest.raises(ReplayError) as error:
        endpoint.connect()
    assert "has ended with status 1 before it listened" in str(error.value)
    assert f"| no {endpoint.port} today" in str(error.value)


def test_server_that_never_listens_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "STARTING", 0.2)
    never = "{python} -c 'import threading; threading.Event().wait()' {port}"
    with (
        started(Target(never), timeout=0.2) as endpoint,
        pytest.raises(ReplayError, match=r"listen at 127\.0\.0\.1:\d+ within 0\.2 s"),
    ):
        endpoint.connect()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program {port}", "cannot run no-such-program"),
        ("server", r"takes no \{port\}"),
    ],
)
def test_a_command_that_cannot_be_run_is_an_error(command: str, why: str) -> None:
    with pytest.raises(ReplayError, match=why), started(Target(command)):
        pytest.fail("the command was started")


def test_concurrent_servers_have_different_ports(script: Path, tmp_path: Path) -> None:
    command = f"{{python}} {script} {{host}} {{port}} {tmp_path / 'pid'}"
    with started(Target(command)) as one, started(Target(command)) as other:
        assert receive(one) == receive(other) == b"!"
        assert one.port != other.port
