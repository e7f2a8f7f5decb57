"""The compared servers, by name; each runs in its own process.

    python -m tests.benchmarks.servers NAME [--protocol PROTOCOL] [--port PORT]

It prints ``port N`` once it listens.

For well-behaved clients, the room is the tutorial's: the data of one read is one
message. It is echoed unchanged to its sender, and sent to all others as
``用户{ip}{port} 说:{text}``. ``out`` at the end of a message ends the session. The
protocol ``room_echo`` is the same room with a broadcast that does nothing: it shows the
cost of a session. The protocol ``echo`` sends all data back.

Rule 1: a server imports no module of another one; its memory is its own.
Rule 2: all have the same listening socket, with the same backlog, TCP_NODELAY and limit
of descriptors. The library chooses the size of a read; without a choice, it is 64 KiB.
Rule 3: all survive clients that read slowly or vanish: unsent data is queued without a
limit, and state of a closed client is freed.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["PROTOCOLS", "SELECT_LIMIT", "SERVERS", "Server", "missing"]

PROTOCOLS = ("room", "room_echo", "echo")

# FD_SETSIZE.
SELECT_LIMIT = 1024


class Server(NamedTuple):
    """A row of the table.

    Attributes:
        module: a module of this package, with a function for each protocol.
        variant: their second argument, beside the port.
        needs: required modules, each with its name for import and for pip.
        limit: number of descriptors that it can poll; None for no limit.
        is_in_c: it needs a C compiler.
    """

    module: str
    variant: str = ""
    needs: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    is_in_c: bool = False

    def serve(self, protocol: str, port: int) -> None:
        """Serve until the process is killed."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        getattr(module, protocol)(port, self.variant)


ASYNCORE = (("asyncore", "pyasyncore"), ("asynchat", "pyasynchat"))

SERVERS = {
    "legacy-chat selectors": Server("legacy", "selectors", ASYNCORE),
    "legacy-chat poll": Server("legacy", "poll", ASYNCORE),
    "legacy-chat select": Server("legacy", "select", ASYNCORE, SELECT_LIMIT),
    "legacy-chat traced": Server("legacy", "traced", ASYNCORE),
    "legacy-chat traced, no payload": Server("legacy", "traced-none", ASYNCORE),
    "pyasyncore select": Server("pyasyncore", "select", ASYNCORE, SELECT_LIMIT),
    "pyasyncore poll": Server("pyasyncore", "poll", ASYNCORE),
    "pyftpdlib": Server("ftpd", needs=(*ASYNCORE, ("pyftpdlib", "pyftpdlib"))),
    "asyncio protocol": Server("asyncio_protocols", "protocol"),
    "asyncio buffered": Server("asyncio_protocols", "buffered"),
    "uvloop": Server("asyncio_protocols", "uvloop", (("uvloop", "uvloop"),)),
    "gevent": Server("gevent_streams", needs=(("gevent", "gevent"),)),
    "twisted": Server("twisted_reactor", needs=(("twisted", "Twisted"),)),
    "plain epoll": Server("plain_epoll", "at once"),
    "plain epoll coalescing": Server("plain_epoll", "coalescing"),
    "C epoll": Server("c_epoll", "at once", is_in_c=True),
    "C epoll coalescing": Server("c_epoll", "coalescing", is_in_c=True),
}


def missing(name: str) -> list[str]:
    """Return the packages that the server of that name lacks."""
    return [
        package for module, package in SERVERS[name].needs if find_spec(module) is None
    ]
