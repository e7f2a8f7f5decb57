"""Clients that stay: rooms, ping-pong, idle ones.

A closed loop: who speaks has one message under way, and says the next when its own
echo is back. Latency is the time from a message's sending until the observer has it,
who is the last that joined the room; in the echo protocol, until it is back.

Rule: the generator must not cost more than the server. Those who only listen are not
watched, but read one after the other, each about a hundred times a second; what they
get lies in the kernel meanwhile, far from filling it. Only the observer and those who
speak are read as soon as something has come.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence

from tests.benchmarks.load.measure import READ_SIZE, STALL, LoadError, connect
from tests.benchmarks.servers import wire

__all__ = ["Client", "Crowd"]

# A number, filling, the speaker's tag: 32 bytes without ``out``. No read of it can end
# in a beginning of that, which some rooms would hold back.
FILLING = b" will be repeated "
MESSAGE = re.compile(rb"(\d{8})" + FILLING + rb"<(\d{4})>")
MESSAGE_SIZE = 32
TAG_SIZE = 6

# Joining: after so many, the last of them speaks, which shows that it has been let in,
# and with it those before. Fewer than the backlog.
PACE = 500

# Seconds in which each listener is read once, and listeners that are read at a time:
# a pause that the observer's latency does not show.
SWEEP = 0.01
SWEEP_BATCH = 16

# Seconds at the end in which nothing more may come.
QUIET = 0.05


class Client:
    """One connection, and what it has said and heard."""

    __slots__ = (
        "due",
        "ending",
        "fd",
        "got",
        "number",
        "recv",
        "recv_into",
        "said",
        "send",
        "sent_at",
        "sock",
        "tag",
        "tail",
        "voice_size",
    )

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recv, self.recv_into, self.send = sock.recv, sock.recv_into, sock.send
        self.number = number
        self.voice_size = len(wire.voice(wire.user(*sock.getsockname())))
        self.tag = b"<%04d>" % number
        self.ending = FILLING + self.tag
        # Bytes that have come, and that must have come when nothing is under way.
        self.got = self.due = 0
        # Messages of this window, and when each one was sent.
        self.said = 0
        self.sent_at: list[float] = []
        # The end of what came last, in which a tag may begin.
        self.tail = b""

    def say(self) -> None:
        """Say the next message."""
        message = b"%08d%b" % (self.said, self.ending)
        self.said += 1
        self.sent_at.append(time.perf_counter())
        try:
            sent = self.send(message)
        except OSError as error:
            raise _lost(self, error) from None
        if sent != MESSAGE_SIZE:
            raise LoadError(f"client {self.number} could not send 32 bytes at once")


class Crowd:
    """Clients of one server.

    Args:
        port: the server's.
        hears: the server speaks the room's protocol, so that all hear all.
    """

    def __init__(self, port: int, hears: bool) -> None:
        self.port = port
        self.hears = hears
        self.clients: list[Client] = []
        self.epoll = select.epoll()
        self._buffer = bytearray(READ_SIZE)
        self._observed: list[float] = []
        self._observer_tail = b""

    def join(self, count: int) -> None:
        """Let *count* more in; each is in when this returns."""
        for more in range(count):
            number = len(self.clients)
            client = Client(connect(self.port, number), number)
            self.clients.append(client)
            if not self.hears:
                self.epoll.register(client.fd, select.EPOLLIN)
            if (more + 1) % PACE == 0 or more + 1 == count:
                self.talk([client], 0)

    def talk(self, speakers: Sequence[Client], seconds: float) -> list[float]:
        """Let them speak, then wait until everybody has heard it.

        Returns:
            the latency of each message, in seconds.
        """
        for client in self.clients:
            client.said = 0
            client.sent_at.clear()
        self._observed = []
        observer = self.clients[-1] if self.hears else None
        watched = {*speakers, observer} if observer else set()
        for client in watched:
            self.epoll.register(client.fd, select.EPOLLIN)
        listeners = [each for each in self.clients if each not in watched]
        self._converse(
            {each.fd: each for each in self.clients},
            frozenset(speakers),
            listeners if self.hears else [],
            observer,
            seconds,
        )
        for client in watched:
            self.epoll.unregister(client.fd)
        said = sum(each.said for each in speakers)
        if len(self._observed) != said:
            raise LoadError(
                f"the observer understood {len(self._observed)} of {said} messages"
            )
        return self._observed

    def check_quiet(self) -> None:
        """See that nobody gets more than was due."""
        time.sleep(QUIET)
        for client in self.clients:
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
        for client in self.clients:
            client.sock.close()

    def _converse(
        self,
        clients: dict[int, Client],
        speakers: frozenset[Client],
        listeners: Sequence[Client],
        observer: Client | None,
        seconds: float,
    ) -> None:
        clock, poll = time.perf_counter, self.epoll.poll
        batches = [
            listeners[begin : begin + SWEEP_BATCH]
            for begin in range(0, len(listeners), SWEEP_BATCH)
        ]
        interval = SWEEP / len(batches) if batches else STALL
        batch = 0
        under_way = len(speakers)
        for client in speakers:
            client.tail = b""
            client.say()
        now = clock()
        end, next_sweep, last_news = now + seconds, now + interval, now
        while under_way:
            events = poll(max(0.0, next_sweep - clock()))
            for fd, _ in events:
                client = clients[fd]
                data = _receive(client)
                if client is observer:
                    self._observe(data)
                if client not in speakers:
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
                    client.say()
                else:
                    under_way -= 1
            now = clock()
            if events:
                last_news = now
            elif now - last_news > STALL:
                self._stalled()
            if now >= next_sweep:
                next_sweep = now + interval
                if batches:
                    for client in batches[batch]:
                        self._drain(client)
                    batch = (batch + 1) % len(batches)
        self._wait_for_all(clients, observer, listeners)

    def _wait_for_all(
        self,
        clients: dict[int, Client],
        observer: Client | None,
        listeners: Sequence[Client],
    ) -> None:
        """Read until each has all that is due."""
        everything = sum(
            each.said * (MESSAGE_SIZE + each.voice_size) for each in clients.values()
        )
        for client in clients.values():
            if self.hears:
                client.due += everything - client.said * client.voice_size
            else:
                client.due += client.said * MESSAGE_SIZE
        last_news = time.perf_counter()
        while any(client.got < client.due for client in clients.values()):
            before = sum(client.got for client in clients.values())
            for client in listeners:
                self._drain(client)
            for fd, _ in self.epoll.poll(0.001):
                data = _receive(clients[fd])
                if clients[fd] is observer:
                    self._observe(data)
            now = time.perf_counter()
            if sum(client.got for client in clients.values()) > before:
                last_news = now
            elif now - last_news > STALL:
                self._stalled()
        for client in clients.values():
            if client.got > client.due:
                raise LoadError(
                    f"client {client.number} got {client.got} bytes where "
                    f"{client.due} were due"
                )

    def _drain(self, client: Client) -> None:
        """Count what has come to one that only listens."""
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
        """Note when each message came."""
        now = time.perf_counter()
        data = self._observer_tail + data
        for number, tag in MESSAGE.findall(data):
            sent_at = self.clients[int(tag)].sent_at
            self._observed.append(now - sent_at[int(number)])
        # Too short for a message that has been counted.
        self._observer_tail = data[1 - MESSAGE_SIZE :]

    def _stalled(self) -> None:
        for client in self.clients:
            if client.got < client.due:
                raise LoadError(
                    f"client {client.number} has got {client.got} of {client.due} "
                    f"bytes, and nothing more in {STALL:g} s"
                )
        raise LoadError(f"an echo has not come back in {STALL:g} s")


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
        f"the server has dropped client {client.number}, after {client.got} bytes"
        + (f": {error}" if error else "")
    )
