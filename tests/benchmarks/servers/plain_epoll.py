"""Nothing but epoll: the limit of what a server in Python can do.

Rule 1: everything that is done for each message is written out where it happens, with
bound methods that were looked up once. What happens once for a client is a function.
Rule 2: a descriptor is watched for EPOLLOUT only while something waits to be sent.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from tests.benchmarks.servers import wire

__all__ = ["echo", "room"]

EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT


def room(port: int, variant: str) -> None:
    """The room."""
    _LOOPS[variant](wire.listen(port), True)


def echo(port: int, variant: str) -> None:
    """What comes in goes back."""
    _LOOPS[variant](wire.listen(port), False)


class Clients:
    """Who is connected, by descriptor."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.epoll = select.epoll()
        self.epoll.register(listener, EPOLLIN)
        self.socks: dict[int, socket.socket] = {}
        self.recvs: dict[int, Callable[[int], bytes]] = {}
        self.sends: dict[int, Callable[[bytes | bytearray], int]] = {}
        self.users: dict[int, bytes] = {}
        self.voices: dict[int, bytes] = {}

    def accept(self) -> list[int]:
        """Let in everybody who waits."""
        came: list[int] = []
        while True:
            try:
                sock, (ip, port) = self.listener.accept()
            except BlockingIOError:
                return came
            sock.setblocking(False)
            fd = sock.fileno()
            self.socks[fd], self.recvs[fd], self.sends[fd] = sock, sock.recv, sock.send
            self.users[fd] = wire.user(ip, port)
            self.voices[fd] = wire.voice(self.users[fd])
            self.epoll.register(fd, EPOLLIN)
            came.append(fd)

    def close(self, fd: int) -> None:
        for table in (self.recvs, self.sends, self.users, self.voices):
            table.pop(fd)
        self.socks.pop(fd).close()


def _at_once(listener: socket.socket, in_room: bool) -> None:
    """A send for each message and each client."""
    clients = Clients(listener)
    door = listener.fileno()
    poll, modify = clients.epoll.poll, clients.epoll.modify
    recvs, sends, voices = clients.recvs, clients.sends, clients.voices
    read_size = wire.READ_SIZE
    # The send of each one who is in the room.
    told: dict[int, Callable[[bytes], int]] = {}
    # What could not be sent yet, and who leaves after that.
    waiting: dict[int, bytearray] = {}
    leaving: set[int] = set()

    def close(fd: int) -> None:
        clients.close(fd)
        told.pop(fd, None)
        waiting.pop(fd, None)
        leaving.discard(fd)

    def hold(fd: int, rest: bytes) -> None:
        waiting[fd] = bytearray(rest)
        modify(fd, EPOLLIN | EPOLLOUT)

    def go_on(fd: int) -> None:
        """Send what waits, as far as it goes."""
        rest = waiting.get(fd)
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
            del waiting[fd]
            if fd in leaving:
                close(fd)
            else:
                modify(fd, EPOLLIN)

    def tell(fd: int, text: bytes) -> None:
        """Tell all but one."""
        size = len(text)
        for other, send in tuple(told.items()):
            if other == fd:
                continue
            if other in waiting:
                waiting[other] += text
                continue
            try:
                sent = send(text)
            except BlockingIOError:
                sent = 0
            except OSError:
                close(other)
                continue
            if sent != size:
                hold(other, text[sent:])

    def leave(fd: int) -> None:
        tell(fd, wire.farewell(clients.users[fd]))
        told.pop(fd, None)
        if fd in waiting:
            leaving.add(fd)
        else:
            close(fd)

    while True:
        for fd, event in poll():
            if fd == door:
                for new in clients.accept():
                    told[new] = sends[new]
                continue
            if event & EPOLLOUT:
                go_on(fd)
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
                data, last = wire.split_farewell(data)
            if fd in waiting:
                waiting[fd] += data
            elif data:
                try:
                    sent = sends[fd](data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    close(fd)
                    continue
                if sent != len(data):
                    hold(fd, data[sent:])
            if in_room:
                if data:
                    tell(fd, voices[fd] + data)
                if last:
                    leave(fd)


def _gathering(listener: socket.socket, in_room: bool) -> None:
    """A queue for each client, and one send of it at the end of the turn."""
    clients = Clients(listener)
    door = listener.fileno()
    poll, modify = clients.epoll.poll, clients.epoll.modify
    recvs, sends, voices = clients.recvs, clients.sends, clients.voices
    read_size = wire.READ_SIZE
    queues: dict[int, list[bytes]] = {}
    # Their append, while they are in the room.
    appends: dict[int, Callable[[bytes], None]] = {}
    # Who takes nothing at the moment, and who leaves after what is queued.
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
        spoke = []
        for fd, event in poll():
            if fd == door:
                for new in clients.accept():
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
            spoke.append(fd)
            if not in_room:
                queues[fd].append(data)
                continue
            last = False
            if data[-3:] == b"out":
                data, last = wire.split_farewell(data)
            if data:
                text = voices[fd] + data
                for append in appends.values():
                    append(text)
                # The one who said it gets it as it was, if it is still listened to.
                if fd in appends:
                    queues[fd][-1] = data
            if last and fd in appends:
                del appends[fd]
                leaving.add(fd)
                text = wire.farewell(clients.users[fd])
                for append in appends.values():
                    append(text)
        for fd in spoke:
            # Those who speak are written to first: while the others are, they answer.
            if fd in queues and fd not in blocked and (queues[fd] or fd in leaving):
                write(fd)
        if in_room and spoke:
            for fd, queue in tuple(queues.items()):
                if queue and fd not in blocked:
                    write(fd)


_LOOPS = {"at once": _at_once, "gathering": _gathering}
