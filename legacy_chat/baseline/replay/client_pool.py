"""The client pool of a conversation: plain sockets, read through one selector.

Rule 1: reads never wait for one client while another one is readable.
Rule 2: no client is read while a message is being sent, unless the server accepts no
more of it, because a server with a backlog may behave differently.
Rule 3: each wait has a limit, also while data arrives; exceeding it is an error.
Rule 4: one step receives a limited number of bytes, so that memory is bounded.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from legacy_chat.baseline.model.errors import ReplayError

__all__ = ["Client", "ClientPool"]

# Seconds without progress of a send, after which the server may be waiting for a read.
STALL = 0.1

# Seconds of each poll from then on.
STALLED_POLL = 0.01

# Maximum bytes of one read.
READ_SIZE = 1 << 18

# Maximum bytes that all clients together may receive in one step.
STEP_SIZE = 1 << 26


class Client:
    """One connection.

    Attributes:
        received: data since the last step; end: how the connection ended, or "".
        is_half_closed: whether the client sends no more data.
    """

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        self.received = bytearray()
        self.end = ""
        self.is_half_closed = False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def address(self) -> tuple[str, int]:
        """Return the client's IP address and port, as the server sees them."""
        ip, port = self.sock.getsockname()[:2]
        return ip, port

    def acknowledge(self) -> None:
        """Acknowledge received data at once, for a server without TCP_NODELAY.

        Such a server waits for it. Without data to send, the kernel delays it by 40 ms.
        """
        if hasattr(socket, "TCP_QUICKACK") and not self.end:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def read(self) -> None:
        """Read the available data, or the end of the connection."""
        try:
            data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end = "reset"
            return
        self.received += data
        if not data:
            self.end = "eof"


class ClientPool:
    """All clients by name, in the order of their arrival.

    *timeout* is the maximum wait for data that must arrive, in seconds.
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
        """Add a client on a connected socket, which the pool owns from now on."""
        client = self._clients[name] = Client(name, sock)
        self._selector.register(sock, selectors.EVENT_READ, client)
        return client

    def remove(self, name: str) -> None:
        """Close the client. Its unread data is lost."""
        client = self._clients.pop(name)
        if not client.end:
            self._selector.unregister(client.sock)
        client.sock.close()

    def reset(self, name: str) -> None:
        """Close the client with a reset instead of a FIN."""
        linger = b"\1\0\0\0\0\0\0\0"
        self[name].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.remove(name)

    def close(self) -> None:
        """Close all clients, the last one first. A second call does nothing."""
        for client in reversed(list(self)):
            self.remove(client.name)
        self._selector.close()

    def send(self, client: Client, data: bytes) -> None:
        """Send all of *data*. If the server has closed, the next read detects that."""
        left = memoryview(data)
        last = time.monotonic()
        patience = STALL
        while left and not client.end:
            try:
                left = left[client.sock.send(left) :]
                last = time.monotonic()
            except (BlockingIOError, InterruptedError):
                if not _is_writable(client.sock, patience):
                    # The server may accept no more data before a read.
                    patience = 0.0
                    self.pump(STALLED_POLL)
                    if time.monotonic() - last > self.timeout:
                        raise ReplayError(
                            f"the server accepts no more data from {client.name} for "
                            f"{self.timeout:g} s"
                        ) from None
            except OSError:
                return

    def half_close(self, client: Client) -> None:
        """Half-close the connection: the client sends no more data."""
        client.is_half_closed = True
        if not client.end:
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError:
                # The server has reset the connection, as the read detects.
                client.read()

    def pump(self, seconds: float) -> bool:
        """Poll for *seconds*; read the ready clients, and return whether any was."""
        events = self._selector.select(max(0.0, seconds))
        for key, _ in events:
            client: Client = key.data
            client.read()
            client.acknowledge()
            if client.end:
                self._selector.unregister(client.sock)
        if sum(len(client.received) for client in self._clients.values()) > STEP_SIZE:
            raise ReplayError(
                f"the server sent more than {STEP_SIZE >> 20} MiB in one step"
            )
        return bool(events)

    def until(
        self,
        waiting: Iterable[Client],
        holds: Callable[[Client], bool],
        seconds: float | None = None,
    ) -> list[Client]:
        """Read until *holds* is true for all of *waiting*; return the other clients.

        Args:
            seconds: the longest wait; None for the pool's timeout.
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


def _is_writable(sock: socket.socket, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(seconds))
