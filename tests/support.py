"""Helpers of the tests: loops to run, peers to connect, servers in processes.

Rule 1: nothing sleeps. A test runs the loop until a predicate holds; only a test that
fails reaches a deadline.
Rule 2: peers are plain blocking sockets, and servers are real processes.
"""

from __future__ import annotations

import asyncore
import gc
import inspect
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import compat

# Seconds; only a failing test waits as long.
DEADLINE = 20.0

ROOT = Path(__file__).resolve().parent.parent

# The loops of compat, and the original loops that they must agree with.
OURS = tuple(compat.LOOPS)
ORIGINALS = ("asyncore.poll", "asyncore.poll2")


def turn_once(name: str, map: Any = None, timeout: float = 1.0) -> None:
    """Run one turn of the loop of that name, ours or an original."""
    if name in ORIGINALS:
        asyncore.loop(timeout, name == "asyncore.poll2", map, 1)
    else:
        compat.loop(timeout, map=map, count=1, loop=name)


def turn_until(
    name: str, holds: Callable[[], object], map: Any = None, timeout: float = 0.05
) -> None:
    """Run the loop until *holds()* is true."""
    end = time.monotonic() + DEADLINE
    while not holds():
        if time.monotonic() > end:
            _fail(f"after {DEADLINE:g} s of {name} it still does not hold: {holds}")
        turn_once(name, map, timeout)


def in_a_turn(name: str, act: Callable[[], object], map: Any = None) -> None:
    """Call *act* inside a turn of that loop, as a handler does."""

    class Once(asyncore.dispatcher):
        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.close()
            act()

        def handle_error(self) -> None:
            raise  # noqa: PLE0704  # a test's own error is to be seen

    ours, peer = socket.socketpair()
    with peer:
        once = Once(ours, map)
        peer.sendall(b"!")
        turn_until(name, lambda: not once._map.get(ours.fileno()), map)


def reset(sock: socket.socket) -> None:
    """Close a socket with a reset instead of a FIN."""
    reset_on_close(sock)
    sock.close()


def reset_on_close(sock: socket.socket) -> None:
    """Let the last close of a socket send a reset."""
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class Peer:
    """The peer's end: a blocking socket that keeps the bytes it receives.

    Attributes:
        got: every byte so far.
        name: ``{ip}{port}`` as the room writes it.
    """

    def __init__(self, address: tuple[str, int] | socket.socket) -> None:
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            self.sock = socket.create_connection(address, DEADLINE)
        self.sock.settimeout(DEADLINE)
        if self.sock.family != getattr(socket, "AF_UNIX", None):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ip, port = self.sock.getsockname()[:2]
            self.name = f"{ip}{port}"
        self.got = b""
        self.ended = False

    def send(self, data: bytes | str) -> None:
        """Send all of *data*."""
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def wait_for(self, data: bytes | str) -> bytes:
        """Receive until *data* has arrived; return all bytes so far."""
        wanted = data.encode() if isinstance(data, str) else data
        while wanted not in self.got:
            self.receive(f"{wanted!r} did not come")
            if self.ended and wanted not in self.got:
                _fail(f"{wanted!r} did not come before the end: {self.got[-400:]!r}")
        return self.got

    def wait_for_end(self) -> bytes:
        """Receive until the server closes; return all bytes so far."""
        while not self.ended:
            self.receive("the connection did not end")
        return self.got

    def receive_available(self) -> bytes:
        """Receive without blocking: the loop runs in this thread, too."""
        while not self.ended and select.select([self.sock], [], [], 0)[0]:
            self.receive()
        return self.got

    def close(self) -> None:
        self.sock.close()

    def __del__(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with a reset instead of a FIN."""
        reset(self.sock)

    def receive(self, what: str = "nothing came") -> None:
        """Wait for some bytes, or for the end."""
        try:
            data = self.sock.recv(1 << 20)
        except TimeoutError:
            _fail(f"{what} in {DEADLINE:g} s: {self.got[-400:]!r}")
        except ConnectionResetError:
            data = b""
        self.got += data
        self.ended = not data


class Process:
    """One of our programs in its own process, observed from outside."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((popen.stdout, self.out), (popen.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(
        self, pattern: str, err: bool = False, since: int = 0
    ) -> re.Match[str]:
        """Wait for a matching line of the output, from line number *since* on."""
        lines = self.err if err else self.out
        end = time.monotonic() + DEADLINE
        with self._news:
            while True:
                for line in lines[since:]:
                    if match := re.search(pattern, line):
                        return match
                if not self._news.wait(end - time.monotonic()):
                    _fail(f"no line {pattern!r}:\n{self.out}\n{self.err}")

    def wait(self) -> int:
        """Wait until the process ends; return its exit status."""
        # First wait for the end of the output, which wakes us: Popen.wait() with a
        # timeout does not block but polls, with pauses of up to 50 ms.
        self.read_to_the_end()
        return self.popen.wait(DEADLINE)

    def read_to_the_end(self) -> None:
        """Wait until the whole output is in ``out`` and ``err``."""
        for reader in self._readers:
            reader.join(DEADLINE)

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line.rstrip("\n"))
                self._news.notify_all()


@contextmanager
def process(*argv: str, **options: Any) -> Iterator[Process]:
    """Run a program; on exit, kill it if it still runs."""
    environment = {**os.environ, "PYTHONUTF8": "1", **options.pop("env", {})}
    popen = subprocess.Popen(
        argv,
        text=True,
        encoding="utf-8",
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **options,
    )
    running = Process(popen)
    try:
        yield running
    finally:
        popen.kill()
        popen.wait()
        running.read_to_the_end()
        for stream in (popen.stdin, popen.stdout, popen.stderr):
            if stream is not None:
                # Closing flushes input that the program no longer reads.
                with suppress(BrokenPipeError):
                    stream.close()


class WatchedLock:
    """A reentrant lock that reports when a thread has to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.has_to_wait = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.has_to_wait.set()
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


# Where Python checks for signals: when a Python function begins, and when a call of a C
# function ends.
LOOKS = ("call", "c_return")


def in_another_thread(act: Callable[[], object]) -> None:
    """Call *act* in a thread, and wait for its end."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def is_interrupted(
    moment: int,
    call: Callable[[], object],
    files: Collection[str] = (),
    events: Collection[str] = LOOKS,
) -> bool:
    """Call *call*; raise KeyboardInterrupt at that moment.

    Args:
        moment: number of the event at which to raise, from 1.
        files: count only events of functions in these files; none counts those of all
            functions, except calls that resume a generator: there Python 3.11 raises
            outside the generator's try, which no signal does.
        events: names of events, as in sys.setprofile.

    Returns:
        whether the call was interrupted; False if it ended before. ExitNow ends it too.
    """
    left = moment

    def counts(code: CodeType, event: str) -> bool:
        if event not in events:
            return False
        if files:
            return os.path.basename(code.co_filename) in files
        return event != "call" or not code.co_flags & inspect.CO_GENERATOR

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        left -= counts(frame.f_code, event)
        if not left:
            sys.setprofile(None)
            raise KeyboardInterrupt

    # An exception raised during garbage collection is lost.
    gc.disable()
    with suppress(KeyboardInterrupt, asyncore.ExitNow):
        try:
            sys.setprofile(look)
            call()
        finally:
            sys.setprofile(None)
            gc.enable()
    return left <= 0


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has, without standard output and error.

    A process opens these once more while it writes a line. Linux only.
    """
    folder = f"/proc/{pid}/fd"
    output = {os.readlink(f"{folder}/{fd}") for fd in (1, 2)}
    count = 0
    for fd in os.listdir(folder):
        # A descriptor that was open only for a line may be closed again.
        with suppress(FileNotFoundError):
            count += os.readlink(f"{folder}/{fd}") not in output
    return count


@contextmanager
def room(loop: str, *options: str) -> Iterator[tuple[Process, tuple[str, int]]]:
    """Run our server in its own process; yield the process and its address."""
    command = (sys.executable, "-m", "legacy_chat", "serve", "-v")
    where = ("--host", "127.0.0.1", "--port", "0", "--loop", loop)
    with process(*command, *where, *options) as server:
        server.wait_for(r"\*\*\*server start\*\*\*")
        port = server.wait_for(r"port (\d+), loop", err=True)[1]
        yield server, ("127.0.0.1", int(port))


def _fail(message: str) -> NoReturn:
    raise AssertionError(message)
