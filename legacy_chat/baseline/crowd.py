"""The clients of a conversation: plain sockets, read by one selector.

Rule 1: reading never waits for one client while another has something to say.
Rule 2: nobody reads while a message is being sent, unless the server takes no more of
it: a server with a backlog is another one than a server without.
Rule 3: waiting has a limit, and reaching it is an error. It holds while data arrives,
too.
Rule 4: one step receives a limited number of bytes, so that memory is bounded.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from legacy_chat.baseline.errors import RunError

__all__ = ["Client", "Crowd"]

# Seconds in which a server takes nothing, after which it may wait for us to read.
STALL = 0.1

# Seconds between two looks, from then on.
LOOK = 0.01

# Bytes of one read.
READ_SIZE = 1 << 18

# Bytes that all clients together may receive in one step.
STEP_SIZE = 1 << 26


class Client:
    """One connection.

    Attributes:
        got: what has come since the last step; end: how it has ended, or nothing.
        mute: has said that it says no more.
    """

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        self.got = bytearray()
        self.end = ""
        self.mute = False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def address(self) -> tuple[str, int]:
        """Its IP address and port, as the server sees them."""
        ip, port = self.sock.getsockname()[:2]
        return ip, port

    def acknowledge(self) -> None:
        """What has come, at once: a server without TCP_NODELAY waits for that.

        The kernel would take 40 ms for it whenever we have nothing to send.
        """
        if hasattr(socket, "TCP_QUICKACK") and not self.end:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def read(self) -> None:
        """Take what is there, or the end."""
        try:
            data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end = "reset"
            return
        self.got += data
        if not data:
            self.end = "eof"


class Crowd:
    """All clients by name, in the order of their coming.

    Args:
        timeout: seconds that anything which must come may take.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._selector = selectors.DefaultSelector()
        self._clients: dict[str, Client] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._clients

    def __getitem__(self, name: str) -> Client:
        return self._clients[name]

    def add(self, name: str, sock: socket.socket) -> Client:
        """A client on a connected socket, which the crowd owns from here on."""
        client = self._clients[name] = Client(name, sock)
        self._selector.register(sock, selectors.EVENT_READ, client)
        return client

    def remove(self, name: str) -> None:
        """Close it. What it has not read is lost."""
        client = self._clients.pop(name)
        if not client.end:
            self._selector.unregister(client.sock)
        client.sock.close()

    def reset(self, name: str) -> None:
        """Close it with a reset in place of a FIN."""
        linger = b"\1\0\0\0\0\0\0\0"
        self[name].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.remove(name)

    def close(self) -> None:
        """Close everybody, who came last first. Nothing happens the second time."""
        for client in reversed(list(self)):
            self.remove(client.name)
        self._selector.close()

    def send(self, client: Client, data: bytes) -> None:
        """Send all of it; a server that has closed is found out by reading."""
        left = memoryview(data)
        last = time.monotonic()
        patience = STALL
        while left and not client.end:
            try:
                sent = client.sock.send(left)
            except (BlockingIOError, InterruptedError):
                if not self._takes_more(client, patience):
                    patience = 0.0
                    self._make_room(client, last)
            except OSError:
                return
            else:
                left, last = left[sent:], time.monotonic()

    def shut(self, client: Client) -> None:
        """Say that it says no more."""
        client.mute = True
        if not client.end:
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError:
                # The server has reset it: reading tells.
                client.read()

    def pump(self, seconds: float) -> bool:
        """Wait so long for anything; read all that is there; whether there was any.

        Raises:
            RunError: the step has received too many bytes.
        """
        events = self._selector.select(max(0.0, seconds))
        for key, _ in events:
            client: Client = key.data
            client.read()
            client.acknowledge()
            if client.end:
                self._selector.unregister(client.sock)
        if sum(len(client.got) for client in self._clients.values()) > STEP_SIZE:
            raise RunError(
                f"the server sent more than {STEP_SIZE >> 20} MiB in one step"
            )
        return bool(events)

    def until(
        self,
        waiting: Iterable[Client],
        holds: Callable[[Client], bool],
        seconds: float | None = None,
    ) -> list[Client]:
        """Read until it holds for all of them; return those for whom it does not.

        Args:
            seconds: at most; None for the crowd's timeout.
        """
        end = time.monotonic() + (self.timeout if seconds is None else seconds)
        left = [client for client in waiting if not holds(client)]
        while left:
            for client in left:
                client.acknowledge()
            now = time.monotonic()
            self.pump(end - now)
            left = [client for client in left if not holds(client)]
            if now >= end:
                break
        return left

    def _takes_more(self, client: Client, seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(client.sock, selectors.EVENT_WRITE)
            return bool(selector.select(seconds))

    def _make_room(self, client: Client, last: float) -> None:
        """The server may wait for us to read, before it takes more."""
        self.pump(LOOK)
        if time.monotonic() - last > self.timeout:
            raise RunError(
                f"the server takes nothing more from {client.name} for "
                f"{self.timeout:g} s"
            )
