"""The address of a server, and the start of a server there.

Rule 1: a started server gets its port as an argument. The first client retries its
connect until the server listens, so the server sees no connections but the clients'.
Rule 2: every started server is terminated with all its descendants. A separate process
(supervisor.py) does that, also if this one is killed.
Rule 3: a server that exits before it listens is an error with the server's last output.
"""

from __future__ import annotations

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
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from legacy_chat.baseline.model.errors import OUTPUT_PREFIX, ReplayError

__all__ = ["Address", "Endpoint", "can_bind", "started"]

Address = tuple[str, int]

# Ports that Linux does not assign by itself: no other connection takes one between the
# check here and the server's bind.
PORTS = range(20000, 32000)
PORT_TRIES = 100

# Seconds between two attempts to connect to a server that was started.
RETRY = 0.005

SUPERVISOR = Path(__file__).with_name("supervisor.py")

# Lines of output that are shown of a server that failed.
LAST_LINES = 8

# Ports in use by servers of this process; all threads share the set.
_taken: set[int] = set()
_lock = threading.Lock()


class Endpoint:
    """The address of a server.

    Args:
        timeout: seconds to wait for a connection.
    """

    def __init__(self, host: str, port: int, timeout: float = 20.0) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout

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


class _StartedServer(Endpoint):
    """A server that was started in a separate process."""

    def __init__(
        self, argv: list[str], host: str, port: int, timeout: float, log: IO[bytes]
    ) -> None:
        super().__init__(host, port, timeout)
        self._command = shlex.join(argv)
        self._log = log
        self._listens = False
        try:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={**os.environ, "PYTHONUTF8": "1"},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ReplayError(f"cannot run {self._command}: {error}") from error

    def wait_until_running(self) -> None:
        """Return when the command runs.

        Raises:
            ReplayError: the command cannot run.
        """
        assert self._supervisor.stdout is not None
        if reason := self._supervisor.stdout.read():
            raise ReplayError(f"cannot run {self._command}: {reason.decode('utf8')}")

    def connect(self, host: str = "") -> socket.socket:
        end = time.monotonic() + self.timeout
        while True:
            try:
                sock = super().connect(host)
            except ConnectionRefusedError:
                if self._listens:
                    raise
                self._wait_for_retry(end)
            else:
                self._listens = True
                return sock

    def terminate(self) -> None:
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()

    def stop(self) -> None:
        """Terminate the server and its descendants, and wait for that."""
        with self._supervisor:
            self.terminate()

    def _wait_for_retry(self, end: float) -> None:
        try:
            status = self._supervisor.wait(RETRY)
            reason = f"has ended with status {status} before it listened"
            if not status:
                reason += "; a server must stay in the foreground"
        except subprocess.TimeoutExpired:
            if time.monotonic() < end:
                return
            where = _shown(self.host, self.port)
            reason = f"does not listen at {where} within {self.timeout:g} s"
        self._log.seek(0)
        output = self._log.read().decode("utf8", "surrogateescape")
        lines = (OUTPUT_PREFIX + line for line in output.splitlines()[-LAST_LINES:])
        raise ReplayError(f"{self._command} {reason}{''.join(lines)}")


@contextmanager
def started(
    command: str,
    address: Address | None = None,
    *,
    loop: str = "",
    host: str = "127.0.0.1",
    timeout: float = 20.0,
) -> Iterator[Endpoint]:
    """Start a server by its command, and terminate it at the end of the block.

    Args:
        command: words, split as by a shell but run without one. ``{port}``,
            ``{host}``, ``{loop}`` and ``{python}`` (this interpreter) are replaced.
        address: the address that the server listens on; None for a free port, which
            the command gets as ``{port}``.
        timeout: seconds until the server listens.

    Raises:
        ReplayError: the server cannot be started, or the command lacks ``{port}``.
    """
    if address is None and "{port}" not in command:
        raise ReplayError(
            f"the command {command!r} takes no {{port}}: add it, or name the server's "
            "address with --connect HOST:PORT"
        )
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ReplayError(f"the command {command!r} is wrong: {error}") from error
    if not argv:
        raise ReplayError("the command is empty")
    with _free_port(host) as free, tempfile.TemporaryFile() as log:
        host, port = address or (host, free)
        fields = {"port": port, "host": host, "loop": loop, "python": sys.executable}
        for name, value in fields.items():
            argv = [word.replace(f"{{{name}}}", str(value)) for word in argv]
        server = _StartedServer(argv, host, port, timeout, log)
        try:
            server.wait_until_running()
            yield server
        finally:
            server.stop()


def can_bind(host: str, port: int = 0) -> bool:
    """Return whether a socket can be bound there; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, port))
    except (OSError, UnicodeError):
        return False
    return True


@contextmanager
def _free_port(host: str) -> Iterator[int]:
    """Yield a free port of *host*, reserved in this process until the end."""
    for port in random.sample(PORTS, PORT_TRIES):
        with _lock:
            if port in _taken or not can_bind(host, port):
                continue
            _taken.add(port)
        try:
            yield port
        finally:
            with _lock:
                _taken.discard(port)
        return
    raise ReplayError(f"no port of {host} from {PORTS[0]} to {PORTS[-1]} is free")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
