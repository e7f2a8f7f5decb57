"""The counters for Prometheus, over HTTP, served by the loop of the room.

Rule 1: scrapers do not disturb the room. Their number, the time of each, and the size
of a request are limited; each connection gets one answer.
Rule 2: ``GET`` and ``HEAD`` of ``/metrics`` succeed; every other request gets an error
that states the reason.
Rule 3: no part of a request is logged, returned or resolved.

Source: the text format 0.0.4 of Prometheus, "Exposition formats"; RFC 9112.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any

import compat
from compat.urgent import drop_urgent_data
from legacy_chat.counters import Figure
from legacy_chat.http_head import Head, HeadError, read_head
from legacy_chat.limits import check
from legacy_chat.listener import Listener
from legacy_chat.output import log_error
from legacy_chat.session import drain

__all__ = ["MetricsError", "MetricsServer", "exposition"]

# Simultaneous scrapers; one more is closed without an answer.
SCRAPERS = 16

# Seconds for a whole scrape.
PATIENCE = 10.0

# Maximum bytes of a request's head. A request of Prometheus has about 300.
REQUEST = 8192

BACKLOG = 16

METHODS = (b"GET", b"HEAD")

URI_TOO_LONG = "414 URI Too Long"
HEAD_TOO_LONG = "431 Request Header Fields Too Large"

TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFIX = "legacy_chat"


class MetricsError(OSError):
    """The metrics server cannot listen."""


class MetricsServer(Listener):
    """Accept scrapers, and answer their requests.

    Args:
        host: an address or a name.
        port: 0 to 65535; 0 for a free port.
        figures: returns the snapshot to publish.
        map: the channel map.

    Attributes:
        port: the port that the server listens on.
        clients: the connected scrapers.

    Raises:
        MetricsError: the address is in use, or may not be bound; the host has no
            address, or is not a valid name.
        ValueError: *port* is outside its range.
    """

    def __init__(
        self,
        host: str,
        port: int,
        figures: Callable[[], Iterable[Figure]],
        map: compat.Map,
    ) -> None:
        check("port", port)
        Listener.__init__(self, map)
        self.clients: set[Scrape] = set()
        self.figures = figures
        try:
            self.port = self.listen_on(host, port, BACKLOG)
        except OSError as error:
            raise MetricsError(error.errno, error.strerror) from error
        except UnicodeError as error:
            raise MetricsError(errno.EINVAL, str(error)) from error

    def close(self) -> None:
        """Stop listening, and close the connected scrapers."""
        Listener.close(self)
        for scrape in tuple(self.clients):
            scrape.close()

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        """Wait for the scraper's request; close it if there are SCRAPERS already."""
        if len(self.clients) >= SCRAPERS:
            self.refuse(sock, "full")
        else:
            Scrape(self, sock, self._map)

    def handle_error(self) -> None:
        """Log the traceback, and keep listening."""
        log_error("the metrics server continues after an error")


class Scrape(compat.async_chat):
    """One scraper's connection: one request and its answer."""

    ac_coalesce_writes = True

    handle_expt = drop_urgent_data

    def __init__(
        self, server: MetricsServer, sock: socket.socket, map: compat.Map
    ) -> None:
        compat.async_chat.__init__(self, sock, map)
        self.set_terminator(None)
        self._server = server
        self._request = b""
        self._answered = False
        self._deadline = compat.call_later(PATIENCE, self.close, map=map)
        server.clients.add(self)

    def collect_incoming_data(self, data: bytes) -> None:
        """Answer the request once its head is complete; drop all data after it."""
        if self._answered:
            return
        self._request += data
        begin = self._request[:REQUEST]
        try:
            head = read_head(begin)
        except HeadError as error:
            self._answer(str(error), b"this is HTTP/1.1\n")
            return
        if head is not None:
            self._answer_head(head)
        elif len(self._request) > REQUEST:
            is_uri = b" " in begin and b"\n" not in begin
            self._answer(URI_TOO_LONG if is_uri else HEAD_TOO_LONG, b"too long\n")

    def found_terminator(self) -> None:
        """Never called: requests have no fixed terminator, because line ends vary."""

    def close(self) -> None:
        """Cancel the deadline, and close the connection."""
        self._deadline.cancel()
        self._server.clients.discard(self)
        # Closing with unread data, such as a body, would reset the connection before
        # the peer has read the answer.
        drain(self.socket)
        compat.async_chat.close(self)

    def handle_error(self) -> None:
        """Log the exception, and close this connection only."""
        log_error("closing a scraper after an error")
        self.close()

    def _answer_head(self, head: Head) -> None:
        with_body = head.method != b"HEAD"
        if head.path in (b"/metrics", b"*") and head.method not in METHODS:
            self._answer("405 Method Not Allowed", b"only GET and HEAD\n")
        elif head.path != b"/metrics":
            self._answer("404 Not Found", b"there is only /metrics\n", with_body)
        else:
            self._answer("200 OK", exposition(self._server.figures()), with_body)

    def _answer(self, status: str, body: bytes, with_body: bool = True) -> None:
        self._answered = True
        self._request = b""
        allow = "Allow: GET, HEAD\r\n" if status.startswith("405") else ""
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n{allow}Connection: close\r\n\r\n"
        )
        self.push(head.encode() + (body if with_body else b""))
        self.close_when_done()


def exposition(figures: Iterable[Figure]) -> bytes:
    """Return the figures in the text format: three lines or more for each."""
    return "".join(_entry(figure) for figure in figures).encode()


def _entry(figure: Figure) -> str:
    name = f"{PREFIX}_{figure.name}"
    if figure.unit:
        name += f"_{figure.unit}"
    if figure.kind == "counter":
        name += "_total"
    if isinstance(figure.value, dict):
        # The reasons are constants of counters.py and need no escapes.
        values = [
            f'{name}{{reason="{reason}"}} {value}\n'
            for reason, value in figure.value.items()
        ]
    else:
        values = [f"{name} {figure.value}\n"]
    head = f"# HELP {name} {figure.about}\n# TYPE {name} {figure.kind}\n"
    return head + "".join(values)
