"""One sender that sends without a pause, and its receivers.

Messages have 1 KiB, and the server's reads cut them anywhere. So the number of the
sender's names in a receiver's data is unknown, but all other bytes are known. Each
receiver must receive the last byte of each message, which occurs nowhere else, and
beside the messages only whole names.

Rule: at most WINDOW bytes are in transit. The receivers share this process; a server
without flow control would otherwise queue data for them, and the benchmark would
measure how its memory grows.
"""

from __future__ import annotations

import select
import socket
import time

from tests.benchmarks.load.measure import READ_SIZE, STALL, LoadError, connect
from tests.benchmarks.servers import wire

__all__ = ["Flood"]

MESSAGE_SIZE = 1024
END = b">"

# Neither ``o`` nor ``u``: some rooms would hold back a read that ends in one.
MESSAGE = b"still water " * 85 + b"   " + END
assert len(MESSAGE) == MESSAGE_SIZE

# Bytes whose echo has not arrived. Far less than the sockets can hold.
WINDOW = 256 * 1024


class Receiver:
    """A client that counts bytes and messages."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.size = self.messages = 0

    def receive(self, buffer: bytearray) -> None:
        """Receive data and count it."""
        try:
            size = self.sock.recv_into(buffer)
        except OSError as error:
            raise LoadError(f"the server closed a client: {error}") from None
        if not size:
            raise LoadError("the server closed a client")
        self.size += size
        self.messages += buffer.count(END, 0, size)


class Flood:
    """The sender and the receivers of one server.

    Args:
        port: port of a server with the room's protocol.
        receivers: number of receivers.
    """

    def __init__(self, port: int, receivers: int) -> None:
        self.sender = Receiver(connect(port))
        self.receivers = [
            Receiver(connect(port, number)) for number in range(1, receivers + 1)
        ]
        self.all = {each.sock.fileno(): each for each in (self.sender, *self.receivers)}
        self.sent = 0
        self.epoll = select.epoll()
        for fd in self.all:
            self.epoll.register(fd, select.EPOLLIN)
        # All have been accepted when the last one's message has reached all of them.
        last = self.receivers[-1]
        last.sock.send(MESSAGE)
        self._wait(1)
        for each in self.all.values():
            each.size = each.messages = 0

    @property
    def got(self) -> int:
        """Bytes that all clients have received."""
        return sum(each.size for each in self.all.values())

    def run(self, seconds: float) -> int:
        """Send for *seconds*, and wait until every client has all messages.

        Returns:
            the number of messages sent.
        """
        block = memoryview(MESSAGE * (WINDOW // MESSAGE_SIZE + 1))
        sender, send = self.sender, self.sender.sock.send
        buffer = bytearray(READ_SIZE)
        poll, by_fd = self.epoll.poll, self.all
        before = self.sent
        end = time.perf_counter() + seconds
        # A message that has begun is sent to its end.
        while time.perf_counter() < end or self.sent % MESSAGE_SIZE:
            free = WINDOW - (self.sent - sender.size)
            if free > 0:
                begin = self.sent % MESSAGE_SIZE
                if time.perf_counter() >= end:
                    free = min(free, MESSAGE_SIZE - begin)
                try:
                    self.sent += send(block[begin : begin + free])
                except BlockingIOError:
                    # The echo of data in the full buffer will end the poll.
                    pass
                except OSError as error:
                    raise LoadError(f"the server closed the sender: {error}") from None
            events = poll(STALL if self.sent > sender.size else 0)
            if not events and self.sent > sender.size:
                raise LoadError(f"no echo within {STALL:g} s")
            for fd, _ in events:
                by_fd[fd].receive(buffer)
        self._wait(self.sent // MESSAGE_SIZE)
        return (self.sent - before) // MESSAGE_SIZE

    def check(self) -> None:
        """Check that no client has received any other data."""
        if self.epoll.poll(0.05):
            raise LoadError("data arrived after all that was due")
        prefix = len(wire.prefix(wire.user(*self.sender.sock.getsockname())))
        if self.sender.size != self.sent:
            raise LoadError(f"{self.sender.size} bytes of {self.sent} were echoed")
        for each in self.receivers:
            names = each.size - self.sent
            if names <= 0 or names % prefix:
                raise LoadError(
                    f"{names} bytes beside the messages are not names of {prefix} bytes"
                )

    def close(self) -> None:
        self.epoll.close()
        for each in self.all.values():
            each.sock.close()

    def _wait(self, messages: int) -> None:
        """Read until each client has that number of messages."""
        buffer = bytearray(READ_SIZE)
        while any(each.messages < messages for each in self.all.values()):
            events = self.epoll.poll(STALL)
            if not events:
                few = min(each.messages for each in self.all.values())
                raise LoadError(
                    f"{few} of {messages} messages arrived, and no more within "
                    f"{STALL:g} s"
                )
            for fd, _ in events:
                self.all[fd].receive(buffer)
