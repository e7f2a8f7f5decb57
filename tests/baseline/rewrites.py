"""The tutorial's room once more, on asyncio: right, wrong in a subtle way, and stuck.

    python -m tests.baseline.rewrites right|forgets-k2|forgets-k4|hangs PORT

``right`` keeps K1 to K6 and the repairs of ours. ``forgets-k2`` sends at once what
could begin an ``out``, and finds ``out`` in one message only. ``forgets-k4`` drops what
follows ``out`` in the same read. ``hangs`` stops for good when somebody says "route".
"""

from __future__ import annotations

import asyncio
import codecs
import sys
import threading

__all__ = ["COMMAND", "NAMES"]

NAMES = ("right", "forgets-k2", "forgets-k4", "hangs")

# To be given to legacy-chat baseline, with one of the names put in for NAME.
COMMAND = "{python} -m tests.baseline.rewrites NAME {port}"

TERMINATOR = b"out"


class Session(asyncio.Protocol):
    """A client in the room."""

    room: dict[Session, asyncio.Transport] = {}  # noqa: RUF012  # there is one room
    flaw = ""

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
            self.say(message)
            self.leave()
            if self.flaw == "forgets-k4":
                return
        keep = 0 if self.flaw == "forgets-k2" else self.tail(rest)
        self.say(rest[: len(rest) - keep])
        self.held = rest[len(rest) - keep :]

    def tail(self, data: bytes) -> int:
        """How much of the end could begin a terminator."""
        return next((n for n in (2, 1) if data.endswith(TERMINATOR[:n])), 0)

    def say(self, data: bytes) -> None:
        if not self.leaving:
            self.transport.write(data)
        self.tell(self.decoder.decode(data))

    def leave(self) -> None:
        if self.leaving:
            return
        self.tell(self.decoder.decode(b"", final=True))
        self.leaving = True
        self.room.pop(self, None)
        self.tell(f"{self.user}退出聊天")
        self.transport.close()

    def tell(self, text: str) -> None:
        for client, transport in self.room.items() if text else ():
            if client is not self:
                transport.write(f"{self.user} 说:{text}".encode())


async def serve(flaw: str, port: int) -> None:
    """Serve until somebody ends the process."""
    Session.flaw = flaw
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
