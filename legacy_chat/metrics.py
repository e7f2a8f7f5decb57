"""The counters for Prometheus, over HTTP, served by the loop that turns the room.

Rule 1: a scraper does the room no harm: there are few at a time, each has little time,
a short request and one answer.
Rule 2: ``GET /metrics`` is answered, everything else with an error that says so.
Rule 3: nothing of a request is logged, shown or looked up.

Source: the text format 0.0.4 of Prometheus, "Exposition formats"; RFC 9112.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

import compat
from compat.urgent import drop_urgent_data
from legacy_chat.counters import Figure
from legacy_chat.doors import Listener

__all__ = ["MetricsError", "MetricsServer", "exposition"]

# Scrapers at a time; one too many is closed without an answer.
SCRAPERS = 16

# Seconds for a whole scrape.
PATIENCE = 10.0

# Bytes of a request. That of Prometheus has some 300.
REQUEST = 8192

BACKLOG = 16

TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFIX = "legacy_chat"

logger = logging.getLogger("legacy_chat")


class MetricsError(OSError):
    """The metrics cannot be listened for."""


class MetricsServer(Listener):
    """Answers scrapers.

    Args:
        host: an address or a name.
        port: 0 takes a free one.
        figures: gives the snapshot to show.
        map: the channel map.

    Attributes:
        port: the port that is listened to.
        clients: the scrapers of the moment.

    Raises:
        MetricsError: the address is in use, or may not be bound, or there is none.
    """

    def __init__(
        self,
        host: str,
        port: int,
        figures: Callable[[], Iterable[Figure]],
        map: compat.Map,
    ) -> None:
        Listener.__init__(self, map)
        self.clients: set[Scrape] = set()
        self.figures = figures
        try:
            self.port = self.open_doors(host, port, BACKLOG)
        except OSError as error:
            raise MetricsError(error.errno, error.strerror) from error

    def close(self) -> None:
        """Stop listening, and close the scrapers, too."""
        Listener.close(self)
        for scrape in tuple(self.clients):
            scrape.close()

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        """Wait for its request, unless there are too many already."""
        if len(self.clients) >= SCRAPERS:
            self.refuse(sock, "full")
        else:
            Scrape(self, sock)

    def handle_error(self) -> None:
        """Log the traceback, and stay."""
        logger.exception("the metrics go on after an error", extra={"event": "error"})


class Scrape(compat.async_chat):
    """One request, and its answer."""

    ac_gather = True

    handle_expt = drop_urgent_data

    def __init__(self, server: MetricsServer, sock: socket.socket) -> None:
        compat.async_chat.__init__(self, sock, server._map)
        self.set_terminator(b"\r\n\r\n")
        self._server = server
        self._request = b""
        self._answered = False
        self._deadline = compat.call_later(PATIENCE, self.close, map=server._map)
        server.clients.add(self)

    def collect_incoming_data(self, data: bytes) -> None:
        """Keep the request; what comes after it goes nowhere."""
        if self._answered:
            return
        self._request += data
        if len(self._request) > REQUEST:
            self._answer("431 Request Header Fields Too Large", b"too long\n")

    def found_terminator(self) -> None:
        """The request is complete."""
        if self._answered:
            return
        method, path, version = _request_line(self._request)
        if not version.startswith(b"HTTP/1."):
            self._answer("400 Bad Request", b"this is HTTP/1.1\n")
        elif path.partition(b"?")[0] != b"/metrics":
            self._answer("404 Not Found", b"there is only /metrics\n")
        elif method != b"GET":
            self._answer("405 Method Not Allowed", b"only GET\n", "Allow: GET\r\n")
        else:
            self._answer("200 OK", exposition(self._server.figures()))

    def close(self) -> None:
        """Make room for the next one."""
        self._deadline.cancel()
        self._server.clients.discard(self)
        compat.async_chat.close(self)

    def handle_error(self) -> None:
        """Log what went wrong, and close it alone."""
        logger.exception("closing a scraper after an error", extra={"event": "error"})
        self.close()

    def _answer(self, status: str, body: bytes, more: str = "") -> None:
        self._answered = True
        self._request = b""
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
        )
        self.push(head.encode() + body)
        self.close_when_done()


def exposition(figures: Iterable[Figure]) -> bytes:
    """The figures in the text format: three lines or more for each."""
    return "".join(_entry(figure) for figure in figures).encode()


def _entry(figure: Figure) -> str:
    name = f"{PREFIX}_{figure.name}"
    if figure.unit:
        name += f"_{figure.unit}"
    if figure.kind == "counter":
        name += "_total"
    if isinstance(figure.value, dict):
        # Reasons are our own words: nothing in them is to be escaped.
        values = [
            f'{name}{{reason="{reason}"}} {value}\n'
            for reason, value in figure.value.items()
        ]
    else:
        values = [f"{name} {figure.value}\n"]
    head = f"# HELP {name} {figure.about}\n# TYPE {name} {figure.kind}\n"
    return head + "".join(values)


def _request_line(request: bytes) -> tuple[bytes, bytes, bytes]:
    words = request.lstrip(b"\r\n").partition(b"\r\n")[0].split(b" ")
    if len(words) != 3:
        return b"", b"", b""
    return words[0], words[1], words[2]
