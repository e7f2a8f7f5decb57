"""One that sends as much as it can, and those who listen.

Messages have 1 KiB, and the server's reads cut them anywhere, so what a listener gets
is known except for how often the speaker's name stands in it: each must get each
message's last byte, which occurs nowhere else, and beside the messages nothing but
whole names.

Rule: no more than WINDOW bytes are under way. A server without flow control would
otherwise queue what the listeners, who share this process, do not take in time, and
be measured at growing its memory.
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

# Neither ``o`` nor ``u``: a read that ended in one would be held back by some rooms.
MESSAGE = b"still water " * 85 + b"   " + END
assert len(MESSAGE) == MESSAGE_SIZE

# Bytes whose echo has not come back. Far less than what the sockets can hold.
WINDOW = 256 * 1024


class Listener:
    """One that is told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.size = self.messages = 0

    def listen(self, buffer: bytearray) -> None:
        """Count what has come."""
        try:
            size = self.sock.recv_into(buffer)
        except OSError as error:
            raise LoadError(f"the server has dropped a client: {error}") from None
        if not size:
            raise LoadError("the server has dropped a client")
        self.size += size
        self.messages += buffer.count(END, 0, size)


class Flood:
    """The speaker and the listeners of one server.

    Args:
        port: the server's, which speaks the room's protocol.
        listeners: how many listen.
    """

    def __init__(self, port: int, listeners: int) -> None:
        self.speaker = Listener(connect(port))
        self.listeners = [
            Listener(connect(port, number)) for number in range(1, listeners + 1)
        ]
        self.everybody = {
            each.sock.fileno(): each for each in (self.speaker, *self.listeners)
        }
        self.sent = 0
        self.epoll = select.epoll()
        for fd in self.everybody:
            self.epoll.register(fd, select.EPOLLIN)
        # Shows that all are in: the last of them has spoken, and all have heard it.
        last = self.listeners[-1]
        last.sock.send(MESSAGE)
        self._wait(1)
        for each in self.everybody.values():
            each.size = each.messages = 0

    @property
    def got(self) -> int:
        """Bytes, by everybody."""
        return sum(each.size for each in self.everybody.values())

    def pour(self, seconds: float) -> int:
        """Send for so long, and wait until everybody has it all.

        Returns:
            the messages that were sent.
        """
        block = memoryview(MESSAGE * (WINDOW // MESSAGE_SIZE + 1))
        speaker, send = self.speaker, self.speaker.sock.send
        buffer = bytearray(READ_SIZE)
        poll, everybody = self.epoll.poll, self.everybody
        before = self.sent
        end = time.perf_counter() + seconds
        # A message that was begun is sent to its end.
        while time.perf_counter() < end or self.sent % MESSAGE_SIZE:
            free = WINDOW - (self.sent - speaker.size)
            if free > 0:
                begin = self.sent % MESSAGE_SIZE
                if time.perf_counter() >= end:
                    free = min(free, MESSAGE_SIZE - begin)
                try:
                    self.sent += send(block[begin : begin + free])
                except BlockingIOError:
                    # An echo of what fills it will come, and wake us.
                    pass
                except OSError as error:
                    raise LoadError(f"the server has dropped us: {error}") from None
            events = poll(STALL if self.sent > speaker.size else 0)
            if not events and self.sent > speaker.size:
                raise LoadError(f"nothing has come back for {STALL:g} s")
            for fd, _ in events:
                everybody[fd].listen(buffer)
        self._wait(self.sent // MESSAGE_SIZE)
        return (self.sent - before) // MESSAGE_SIZE

    def check(self) -> None:
        """See that nobody has got anything else."""
        if self.epoll.poll(0.05):
            raise LoadError("something has come after all that was due")
        voice = len(wire.voice(wire.user(*self.speaker.sock.getsockname())))
        if self.speaker.size != self.sent:
            raise LoadError(f"{self.speaker.size} bytes came back of {self.sent}")
        for each in self.listeners:
            names = each.size - self.sent
            if names <= 0 or names % voice:
                raise LoadError(
                    f"{names} bytes beside the messages, which are no names of {voice}"
                )

    def close(self) -> None:
        self.epoll.close()
        for each in self.everybody.values():
            each.sock.close()

    def _wait(self, messages: int) -> None:
        """Read until each has so many."""
        buffer = bytearray(READ_SIZE)
        while any(each.messages < messages for each in self.everybody.values()):
            events = self.epoll.poll(STALL)
            if not events:
                few = min(each.messages for each in self.everybody.values())
                raise LoadError(
                    f"{few} of {messages} messages have come, and nothing more in "
                    f"{STALL:g} s"
                )
            for fd, _ in events:
                self.everybody[fd].listen(buffer)
