"""Servers under test: their addresses, and their start by a command.

Rule 1: a started server gets its port as an argument. The first client retries its
connect until the server listens, so the server sees no connections but the clients'.
Rule 2: every started server is terminated with all its descendants. A separate process
(supervisor.py) does that, also if this one is killed.
Rule 3: a server that exits before it listens is an error with the server's last output.
"""

from __future__ import annotations

import itertools
import os
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import IO, NamedTuple

from legacy_chat.baseline.model.errors import OUTPUT_PREFIX, ReplayError

__all__ = ["Address", "Endpoint", "LazyServer", "Target", "can_bind", "started"]

Address = tuple[str, int]

# Ports that Linux does not assign by itself: no other connection takes one between the
# check here and the server's bind. Each server of this process gets another one.
PORTS = range(20000, 32000)
PORT_TRIES = 100

# Minimum seconds for a server to listen: a short timeout is meant for its answers, and
# an interpreter starts slowly on a busy machine.
STARTING = 20.0

# Seconds between two attempts to connect to a server that was started.
RETRY = 0.005

SUPERVISOR = Path(__file__).with_name("supervisor.py")

# Lines of output that are shown of a server that failed.
LAST_LINES = 8

_numbers = itertools.count(random.randrange(len(PORTS)))
_ports_lock = threading.Lock()


class Target(NamedTuple):
    """A server that runs, or that a command starts.

    Attributes:
        command: words, split as by a shell but run without one; "" if the server runs.
            ``{port}``, ``{host}``, ``{loop}`` and ``{python}`` (this interpreter) are
            replaced.
        address: the address of the server; None for a free port, as ``{port}``.
        loop: the replacement of ``{loop}`` in the command.
    """

    command: str = ""
    address: Address | None = None
    loop: str = ""


@dataclass(eq=False)
class Endpoint:
    """The address of a server; *timeout* is the maximum seconds of a connect."""

    host: str
    port: int
    timeout: float = 20.0

    def connect(self, host: str = "") -> socket.socket:
        """Return a connected socket; *host* is another address of the server.

        Raises:
            ConnectionRefusedError: no server listens there.
            ReplayError: the server cannot be reached.
        """
        address = (host or self.host, self.port)
        try:
            sock = socket.create_connection(address, self.timeout)
        except ConnectionRefusedError:
            raise
        except (OSError, UnicodeError) as error:
            where = _shown(*address)
            raise ReplayError(f"cannot connect to {where}: {error}") from error
        if sock.getsockname() == sock.getpeername():
            # No server listens: TCP has connected the socket to itself by chance.
            sock.close()
            raise ConnectionRefusedError(f"no server listens at {_shown(*address)}")
        return sock

    def terminate(self) -> None:
        """Terminate the server if it was started here; safe from any thread."""


class LazyServer:
    """One worker's server, started on demand, and again after close()."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._stack = ExitStack()
        self._key: tuple[Target, str] | None = None
        self._endpoint: Endpoint | None = None
        self.is_aborted = False

    def endpoint(self, target: Target, host: str = "") -> Endpoint:
        """Return the address of *target*, which is started if needed."""
        if self._endpoint is None or self._key != (target, host):
            self.close()
            self._key = target, host
            server = started(target, host, self._timeout)
            self._endpoint = self._stack.enter_context(server)
        if self.is_aborted:
            raise ReplayError("the run was aborted")
        return self._endpoint

    def abort(self) -> None:
        """Terminate a server that was started; safe from any thread.

        The conversation with the server fails, and endpoint() raises from now on.
        """
        self.is_aborted = True
        if self._endpoint is not None:
            self._endpoint.terminate()

    def close(self) -> None:
        """Terminate the server; the next conversation starts another one."""
        self._endpoint = None
        self._stack.pop_all().close()


@contextmanager
def started(
    target: Target, host: str = "", timeout: float = STARTING
) -> Iterator[Endpoint]:
    """Start a server by its command, and terminate it at the end of the block.

    Args:
        host: the host that the server listens on, if the target has no address.
        timeout: seconds to wait for a connection, at least STARTING for the first.
    """
    command, address, loop = target
    if not command and address is not None:
        yield Endpoint(*address, timeout)
        return
    if address is None and "{port}" not in command:
        raise ReplayError(
            f"the command {command!r} takes no {{port}}: add it, or name the server's "
            "address with --connect HOST:PORT"
        )
    host = host or "127.0.0.1"
    host, port = address or (host, _free_port(host))
    fields = {"port": str(port), "host": host, "loop": loop, "python": sys.executable}
    argv = _argv(command, fields)
    # The end of the block closes the supervisor's standard input, and waits for it.
    with tempfile.TemporaryFile() as log, _supervised(argv, log) as process:
        assert process.stdout is not None
        if reason := process.stdout.read():
            raise ReplayError(f"cannot run {shlex.join(argv)}: {reason.decode('utf8')}")
        timeout = max(timeout, STARTING)
        command = shlex.join(argv)
        yield _StartedServer(
            host, port, timeout, command=command, supervisor=process, log=log
        )


def can_bind(host: str, port: int = 0) -> bool:
    """Return whether a socket can be bound there; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, port))
    except (OSError, UnicodeError):
        return False
    return True


@dataclass(eq=False)
class _StartedServer(Endpoint):
    """A server that was started in a separate process."""

    _: KW_ONLY
    command: str
    supervisor: subprocess.Popen[bytes]
    log: IO[bytes]
    listens: bool = False

    def connect(self, host: str = "") -> socket.socket:
        end = time.monotonic() + self.timeout
        while not self.listens:
            try:
                sock = super().connect(host)
            except ConnectionRefusedError:
                self._wait_for_retry(end)
            else:
                self.listens = True
                return sock
        return super().connect(host)

    def terminate(self) -> None:
        assert self.supervisor.stdin is not None
        self.supervisor.stdin.close()

    def _wait_for_retry(self, end: float) -> None:
        try:
            status = self.supervisor.wait(RETRY)
            reason = f"has ended with status {status} before it listened"
            if not status:
                reason += "; a server must stay in the foreground"
        except subprocess.TimeoutExpired:
            if time.monotonic() < end:
                return
            where = _shown(self.host, self.port)
            reason = f"does not listen at {where} within {self.timeout:g} s"
        self.log.seek(0)
        output = self.log.read().decode("utf8", "backslashreplace")
        lines = (OUTPUT_PREFIX + line for line in output.splitlines()[-LAST_LINES:])
        raise ReplayError(f"{self.command} {reason}{''.join(lines)}")


def _supervised(argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Run the command under the supervisor, whose standard output has its failure."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            env={**os.environ, "PYTHONUTF8": "1"},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ReplayError(f"cannot run {shlex.join(argv)}: {error}") from error


def _argv(command: str, fields: dict[str, str]) -> list[str]:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ReplayError(f"the command {command!r} is wrong: {error}") from error
    if not argv:
        raise ReplayError("the command is empty")
    for name, value in fields.items():
        argv = [word.replace(f"{{{name}}}", value) for word in argv]
    return argv


def _free_port(host: str) -> int:
    with _ports_lock:
        numbers = itertools.islice(_numbers, PORT_TRIES)
        ports = (PORTS[number % len(PORTS)] for number in numbers)
        port = next((port for port in ports if can_bind(host, port)), None)
    if port is not None:
        return port
    raise ReplayError(f"no port of {host} from {PORTS[0]} to {PORTS[-1]} is free")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
