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

from legacy_chat.baseline.model.errors import LAST_WORDS, RunError

__all__ = ["Endpoint", "parse_address", "started"]

# Ports that Linux does not assign by itself: no other connection takes one between the
# check here and the server's bind.
PORTS = range(20000, 32000)
PORT_TRIES = 100

# Seconds between two attempts to connect to a server that was started.
LOOK = 0.005

GUARD = Path(__file__).with_name("supervisor.py")

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
            RunError: the server cannot be reached.
        """
        where = (host or self.host, self.port)
        try:
            sock = socket.create_connection(where, self.timeout)
        except ConnectionRefusedError:
            raise
        except (OSError, UnicodeError) as error:
            raise RunError(f"cannot connect to {_shown(*where)}: {error}") from error
        if sock.getsockname() == sock.getpeername():
            # No server listens: TCP has connected the socket to itself by chance.
            sock.close()
            raise ConnectionRefusedError(f"nobody listens at {_shown(*where)}")
        return sock

    def end(self) -> None:
        """Terminate the server if it was started here; safe from any thread.

        A server that was not started here keeps running.
        """


class _Started(Endpoint):
    """A server that was started in a separate process."""

    def __init__(
        self, command: list[str], host: str, port: int, timeout: float, log: IO[bytes]
    ) -> None:
        super().__init__(host, port, timeout)
        self._command = shlex.join(command)
        self._log = log
        self._listens = False
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={**os.environ, "PYTHONUTF8": "1"},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise RunError(f"cannot run {self._command}: {error}") from error

    def connect(self, host: str = "") -> socket.socket:
        end = time.monotonic() + self.timeout
        while True:
            try:
                sock = super().connect(host)
            except ConnectionRefusedError:
                if self._listens:
                    raise
                self._wait_a_moment(end)
            else:
                self._listens = True
                return sock

    def end(self) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def stop(self) -> None:
        """Terminate the server and its descendants, and wait for that."""
        with self._guard:
            self.end()

    def check(self) -> None:
        """Return when the command runs.

        Raises:
            RunError: the command cannot run.
        """
        why = self._guard.stdout.read() if self._guard.stdout is not None else b""
        if why:
            raise RunError(f"cannot run {self._command}: {why.decode('utf8')}")

    def _status(self, seconds: float) -> int | None:
        """Return the exit status, or None if the server still runs after *seconds*."""
        try:
            return self._guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _wait_a_moment(self, end: float) -> None:
        status = self._status(LOOK)
        if status is not None:
            said = f"has ended with status {status} before it listened"
            if not status:
                said += "; a server must stay in the foreground"
        elif time.monotonic() < end:
            return
        else:
            where = _shown(self.host, self.port)
            said = f"does not listen at {where} in {self.timeout:g} s"
        raise RunError(f"{self._command} {said}{self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode("utf8", "surrogateescape")
        return "".join(LAST_WORDS + line for line in text.splitlines()[-LAST_LINES:])


@contextmanager
def started(
    command: str,
    address: tuple[str, int] | None = None,
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
        RunError: the server cannot be started, or the command lacks ``{port}``.
    """
    if address is None and "{port}" not in command:
        raise RunError(
            f"the command {command!r} takes no {{port}}; where does it listen? "
            "Say so with --connect HOST:PORT"
        )
    with _port(host) as free, tempfile.TemporaryFile() as log:
        host, port = address or (host, free)
        words = {"{port}": str(port), "{host}": host, "{loop}": loop}
        argv = _words(command)
        for word, value in {**words, "{python}": sys.executable}.items():
            argv = [each.replace(word, value) for each in argv]
        if not argv:
            raise RunError("the command is empty")
        server = _Started(argv, host, port, timeout, log)
        try:
            server.check()
            yield server
        finally:
            server.stop()


def parse_address(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``, ``[::1]:PORT``, ``:PORT`` or ``PORT``.

    Raises:
        ValueError: *text* has another form.
    """
    host, _, port = text.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and len(port) <= 5
    if not is_number or int(port) > 65535:
        raise ValueError(f"{text[:60]!r} is no HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise RunError(f"the command {command!r} is wrong: {error}") from error


@contextmanager
def _port(host: str) -> Iterator[int]:
    """Yield a free port of *host*, reserved in this process until the end."""
    for _ in range(PORT_TRIES):
        port = random.choice(PORTS)
        with _lock:
            if port in _taken or not _is_free(host, port):
                continue
            _taken.add(port)
        try:
            yield port
        finally:
            with _lock:
                _taken.discard(port)
        return
    raise RunError(f"no port of {host} from {PORTS[0]} to {PORTS[-1]} is free")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, port))
    except (OSError, UnicodeError):
        return False
    return True


def _shown(host: str, port: int) -> str:
    return f"{'[' * (':' in host)}{host}{']' * (':' in host)}:{port}"
