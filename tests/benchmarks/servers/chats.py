"""The protocols for any ``asynchat.async_chat``.

Rule: the room is the tutorial's design: a list, and a push to each. Unlike there, a
message is formatted and encoded once, not for each client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asynchat

    Base = asynchat.async_chat
else:
    Base = object

__all__ = ["Echo", "QuietRoom", "Room"]


class Echo(Base):
    """Sends all data back. Mixed into an async_chat."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.set_terminator(None)

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)

    def handle_error(self) -> None:
        # asyncore would print it and continue with one client less.
        raise  # noqa: PLE0704


class Room(Echo):
    """A client in the room. Mixed into an async_chat."""

    clients: list[Room] = []  # noqa: RUF012  # there is one room

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.set_terminator(b"out")
        ip, port = self.socket.getpeername()
        self.user = f"用户{ip}{port}"
        self.clients.append(self)

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)
        self.broadcast(data.decode())

    def found_terminator(self) -> None:
        self.clients.remove(self)
        self.broadcast(f"{self.user}退出聊天")
        self.close_when_done()

    def broadcast(self, text: str) -> None:
        data = f"{self.user} 说:{text}".encode()
        for client in tuple(self.clients):
            if client is not self:
                client.push(data)

    def close(self) -> None:
        if self in self.clients:
            self.clients.remove(self)
        super().close()


class QuietRoom(Room):
    """A client in a room without broadcasts."""

    def broadcast(self, text: str) -> None:
        pass
