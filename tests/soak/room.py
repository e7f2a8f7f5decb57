"""A real server, and the clients in it.

Most clients are well-behaved: they join before the first message, stay, and are
compared with the transcript of their room; see tests.soak.model. Some of these send,
the others only read, and now and then one of them pauses. Guests come and go, each with
a fault; see tests.soak.faults.

Rule 1: the clients must not cost more than the servers. Senders and the observer are
polled; readers are read one after the other, each about once a second, while the kernel
keeps their data.
Rule 2: a sender waits until the observer has received its last message, so each message
is one read of the server.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests import secure
from tests.soak.model import Receiver, Tally, Transcript
from tests.support import DEADLINE, Process, descriptors

__all__ = ["Outcome", "Plan", "Room"]

READ_SIZE = 1 << 18

# Senders in each room.
SENDERS = 20

# Seconds in which each reader is read once.
SWEEP = 1.0

# Seconds after which a missing message is lost.
PATIENCE = 60.0


class Plan(NamedTuple):
    """The size and duration of a soak.

    Attributes:
        loop: loop of the servers.
        clients: number of well-behaved clients, half of them with TLS.
        seconds: longest duration.
        messages: largest number of messages from all senders.
        rate: messages a second; there are half as many faults.
        seed: seed of the faults.
        send_queue: unsent bytes of a client beyond which it is closed.
    """

    loop: str
    clients: int
    seconds: float
    messages: float
    rate: float
    seed: int
    send_queue: int = 1 << 17


class Outcome(NamedTuple):
    """The figures of one room.

    Attributes:
        name: "plain" or "TLS".
        sent, delivered: messages of the senders, and deliveries of them.
        tally: errors, of all well-behaved clients.
        faults: number of faults, by kind.
        closed: number of closed clients, by the server's reason.
        descriptors: the server's descriptors in the empty room, with all well-behaved
            clients, with them alone again, and in the empty room again.
        memory: the server's memory in bytes, with all well-behaved clients and with
            them alone again.
        longest_turn: seconds.
        errors: every violation, in words.
    """

    name: str
    sent: int
    delivered: int
    tally: Tally
    faults: Counter[str]
    closed: dict[str, int]
    descriptors: tuple[int, int, int, int]
    memory: tuple[int, int]
    longest_turn: float
    errors: list[str]


class Client:
    """A well-behaved client.

    Attributes:
        receiver: its model; None for the observer, which makes the transcript.
        pauses_until: a time of the monotonic clock, before which it is not read.
        ended: whether the server has closed the connection, which is an error.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.receiver: Receiver | None = None
        self.pauses_until = 0.0
        self.ended = False

    def read(self) -> bytes:
        """Receive without blocking; return the bytes."""
        parts = []
        try:
            while not self.ended:
                data = self.sock.recv(READ_SIZE)
                parts.append(data)
                self.ended = not data
        except (BlockingIOError, ssl.SSLWantReadError):
            pass  # Everything has been read.
        except OSError:
            self.ended = True
        return b"".join(parts)


class Room:
    """One server, and its clients."""

    def __init__(
        self, server: Process, address: tuple[str, int], tls: bool, plan: Plan
    ) -> None:
        self.server, self.address, self.tls = server, address, tls
        self.faults: Counter[str] = Counter()
        self.guests: deque[socket.socket] = deque()
        self.slow: deque[socket.socket] = deque()
        self.errors: list[str] = []
        self.counters: dict[str, float] = {}
        self._seen = 0
        self._swept = 0.0
        self._next_reader = 0
        self._connect_once()
        self.before = self._descriptors()
        self._fill(plan.clients // 2)
        self.full = self._descriptors(), self._memory()

    def connect(self, handshake: bool = True, narrow: bool = False) -> socket.socket:
        """Return a connected socket; *narrow* gives it the smallest kernel buffers."""
        sock = socket.socket()
        sock.settimeout(DEADLINE)
        if narrow:
            # With the loopback's long segments, a server's buffer is megabytes at once.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(self.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls and handshake:
            context = secure.client_context()
            return context.wrap_socket(sock, server_hostname="localhost")
        return sock

    def read_counters(self) -> dict[str, float]:
        """Request the server's counters with SIGUSR1, and wait for them."""
        seen = len(self.server.err)
        os.kill(self.server.pid, signal.SIGUSR1)
        found = self.server.wait_for('"event": "counters"', err=True, since=seen)
        self.counters = dict(json.loads(found.string))
        # The server has closed clients that were too slow, the oldest first.
        while self.slow and self._closed_slow() > self.faults["slow"] - len(self.slow):
            self.slow.popleft().close()
        return self.counters

    def send_next(self) -> bool:
        """Send the next sender's message, if its last one has been received."""
        sent, received = self.transcript.sent, self.transcript.received
        sender = sum(sent) % len(sent)
        if received[sender] < sent[sender]:
            return False
        data = self.transcript.next_message(sender)
        sock = self.senders[sender].sock
        if sock.send(data) != len(data):
            raise AssertionError(f"sender {sender} could not send {len(data)} bytes")
        return True

    def receive(self, timeout: float) -> None:
        """Read the observer, the senders, and the readers whose time has come."""
        self.epoll.poll(timeout)
        self._read(self.observer)
        for client in self.senders:
            self._read(client)
        now = time.monotonic()
        share = min(1.0, (now - self._swept) / SWEEP)
        self._swept = now
        for _ in range(1 + int(share * len(self.readers))):
            client = self.readers[self._next_reader]
            self._next_reader = (self._next_reader + 1) % len(self.readers)
            if now >= client.pauses_until:
                self._read(client)
        if self._next_reader < share * len(self.readers):
            self.transcript.drop_until(
                min(each.offset for each in self.receivers if not each.wrong)
            )

    def finish(self) -> None:
        """Close the guests, and wait until every client has received all messages."""
        for sock in (*self.guests, *self.slow):
            sock.close()
        self.guests.clear()
        self.slow.clear()
        for client in self.readers:
            client.pauses_until = 0.0
        end = time.monotonic() + PATIENCE
        while not self._is_complete() and time.monotonic() < end:
            self.receive(0.01)
        staying = 1 + len(self.receivers)
        connections = self.read_counters()["connections"]
        if connections != staying:
            self.errors.append(
                f"the server has {connections:g} connections, the clients {staying}"
            )

    def outcome(self) -> Outcome:
        """Close all clients; return the figures."""
        again = self._descriptors(), self._memory()
        if sum(each.ended for each in self._clients):
            self.errors.append("the server has closed well-behaved clients")
        self.errors += [each.wrong for each in self.receivers if each.wrong][:3]
        for client in self._clients:
            client.sock.close()
        self._wait_until(lambda: self.read_counters()["connections"] == 0)
        after = self._descriptors()
        if after > self.before:
            self.errors.append(f"descriptors grew from {self.before} to {after}")
        if self.server.popen.poll() is not None:
            self.errors.append("the server has died")
        if "Traceback" in (log := "\n".join(self.server.err)):
            self.errors.append(log[log.index("Traceback") :][:2000])
        delivered, tallies = self._tallies()
        if any(tallies):
            self.errors.append(f"wrong messages: {tallies}")
        return Outcome(
            "TLS" if self.tls else "plain",
            sum(self.transcript.sent),
            delivered,
            tallies,
            self.faults,
            {
                name.removeprefix("closed_"): int(count)
                for name, count in self.counters.items()
                if name.startswith("closed_")
            },
            (self.before, self.full[0], again[0], after),
            (self.full[1], again[1]),
            self.counters["longest_turn"],
            self.errors,
        )

    def _connect_once(self) -> None:
        """Connect once: a server opens some descriptors for its first client."""
        self.connect().close()
        self._wait_until(
            lambda: (
                self.read_counters()["closed_eof"]
                + self.read_counters()["closed_reset"]
            )
        )

    def _fill(self, count: int) -> None:
        self._clients = [Client(self.connect()) for _ in range(count)]
        self._wait_until(lambda: self.read_counters()["clients"] == count)
        self.observer, *others = self._clients
        senders = min(SENDERS, count // 4)
        self.senders, self.readers = others[:senders], others[senders:]
        names = ("{}{}".format(*each.sock.getsockname()) for each in self.senders)
        self.transcript = Transcript([f"用户{name} 说:".encode() for name in names])
        for number, client in enumerate(self.senders):
            client.receiver = Receiver(self.transcript, number)
        for client in self.readers:
            client.receiver = Receiver(self.transcript)
        self.receivers = [each.receiver for each in others if each.receiver]
        self.epoll = select.epoll()
        for client in (self.observer, *self.senders):
            self.epoll.register(client.sock, select.EPOLLIN)

    def _read(self, client: Client) -> None:
        data = client.read()
        if client.receiver is None:
            self.transcript.add(data)
        elif data:
            client.receiver.add(data)
        else:
            client.receiver.compare()

    def _is_complete(self) -> bool:
        transcript = self.transcript
        staying = 1 + len(self.receivers)
        return (
            len(transcript.tokens) >= sum(transcript.sent)
            and all(
                each.wrong or each.offset >= transcript.settled
                for each in self.receivers
            )
            and self.read_counters()["connections"] == staying
        )

    def _tallies(self) -> tuple[int, Tally]:
        delivered = len(self.transcript.tokens)
        totals = list(self.transcript.tally())
        # A message that the observer did not receive counts as lost for all members.
        totals[0] *= 1 + len(self.receivers)
        for receiver in self.receivers:
            count, wrong = receiver.tally()
            delivered += count
            totals = [a + b for a, b in zip(totals, wrong, strict=True)]
        return delivered, Tally(*totals)

    def _closed_slow(self) -> float:
        return self.counters["closed_slow"]

    def _wait_until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(
                    f"no such counters within {PATIENCE:g} s: {self.counters}"
                )

    def _descriptors(self) -> int:
        return descriptors(self.server.pid)

    def _memory(self) -> int:
        pages = Path(f"/proc/{self.server.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
