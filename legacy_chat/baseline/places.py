"""Where a server listens, and how one is started there.

Rule 1: a server that we start is told its port, and is not spoken to before it listens
there: the first client waits for that, so that the server sees no visitor but clients.
Rule 2: whoever we start, we end, with everything that it has started. A process of its
own does so (guard.py), and also if we are killed.
Rule 3: a server that ends by itself is an error with its own last words.
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

from legacy_chat.baseline.errors import LAST_WORDS, RunError

__all__ = ["Place", "parse_address", "started"]

# Ports that Linux gives to nobody by itself: no connection of somebody else takes one
# between our look and the server's bind.
PORTS = range(20000, 32000)
PORT_TRIES = 100

# Seconds between two looks whether a server that was started listens by now.
LOOK = 0.005

GUARD = Path(__file__).with_name("guard.py")

# Lines of its output that are shown of a server which failed.
LAST_LINES = 8

# Ports that are given out now, by whatever thread.
_taken: set[int] = set()
_lock = threading.Lock()


class Place:
    """Where a server listens.

    Args:
        timeout: seconds that a connection may take.
    """

    def __init__(self, host: str, port: int, timeout: float = 20.0) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout

    def connect(self, host: str = "") -> socket.socket:
        """A connected socket; by another address of the server if *host* is given.

        Raises:
            ConnectionRefusedError: nobody listens there.
            RunError: it cannot be reached.
        """
        where = (host or self.host, self.port)
        try:
            sock = socket.create_connection(where, self.timeout)
        except ConnectionRefusedError:
            raise
        except (OSError, UnicodeError) as error:
            raise RunError(f"cannot connect to {_shown(*where)}: {error}") from error
        if sock.getsockname() == sock.getpeername():
            # Nobody listens: TCP has connected the socket with itself, by chance.
            sock.close()
            raise ConnectionRefusedError(f"nobody listens at {_shown(*where)}")
        return sock

    def end(self) -> None:
        """End the server if it was started here; may be called from any thread.

        A server that runs anyway is left alone.
        """


class _Started(Place):
    """A server in a process of its own."""

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
        """End it and everything that it has started; wait until that is done."""
        with self._guard:
            self.end()

    def check(self) -> None:
        """Return when the command runs.

        Raises:
            RunError: it cannot run.
        """
        why = self._guard.stdout.read() if self._guard.stdout is not None else b""
        if why:
            raise RunError(f"cannot run {self._command}: {why.decode('utf8')}")

    def _status(self, seconds: float) -> int | None:
        """Its exit status, if it ends in so many seconds."""
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
) -> Iterator[Place]:
    """Start a server by its command; end it at the end.

    Args:
        command: words as in a shell, without one. ``{port}``, ``{host}``, ``{loop}``
            and ``{python}`` (this interpreter) are replaced.
        address: where it listens; None for a free port, which the command must take.
        timeout: seconds until it listens.

    Raises:
        RunError: it cannot be started, or the command takes no port.
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
    """The address that is written ``HOST:PORT``, ``[::1]:PORT``, ``:PORT`` or ``PORT``.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{text[:60]!r} is no HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise RunError(f"the command {command!r} is wrong: {error}") from error


@contextmanager
def _port(host: str) -> Iterator[int]:
    """A port of *host* that is free, and nobody else's here until the end."""
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
