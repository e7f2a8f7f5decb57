"""Visitors: each comes, speaks once, hears the echo, says ``out``, waits for the end.

Latency is what a visitor waits for the server: from the connecting to the echo, and
from ``out`` to the end. A listener stays, and what it must get is known: the message
and the farewell of each.

Rule 1: a visitor leaves when INSIDE others have come after it, so that each is heard by
about as many, whatever the server. If it left at once, a server that lets in one after
the other would have an empty room, and hardly anything to do.
Rule 2: the server closes first, so the ports of visitors are free at once.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from tests.benchmarks.load.measure import READ_SIZE, STALL, LoadError, connect
from tests.benchmarks.servers import wire

__all__ = ["Door"]


# Visitors in the room that are neither coming nor going.
INSIDE = 20


class Visit:
    """One that is under way.

    Attributes:
        words: what it says.
        since: when it began to connect, or said ``out``.
        waited: seconds for its echo.
        heard: all that it has got.
    """

    def __init__(self, sock: socket.socket, words: bytes, since: float) -> None:
        self.sock = sock
        self.words = words
        self.since = since
        self.waited: float | None = None
        self.heard = bytearray()

    def leave(self) -> None:
        self.since = time.perf_counter()
        self.sock.send(wire.TERMINATOR)


class Door:
    """Visitors of one server.

    Args:
        port: the server's, which speaks the room's protocol.

    Attributes:
        got: bytes of the listener.
        heard: bytes of all visitors that have gone.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.epoll = select.epoll()
        self.visits: dict[int, Visit] = {}
        self.inside: deque[Visit] = deque()
        self.came = self.heard = 0
        self.listener = connect(port)
        self.got = self.due = 0
        self.epoll.register(self.listener, select.EPOLLIN)

    def visit(self, at_a_time: int, seconds: float) -> list[float]:
        """Let visitors come for so long, and wait until the last has gone.

        Returns:
            what each has waited for, in seconds.
        """
        waits: list[float] = []
        for _ in range(at_a_time):
            self._come()
        end = time.perf_counter() + seconds
        while self.visits or self.got < self.due:
            events = self.epoll.poll(STALL)
            if not events:
                raise LoadError(
                    f"{len(self.visits)} visits, and {self.due - self.got} bytes that "
                    f"the listener must get, have come to a halt for {STALL:g} s"
                )
            over = time.perf_counter() >= end
            for fd, _ in events:
                if fd == self.listener.fileno():
                    self._listen()
                elif self._attend(fd, waits) and not over:
                    self._come()
            while len(self.inside) > (0 if over else INSIDE):
                self.inside.popleft().leave()
        if self.got > self.due:
            raise LoadError(
                f"the listener got {self.got} bytes where {self.due} were due"
            )
        return waits

    def check_quiet(self) -> None:
        """See that the listener gets nothing more."""
        if self.epoll.poll(0.05):
            self._listen()
            raise LoadError("the listener got more than was due")

    def close(self) -> None:
        self.epoll.close()
        self.listener.close()

    def _come(self) -> None:
        began = time.perf_counter()
        self.came += 1
        sock = connect(self.port, self.came)
        words = b"%08d will leave me < >" % self.came
        sock.send(words)
        self.visits[sock.fileno()] = Visit(sock, words, began)
        self.epoll.register(sock, select.EPOLLIN)
        user = wire.user(*sock.getsockname())
        self.due += len(wire.voice(user) + words) + len(wire.farewell(user))

    def _attend(self, fd: int, waits: list[float]) -> bool:
        """Take what has come; has the visit ended?"""
        visit = self.visits[fd]
        try:
            data = visit.sock.recv(READ_SIZE)
        except OSError as error:
            raise LoadError(f"a visit was broken off: {error}") from None
        visit.heard += data
        if data:
            if visit.waited is None and visit.words in visit.heard:
                visit.waited = time.perf_counter() - visit.since
                self.inside.append(visit)
            return False
        if visit.waited is None or visit.heard.count(visit.words) != 1:
            raise LoadError(f"a visit has ended with {bytes(visit.heard)!r}")
        waits.append(visit.waited + time.perf_counter() - visit.since)
        self.heard += len(visit.heard)
        del self.visits[fd]
        visit.sock.close()
        return True

    def _listen(self) -> None:
        data = self.listener.recv(READ_SIZE)
        if not data:
            raise LoadError("the server has dropped the listener")
        self.got += len(data)
