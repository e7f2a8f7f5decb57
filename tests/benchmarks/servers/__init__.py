"""The servers that are compared, by name; each is a process of its own.

    python -m tests.benchmarks.servers NAME [--protocol room|echo] [--port PORT]

It prints ``port N`` once it listens.

The room is the tutorial's, as far as well-behaved clients can tell: what one read
returns is one message; it comes back unchanged to who sent it and goes to all others
as ``用户{ip}{port} 说:{text}``; ``out`` at the end of a message is a farewell. In the
echo protocol what comes in goes back.

Rule 1: a server imports nothing of another one, or its memory would not be its own.
Rule 2: all have the same socket to listen on, with the same backlog, TCP_NODELAY and
limit of descriptors. How much is read at once is the library's choice; where it has
none, 64 KiB.
Rule 3: all hold out with clients that read slowly or vanish: what cannot be sent waits,
without a limit, and who has gone is forgotten.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["SELECT_LIMIT", "SERVERS", "Server", "missing"]

# FD_SETSIZE.
SELECT_LIMIT = 1024


class Server(NamedTuple):
    """A row of the table.

    Attributes:
        module: a module of this package, with the functions ``room`` and ``echo``.
        variant: what they are told beside the port.
        needs: modules, each as it is imported and as it is installed.
        limit: the descriptors that it can watch; None for no limit of its own.
    """

    module: str
    variant: str = ""
    needs: tuple[tuple[str, str], ...] = ()
    limit: int | None = None

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
    "plain epoll gathering": Server("plain_epoll", "gathering"),
}


def missing(name: str) -> list[str]:
    """What must be installed before the server of that name can run."""
    return [
        package for module, package in SERVERS[name].needs if find_spec(module) is None
    ]
