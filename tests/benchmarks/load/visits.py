"""Visits: connect, send one message, receive the echo, send ``out``, wait for the end.

Latency is the time for which a visitor waits: from connecting to the echo, and from
``out`` to the end.

Visits are solitary or observed. A solitary visitor leaves when it has its echo. It must
receive that and nothing else, so several visitors at a time need a server without
broadcasts; one at a time is alone in any room. While a server serves one visitor, the
others send their next bytes, so several keep it busy and one does not.

An observer stays in the room. It must receive the message and the last message of each
visitor.

Rule 1: with an observer, a visitor leaves when INSIDE others have joined after it. So
each message has about the same number of receivers on every server. If it left at once,
a server that accepts one connection a turn would have an empty room, and little work.
Rule 2: the server closes first, so the visitors' ports are free at once.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from tests.benchmarks.load.measure import READ_SIZE, STALL, LoadError, connect
from tests.benchmarks.servers import wire

__all__ = ["INSIDE", "Visits"]

# Visitors in the room that are neither joining nor leaving.
INSIDE = 20


class Visit:
    """One visitor.

    Attributes:
        text: its message.
        since: time at which it began to connect, or sent ``out``.
        waited: seconds until its echo.
        received: all bytes received.
    """

    def __init__(self, sock: socket.socket, text: bytes, since: float) -> None:
        self.sock = sock
        self.text = text
        self.since = since
        self.waited: float | None = None
        self.received = bytearray()

    def leave(self) -> None:
        self.since = time.perf_counter()
        self.sock.send(wire.TERMINATOR)


class Visits:
    """Visits to one server.

    Args:
        port: port of a server with the room's protocol.
        is_observed: an observer stays; else each visitor is alone.

    Attributes:
        got: bytes of the observer.
        received: bytes of all visitors that have left.
    """

    def __init__(self, port: int, is_observed: bool) -> None:
        self.port = port
        self.most_inside = INSIDE if is_observed else 0
        self.epoll = select.epoll()
        self.visits: dict[int, Visit] = {}
        self.inside: deque[Visit] = deque()
        self.begun = self.received = 0
        self.observer = connect(port) if is_observed else None
        self.got = self.due = 0
        if self.observer:
            self.epoll.register(self.observer, select.EPOLLIN)

    def run(self, at_a_time: int, seconds: float) -> list[float]:
        """Let visitors join for *seconds*, and wait until the last one has left.

        Returns:
            the latency of each visit, in seconds.
        """
        waits: list[float] = []
        for _ in range(at_a_time):
            self._begin()
        end = time.perf_counter() + seconds
        while self.visits or self.got < self.due:
            events = self.epoll.poll(STALL)
            if not events:
                raise LoadError(
                    f"no data for {STALL:g} s, with {len(self.visits)} visits and "
                    f"{self.due - self.got} bytes for the observer outstanding"
                )
            over = time.perf_counter() >= end
            for fd, _ in events:
                if fd not in self.visits:
                    self._observe()
                elif self._receive(fd, waits) and not over:
                    self._begin()
            while len(self.inside) > (0 if over else self.most_inside):
                self.inside.popleft().leave()
        if self.got > self.due:
            raise LoadError(
                f"the observer received {self.got} bytes, but {self.due} were due"
            )
        return waits

    def check_silence(self) -> None:
        """Check that an observer receives no more data."""
        if self.epoll.poll(0.05):
            self._observe()
            raise LoadError("the observer received more than was due")

    def close(self) -> None:
        self.epoll.close()
        if self.observer:
            self.observer.close()

    def _begin(self) -> None:
        began = time.perf_counter()
        self.begun += 1
        sock = connect(self.port, self.begun)
        text = b"%08d will leave me < >" % self.begun
        sock.send(text)
        self.visits[sock.fileno()] = Visit(sock, text, began)
        self.epoll.register(sock, select.EPOLLIN)
        if self.observer:
            user = wire.user(*sock.getsockname())
            self.due += len(wire.prefix(user) + text) + len(wire.last_message(user))

    def _receive(self, fd: int, waits: list[float]) -> bool:
        """Receive data of a visit; return whether the visit has ended."""
        visit = self.visits[fd]
        try:
            data = visit.sock.recv(READ_SIZE)
        except OSError as error:
            raise LoadError(f"a visit failed: {error}") from None
        visit.received += data
        if data:
            if visit.waited is None and visit.text in visit.received:
                visit.waited = time.perf_counter() - visit.since
                self.inside.append(visit)
            return False
        is_known = (
            visit.received.count(visit.text) == 1
            if self.observer
            else visit.received == visit.text
        )
        if visit.waited is None or not is_known:
            raise LoadError(f"a visit has ended with {bytes(visit.received)!r}")
        waits.append(visit.waited + time.perf_counter() - visit.since)
        self.received += len(visit.received)
        del self.visits[fd]
        visit.sock.close()
        return True

    def _observe(self) -> None:
        assert self.observer is not None
        data = self.observer.recv(READ_SIZE)
        if not data:
            raise LoadError("the server closed the observer")
        self.got += len(data)
