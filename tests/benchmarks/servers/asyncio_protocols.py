"""asyncio's protocols, on its own loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.benchmarks.servers import wire

__all__ = ["echo", "room", "room_echo"]

Write = Callable[[bytes], None]


class Echo(asyncio.Protocol):
    """Sends all data back."""

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.write(data)


class Room(Echo):
    """A client in the room."""

    writes: dict[Room, Write] = {}  # noqa: RUF012  # there is one room

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.user = wire.user(*transport.get_extra_info("peername"))
        self.prefix = wire.prefix(self.user)
        self.writes[self] = self.write

    def data_received(self, data: bytes) -> None:
        data, last = wire.split_last(data)
        if data:
            self.write(data)
            self.broadcast(self.prefix + data)
        if last:
            self.broadcast(wire.last_message(self.user))
            self.writes.pop(self, None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writes.pop(self, None)

    def broadcast(self, text: bytes) -> None:
        for client, write in self.writes.items():
            if client is not self:
                write(text)


class QuietRoom(Room):
    """A client in a room without broadcasts."""

    def broadcast(self, text: bytes) -> None:
        pass


class Buffered(asyncio.BufferedProtocol):
    """Reads into a buffer. One buffer is enough: its data is copied at once."""

    buffer = memoryview(bytearray(wire.READ_SIZE))
    data_received: Write

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


class BufferedEcho(Buffered, Echo):
    pass


class BufferedRoom(Buffered, Room):
    pass


class BufferedQuietRoom(Buffered, QuietRoom):
    pass


def room(port: int, variant: str) -> None:
    """Serve the room."""
    _serve(port, BufferedRoom if variant == "buffered" else Room, variant)


def room_echo(port: int, variant: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, BufferedQuietRoom if variant == "buffered" else QuietRoom, variant)


def echo(port: int, variant: str) -> None:
    """Serve the echo protocol."""
    _serve(port, BufferedEcho if variant == "buffered" else Echo, variant)


def _serve(port: int, protocol: type[asyncio.BaseProtocol], variant: str) -> None:
    if variant == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    else:
        new_loop = asyncio.new_event_loop

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        listener = wire.listen(port)
        server = await loop.create_server(protocol, sock=listener, backlog=wire.BACKLOG)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())
