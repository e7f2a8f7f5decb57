"""A server unlike the room: lines, tokens, the time, one thread for each client.

It greets each client with a token and the time, and answers a line with ``you sent``
and the line. ``QUIT`` is answered and ends the connection, ``RESET`` resets it. ``LATE
x`` is answered later than others, ``TOKEN`` with the client's token. The text after
``ALL`` is sent to all clients.
"""

from __future__ import annotations

import itertools
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from legacy_chat.baseline import Endpoint, Profile
from legacy_chat.baseline.model.names import Volatile
from tests.support import reset

__all__ = ["LINES", "LineServer", "line_server", "serving"]

LINES = Profile(
    "lines",
    "stream",
    # The server answers at once, except LATE.
    quiet=0.05,
    volatile=(
        Volatile("token", rb"[0-9a-f]{8}"),
        Volatile("time", rb"\d\d:\d\d:\d\d", "any"),
    ),
)

# Seconds until LATE is answered; longer than a wait without an expected answer.
LATE = 0.1

NUMBERS = itertools.count(1)


class Handler(socketserver.StreamRequestHandler):
    """One client."""

    server: LineServer

    def handle(self) -> None:
        self.token = f"{next(NUMBERS):08x}"
        self.server.handlers.append(self)
        self.answer(f"welcome, {self.token}, at 12:00:{next(NUMBERS) % 60:02d}")
        for line in self.rfile:
            words = line.decode("utf8", "replace").strip()
            if not self.do(*words.partition(" ")[::2]):
                return

    def finish(self) -> None:
        self.server.handlers.remove(self)
        super().finish()

    def do(self, word: str, rest: str) -> bool:
        """Answer a line; return whether the conversation goes on."""
        if word == "RESET":
            reset(self.request)
            return False
        if word == "LATE":
            threading.Event().wait(LATE)
        if word == "ALL":
            for each in self.server.handlers:
                each.answer(f"all: {rest}")
        elif word == "TOKEN":
            self.answer(f"yours is {self.token}")
        else:
            self.answer(f"{self.server.prefix} {word} {rest}".strip())
        return word != "QUIT"

    def answer(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class LineServer(socketserver.ThreadingTCPServer):
    """The server.

    Attributes:
        prefix: the beginning of an answer; handlers: one for each client.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, prefix: str = "you sent") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.prefix = prefix
        self.handlers: list[Handler] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that has reset its connection."""


@contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[Endpoint]:
    """Run a server with a thread for each client; yield its address."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    with _running(server) as endpoint:
        yield endpoint


@contextmanager
def line_server(prefix: str = "you sent") -> Iterator[Endpoint]:
    """Run the line server in a thread of this process; yield its address."""
    with _running(LineServer(prefix)) as endpoint:
        yield endpoint


@contextmanager
def _running(server: socketserver.TCPServer) -> Iterator[Endpoint]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Endpoint("127.0.0.1", server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
