"""Nothing but epoll: the limit of a server in Python.

Rule 1: the code for each message is inline, with bound methods looked up once.
Functions are for events that happen once per client.
Rule 2: a descriptor is registered for EPOLLOUT only while it has unsent data.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from tests.benchmarks.servers import wire

__all__ = ["echo", "room", "room_echo"]

EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT


def room(port: int, variant: str) -> None:
    """Serve the room."""
    _LOOPS[variant](wire.listen(port), True, True)


def room_echo(port: int, variant: str) -> None:
    """Serve the room without broadcasts."""
    _LOOPS[variant](wire.listen(port), True, False)


def echo(port: int, variant: str) -> None:
    """Serve the echo protocol."""
    _LOOPS[variant](wire.listen(port), False, False)


class Clients:
    """The connected clients, by descriptor."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.epoll = select.epoll()
        self.epoll.register(listener, EPOLLIN)
        self.socks: dict[int, socket.socket] = {}
        self.recvs: dict[int, Callable[[int], bytes]] = {}
        self.sends: dict[int, Callable[[bytes | bytearray], int]] = {}
        self.users: dict[int, bytes] = {}
        self.prefixes: dict[int, bytes] = {}

    def accept(self) -> int | None:
        """Accept a connection; return its descriptor, or None if there is none."""
        try:
            sock, (ip, port) = self.listener.accept()
        except BlockingIOError:
            return None
        sock.setblocking(False)
        fd = sock.fileno()
        self.socks[fd], self.recvs[fd], self.sends[fd] = sock, sock.recv, sock.send
        self.users[fd] = wire.user(ip, port)
        self.prefixes[fd] = wire.prefix(self.users[fd])
        self.epoll.register(fd, EPOLLIN)
        return fd

    def close(self, fd: int) -> None:
        for table in (self.recvs, self.sends, self.users, self.prefixes):
            table.pop(fd)
        self.socks.pop(fd).close()


def _at_once(listener: socket.socket, in_room: bool, broadcasts: bool) -> None:
    """Call send for each message and each client."""
    clients = Clients(listener)
    server = listener.fileno()
    poll, modify = clients.epoll.poll, clients.epoll.modify
    recvs, sends, prefixes = clients.recvs, clients.sends, clients.prefixes
    read_size = wire.READ_SIZE
    # The send method of each client in the room.
    members: dict[int, Callable[[bytes], int]] = {}
    # Unsent data, and the clients that close after it.
    unsent: dict[int, bytearray] = {}
    leaving: set[int] = set()

    def close(fd: int) -> None:
        clients.close(fd)
        members.pop(fd, None)
        unsent.pop(fd, None)
        leaving.discard(fd)

    def keep_rest(fd: int, rest: bytes) -> None:
        unsent[fd] = bytearray(rest)
        modify(fd, EPOLLIN | EPOLLOUT)

    def send_rest(fd: int) -> None:
        """Send as much of the unsent data as possible."""
        rest = unsent.get(fd)
        if rest is None:
            return
        try:
            del rest[: sends[fd](rest)]
        except BlockingIOError:
            return
        except OSError:
            close(fd)
            return
        if not rest:
            del unsent[fd]
            if fd in leaving:
                close(fd)
            else:
                modify(fd, EPOLLIN)

    def broadcast(fd: int, text: bytes) -> None:
        """Send to all clients but one."""
        size = len(text)
        for other, send in tuple(members.items()):
            if other == fd:
                continue
            if other in unsent:
                unsent[other] += text
                continue
            try:
                sent = send(text)
            except BlockingIOError:
                sent = 0
            except OSError:
                close(other)
                continue
            if sent != size:
                keep_rest(other, text[sent:])

    def leave(fd: int) -> None:
        if broadcasts:
            broadcast(fd, wire.last_message(clients.users[fd]))
        members.pop(fd, None)
        if fd in unsent:
            leaving.add(fd)
        else:
            close(fd)

    while True:
        for fd, event in poll():
            if fd == server:
                # One a turn. A second attempt would fail most times, and if more are
                # waiting, the next poll returns at once.
                if (new := clients.accept()) is not None:
                    members[new] = sends[new]
                continue
            if event & EPOLLOUT:
                send_rest(fd)
                if event == EPOLLOUT:
                    continue
            if fd not in recvs:
                # Closed in this turn.
                continue
            try:
                data = recvs[fd](read_size)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                close(fd)
                continue
            last = False
            if in_room and data[-3:] == b"out":
                data, last = wire.split_last(data)
            if fd in unsent:
                unsent[fd] += data
            elif data:
                try:
                    sent = sends[fd](data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    close(fd)
                    continue
                if sent != len(data):
                    keep_rest(fd, data[sent:])
            if broadcasts and data:
                broadcast(fd, prefixes[fd] + data)
            if last:
                leave(fd)


def _coalescing(listener: socket.socket, in_room: bool, broadcasts: bool) -> None:
    """Queue data for each client; send it at the end of the turn."""
    clients = Clients(listener)
    server = listener.fileno()
    poll, modify = clients.epoll.poll, clients.epoll.modify
    recvs, sends, prefixes = clients.recvs, clients.sends, clients.prefixes
    read_size = wire.READ_SIZE
    queues: dict[int, list[bytes]] = {}
    # The append method of each queue, while its client is in the room.
    appends: dict[int, Callable[[bytes], None]] = {}
    # Clients with a full send buffer, and clients that close after their queue.
    blocked: set[int] = set()
    leaving: set[int] = set()

    def close(fd: int) -> None:
        clients.close(fd)
        del queues[fd]
        appends.pop(fd, None)
        blocked.discard(fd)
        leaving.discard(fd)

    def write(fd: int) -> None:
        queue = queues[fd]
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        try:
            sent = sends[fd](data)
        except BlockingIOError:
            sent = 0
        except OSError:
            close(fd)
            return
        if sent == len(data):
            queue.clear()
            if leaving and fd in leaving:
                close(fd)
            elif blocked and fd in blocked:
                blocked.remove(fd)
                modify(fd, EPOLLIN)
        else:
            queue[:] = [data[sent:]]
            if fd not in blocked:
                blocked.add(fd)
                modify(fd, EPOLLIN | EPOLLOUT)

    while True:
        senders = []
        for fd, event in poll():
            if fd == server:
                # All, because clients that join together are sent to together.
                while (new := clients.accept()) is not None:
                    queues[new] = []
                    appends[new] = queues[new].append
                continue
            if event & EPOLLOUT:
                write(fd)
                if event == EPOLLOUT or fd not in recvs:
                    continue
            try:
                data = recvs[fd](read_size)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                close(fd)
                continue
            senders.append(fd)
            if not in_room:
                queues[fd].append(data)
                continue
            last = False
            if data[-3:] == b"out":
                data, last = wire.split_last(data)
            if data and not broadcasts:
                queues[fd].append(data)
            elif data:
                text = prefixes[fd] + data
                for append in appends.values():
                    append(text)
                # The sender receives its echo without the prefix, unless it has left.
                if fd in appends:
                    queues[fd][-1] = data
            if last and fd in appends:
                del appends[fd]
                leaving.add(fd)
                if broadcasts:
                    text = wire.last_message(clients.users[fd])
                    for append in appends.values():
                        append(text)
        for fd in senders:
            # Senders first: they answer while the others are being written.
            if fd in queues and fd not in blocked and (queues[fd] or fd in leaving):
                write(fd)
        if broadcasts and senders:
            for fd, queue in tuple(queues.items()):
                if queue and fd not in blocked:
                    write(fd)


_LOOPS = {"at once": _at_once, "coalescing": _coalescing}
