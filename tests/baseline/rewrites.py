"""The tutorial's room once more, on asyncio: right, wrong in a subtle way, and stuck.

    python -m tests.baseline.rewrites right|forgets-k2|forgets-k4|hangs PORT

``right`` keeps K1 to K6 and the repairs of ours. ``forgets-k2`` forwards a tail that
may begin an ``out``, and finds ``out`` in one message only. ``forgets-k4`` drops the
text after ``out`` in the same read. ``hangs`` stops for good at the word "route".

Rule: this module imports none of our code, because many processes of it are started.
"""

from __future__ import annotations

import asyncio
import codecs
import sys
import threading
from collections.abc import Callable

__all__ = ["COMMAND", "NAMES", "serve"]

NAMES = ("right", "forgets-k2", "forgets-k4", "hangs")

# A command for legacy-chat baseline, with NAME for one of the names.
COMMAND = "{python} -m tests.baseline.rewrites NAME {port}"

TERMINATOR = b"out"


class Session(asyncio.Protocol):
    """A client in the room."""

    def __init__(self, flaw: str, room: dict[Session, asyncio.Transport]) -> None:
        self.flaw = flaw
        self.room = room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        ip, port = transport.get_extra_info("peername")[:2]
        self.user = f"用户{ip}{port}"
        self.transport = transport
        self.held = b""
        self.leaving = False
        self.decoder = codecs.getincrementaldecoder("utf8")("replace")
        self.room[self] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if self.flaw == "hangs" and b"route" in data:
            threading.Event().wait()
        *messages, rest = (self.held + data).split(TERMINATOR)
        for message in messages:
            self.forward(message)
            self.leave()
            if self.flaw == "forgets-k4":
                return
        keep = 0 if self.flaw == "forgets-k2" else self.tail(rest)
        self.forward(rest[: len(rest) - keep])
        self.held = rest[len(rest) - keep :]

    def tail(self, data: bytes) -> int:
        """Return the number of bytes at the end that may begin a terminator."""
        return next((n for n in (2, 1) if data.endswith(TERMINATOR[:n])), 0)

    def forward(self, data: bytes) -> None:
        if not self.leaving:
            self.transport.write(data)
        self.broadcast(self.decoder.decode(data))

    def leave(self) -> None:
        if self.leaving:
            return
        self.broadcast(self.decoder.decode(b"", final=True))
        self.leaving = True
        self.room.pop(self, None)
        self.broadcast(f"{self.user}退出聊天")
        self.transport.close()

    def broadcast(self, text: str) -> None:
        for client, transport in self.room.items() if text else ():
            if client is not self:
                transport.write(f"{self.user} 说:{text}".encode())


async def serve(flaw: str, port: int, ready: Callable[[int], object] = id) -> None:
    """Serve until the task is cancelled; call *ready* with the port."""
    room: dict[Session, asyncio.Transport] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(flaw, room), "127.0.0.1", port)
    ready(server.sockets[0].getsockname()[1])
    try:
        await loop.create_future()
    finally:
        server.close()
        for transport in room.values():
            transport.abort()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
