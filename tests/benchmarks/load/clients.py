"""Clients that stay: rooms, echoes, idle clients.

A closed loop: each sender has one message in transit, and sends the next when its echo
has arrived. Latency is the time from sending a message until the observer has it, which
is the client that joined last; in the echo protocol, until the echo arrives.

Rule: the generator must not cost more than the server. Receivers are not polled, but
read one after the other, each about a hundred times a second; the kernel has room for
their data meanwhile. Only the observer and the senders are read when data arrives.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence

from tests.benchmarks.load.measure import READ_SIZE, STALL, LoadError, connect
from tests.benchmarks.servers import wire

__all__ = ["Client", "Clients"]

# A number, filling, the sender's tag: 32 bytes without ``out``. No read of it can end
# in the beginning of ``out``, which some rooms would hold back.
FILLING = b" will be repeated "
MESSAGE = re.compile(rb"(\d{8})" + FILLING + rb"<(\d{4})>")
MESSAGE_SIZE = 32
TAG_SIZE = 6

# Clients that join at once: the last of them sends, and its echo shows that all have
# been accepted. Fewer than the backlog.
PACE = 500

# Seconds in which each receiver is read once; receivers read at a time, a pause that
# does not show in the observer's latency.
SWEEP = 0.01
SWEEP_BATCH = 16

# Seconds at the end in which no data may arrive.
SILENCE = 0.05


class Client:
    """One connection, and its sent and received messages."""

    __slots__ = (
        "due",
        "ending",
        "fd",
        "got",
        "number",
        "prefix_size",
        "recv",
        "recv_into",
        "send",
        "sent_at",
        "sent_count",
        "sock",
        "tag",
        "tail",
    )

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recv, self.recv_into, self.send = sock.recv, sock.recv_into, sock.send
        self.number = number
        self.prefix_size = len(wire.prefix(wire.user(*sock.getsockname())))
        self.tag = b"<%04d>" % number
        self.ending = FILLING + self.tag
        # Bytes received, and bytes due when no message is in transit.
        self.got = self.due = 0
        # Messages sent in this window, and the time of each.
        self.sent_count = 0
        self.sent_at: list[float] = []
        # The end of the last data, in which a tag may begin.
        self.tail = b""

    def send_next(self) -> None:
        """Send the next message."""
        message = b"%08d%b" % (self.sent_count, self.ending)
        self.sent_count += 1
        self.sent_at.append(time.perf_counter())
        try:
            sent = self.send(message)
        except OSError as error:
            raise _lost(self, error) from None
        if sent != MESSAGE_SIZE:
            raise LoadError(f"client {self.number} could not send 32 bytes at once")


class Clients:
    """Clients of one server.

    Args:
        port: the server's port.
        is_room: the server has the room's protocol: all receive all messages.
    """

    def __init__(self, port: int, is_room: bool) -> None:
        self.port = port
        self.is_room = is_room
        self.all: list[Client] = []
        self.epoll = select.epoll()
        self._buffer = bytearray(READ_SIZE)
        self._observed: list[float] = []
        self._observer_tail = b""

    def join(self, count: int) -> None:
        """Connect *count* more clients; each has been accepted at the return."""
        for more in range(count):
            number = len(self.all)
            client = Client(connect(self.port, number), number)
            self.all.append(client)
            if not self.is_room:
                self.epoll.register(client.fd, select.EPOLLIN)
            if (more + 1) % PACE == 0 or more + 1 == count:
                self.exchange([client], 0)

    def exchange(self, senders: Sequence[Client], seconds: float) -> list[float]:
        """Let the senders send, then wait until every client has all messages.

        Returns:
            the latency of each message, in seconds.
        """
        for client in self.all:
            client.sent_count = 0
            client.sent_at.clear()
        self._observed = []
        observer = self.all[-1] if self.is_room else None
        watched = {*senders, observer} if observer else set()
        for client in watched:
            self.epoll.register(client.fd, select.EPOLLIN)
        receivers = [each for each in self.all if each not in watched]
        self._run_window(
            {each.fd: each for each in self.all},
            frozenset(senders),
            receivers if self.is_room else [],
            observer,
            seconds,
        )
        for client in watched:
            self.epoll.unregister(client.fd)
        sent_count = sum(each.sent_count for each in senders)
        if len(self._observed) != sent_count:
            raise LoadError(
                f"the observer received {len(self._observed)} whole messages of "
                f"{sent_count}"
            )
        return self._observed

    def check_silence(self) -> None:
        """Check that no client receives more than was due."""
        time.sleep(SILENCE)
        for client in self.all:
            try:
                data = client.recv(READ_SIZE)
            except BlockingIOError:
                continue
            raise LoadError(
                f"client {client.number} got {data[:80]!r} after all that was due"
                if data
                else f"the server has closed client {client.number}"
            )

    def close(self) -> None:
        self.epoll.close()
        for client in self.all:
            client.sock.close()

    def _run_window(
        self,
        clients: dict[int, Client],
        senders: frozenset[Client],
        receivers: Sequence[Client],
        observer: Client | None,
        seconds: float,
    ) -> None:
        clock, poll = time.perf_counter, self.epoll.poll
        batches = [
            receivers[begin : begin + SWEEP_BATCH]
            for begin in range(0, len(receivers), SWEEP_BATCH)
        ]
        interval = SWEEP / len(batches) if batches else STALL
        batch = 0
        in_transit = len(senders)
        for client in senders:
            client.tail = b""
            client.send_next()
        now = clock()
        end, next_sweep, last_arrival = now + seconds, now + interval, now
        while in_transit:
            events = poll(max(0.0, next_sweep - clock()))
            for fd, _ in events:
                client = clients[fd]
                data = _receive(client)
                if client is observer:
                    self._observe(data)
                if client not in senders:
                    continue
                if client.tail:
                    data = client.tail + data
                if data.find(client.tag) < 0:
                    client.tail = data[1 - TAG_SIZE :]
                    continue
                client.tail = b""
                now = clock()
                if observer is None:
                    self._observed.append(now - client.sent_at[-1])
                if now < end:
                    client.send_next()
                else:
                    in_transit -= 1
            now = clock()
            if events:
                last_arrival = now
            elif now - last_arrival > STALL:
                self._stalled()
            if now >= next_sweep:
                next_sweep = now + interval
                if batches:
                    for client in batches[batch]:
                        self._drain(client)
                    batch = (batch + 1) % len(batches)
        self._wait_for_all(clients, observer, receivers)

    def _wait_for_all(
        self,
        clients: dict[int, Client],
        observer: Client | None,
        receivers: Sequence[Client],
    ) -> None:
        """Read until each client has all bytes that are due."""
        everything = sum(
            each.sent_count * (MESSAGE_SIZE + each.prefix_size)
            for each in clients.values()
        )
        for client in clients.values():
            if self.is_room:
                client.due += everything - client.sent_count * client.prefix_size
            else:
                client.due += client.sent_count * MESSAGE_SIZE
        last_arrival = time.perf_counter()
        while any(client.got < client.due for client in clients.values()):
            before = sum(client.got for client in clients.values())
            for client in receivers:
                self._drain(client)
            for fd, _ in self.epoll.poll(0.001):
                data = _receive(clients[fd])
                if clients[fd] is observer:
                    self._observe(data)
            now = time.perf_counter()
            if sum(client.got for client in clients.values()) > before:
                last_arrival = now
            elif now - last_arrival > STALL:
                self._stalled()
        for client in clients.values():
            if client.got > client.due:
                raise LoadError(
                    f"client {client.number} got {client.got} bytes where "
                    f"{client.due} were due"
                )

    def _drain(self, client: Client) -> None:
        """Count the bytes that a receiver has received."""
        size = READ_SIZE
        while size == READ_SIZE:
            try:
                size = client.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                raise _lost(client, error) from None
            if not size:
                raise _lost(client)
            client.got += size

    def _observe(self, data: bytes) -> None:
        """Record the latency of each message."""
        now = time.perf_counter()
        data = self._observer_tail + data
        for number, tag in MESSAGE.findall(data):
            sent_at = self.all[int(tag)].sent_at
            self._observed.append(now - sent_at[int(number)])
        # Too short for a message that was counted.
        self._observer_tail = data[1 - MESSAGE_SIZE :]

    def _stalled(self) -> None:
        for client in self.all:
            if client.got < client.due:
                raise LoadError(
                    f"client {client.number} received {client.got} of {client.due} "
                    f"bytes, and no more within {STALL:g} s"
                )
        raise LoadError(f"an echo did not arrive within {STALL:g} s")


def _receive(client: Client) -> bytes:
    try:
        data = client.recv(READ_SIZE)
    except OSError as error:
        raise _lost(client, error) from None
    if not data:
        raise _lost(client)
    client.got += len(data)
    return data


def _lost(client: Client, error: OSError | None = None) -> LoadError:
    return LoadError(
        f"the server closed client {client.number} after {client.got} bytes"
        + (f": {error}" if error else "")
    )
