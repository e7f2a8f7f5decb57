"""The tutorial's server: a listener that makes a session of each accepted connection.

Kept from the tutorial: the parameters, their order and their spelling; the printed
lines; one listening socket and one session for each client, all in one map.

Repaired, and must stay true:

Rule 1: no failure of the listening socket ends the server: see legacy_chat.listener.
Rule 2: a failure while one client is accepted closes that client's connection and
affects no other client.
Rule 3: a server whose constructor raises leaves nothing in the map.
Rule 4: a rejected client is sent the reason.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

import compat
from legacy_chat.admission import AdmissionControl
from legacy_chat.counters import Counters, Figure, flat, line, snapshot
from legacy_chat.idle import IdleSweep
from legacy_chat.limits import LimitOptions, Limits, check
from legacy_chat.listener import Listener
from legacy_chat.metrics import MetricsServer
from legacy_chat.output import log_error, log_event, print_line
from legacy_chat.rate_limit import RateLimiter
from legacy_chat.room import Clients
from legacy_chat.session import ChatSession, drain

if TYPE_CHECKING:
    import ssl

    from legacy_chat.handshakes import HandshakePool

__all__ = ["DEFAULT_PORT", "ChatServer"]

DEFAULT_PORT = 19528

# Sent to a rejected client, in the form of a room message; by reason.
REFUSALS = {
    "full": "服务器 说:聊天室已满",
    "address": "服务器 说:同一地址的连接过多",
    "descriptors": "服务器 说:服务器繁忙",
}

# Unanswered TCP keepalive probes after which the kernel drops a connection.
KEEPALIVE_PROBES = 5

logger = logging.getLogger("legacy_chat")


class _DefaultPort(int):
    """The default port, distinct from the same number passed by the caller."""


class ChatServer(Listener):
    """Listen, and make a session of each accepted connection.

    Args:
        list_num: the backlog: connections that may wait to be accepted, 1 to 65535.
            The system may allow fewer.
        host: an address or a name. For a name with several addresses, the server
            listens on each one that this machine has. "" is every interface.
        post: the port, with the tutorial's spelling; 0 for a free port.
        port: the same, with the usual spelling.
        map: the channel map; None for ``asyncore.socket_map``.
        session_class: ChatSession, or a callable with the same arguments.
        metrics: the address and port of the Prometheus endpoint; None for none.
        tls: a server's context; a client joins after its handshake.
        tls_timeout: seconds for a handshake, 0.01 to 86400.
        limits: max_clients, max_per_address, send_queue, flood_bytes, flood_messages,
            flood_burst, idle, keepalive, terminator: see Limits.

    Attributes:
        clients: the sessions in the room, in the order of joining.
        port: the port that the server listens on.
        limits: as given.
        counters: totals since the server was made.
        metrics: the MetricsServer, or None.
        handshakes: with TLS, the pool of handshakes; or None.

    Raises:
        OSError: an address is in use, or may not be bound. ``socket.gaierror``: the
            host has no address. Nothing is left in the map.
        TypeError: both *post* and *port* are given; or from Limits.
        ssl.SSLError: *tls* is a client's context.
        ValueError: a number is outside its range in RANGES; or from Limits.

    asyncore's own ``loop`` has no timers and no hook at the end of a turn. Under it,
    idle clients are not closed, input is not rate-limited, and turns are not counted.
    """

    metrics: MetricsServer | None = None
    handshakes: HandshakePool | None = None
    _idle: IdleSweep | None = None
    _grace_timer: compat.Timer | None = None

    def __init__(
        self,
        list_num: int = 20,
        host: str = "0.0.0.0",
        post: int = _DefaultPort(DEFAULT_PORT),
        *,
        port: int | None = None,
        map: compat.Map | None = None,
        session_class: Callable[..., Any] = ChatSession,
        metrics: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        tls_timeout: float = 10.0,
        **limits: Unpack[LimitOptions],
    ) -> None:
        if port is None:
            port = post
        elif not isinstance(post, _DefaultPort):
            raise TypeError(f"post={post} and port={port} mean the same: give one")
        self.limits = Limits(**limits)
        numbers = {"list_num": list_num, "port": port, "tls_timeout": tls_timeout}
        for name, number in numbers.items():
            check(name, number)
        if metrics is not None:
            check("port", metrics[1], "the port of metrics")
        Listener.__init__(self, map)
        self.counters = Counters()
        self.clients = Clients(self._map, self.counters)
        self.session_class = session_class
        self._admission = AdmissionControl(self.limits)
        self._cleanup = contextlib.ExitStack()
        if tls is not None:
            self._use_tls(tls, tls_timeout)
        self.port = self.listen_on(host, int(port), list_num)
        try:
            self._start_services(metrics)
        except BaseException:
            self.close()
            raise
        print_line("***server start***")

    def close(self) -> None:
        """Stop listening. Clients in the room stay connected."""
        self._cleanup.close()
        if self.handshakes is not None:
            self.handshakes.close()
        Listener.close(self)

    def shut_down(self, grace: float = 3.0) -> None:
        """Stop listening, and close each client once its queue is flushed.

        Args:
            grace: seconds, 0 to 86400, after which the remaining clients are closed
                too. Needs a loop of compat; asyncore's own has no timers.

        Raises:
            ValueError: *grace* is outside its range. The server continues.
        """
        check("grace", grace)
        self.close()
        for session in self._sessions():
            session.close_when_flushed("shutdown")
        self._cancel_grace()
        if self._sessions() and compat.is_running(self._map):
            self._grace_timer = compat.call_later(
                grace, self._close_sessions, map=self._map
            )

    def snapshot(self) -> list[Figure]:
        """Return the counters and the bytes that are queued now."""
        backlogs = [session.ac_backlog_size() for session in self._sessions()]
        return snapshot(self.counters, len(self.clients), backlogs)

    def log_counters(self) -> None:
        """Write a snapshot to the log."""
        figures = self.snapshot()
        text = "counters: %s"
        log_event("counters", logging.WARNING, text, line(figures), **flat(figures))

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        """Start the TLS handshake of an accepted connection; without TLS, admit it."""
        if self.handshakes is not None:
            self.handshakes.start(sock, addr)
        else:
            self.admit(sock, addr)

    def admit(self, sock: Any, addr: Any) -> None:
        """Make a session of a connection, unless a limit rejects it."""
        ip, port = addr[:2]
        connected = self.counters.connected if self.limits.max_clients else 0
        reason = self._admission.refusal(connected, ip)
        if reason:
            self.refuse(sock, reason, ip)
            return
        print_line(f"client {ip} enter")
        try:
            self.session_class(self, sock, ip, port, self.clients)
        except BaseException:
            self._close_unfinished(sock)
            raise

    def refuse(self, sock: Any, reason: str, address: str = "") -> None:
        """Send the reason and close *sock*; with TLS, never send it in plain text."""
        self.counters.refused[reason] += 1
        text, client = "refused %s: %s", address or "a client"
        log_event(
            "refused", logging.INFO, text, client, reason, client=address, reason=reason
        )
        try:
            if self.handshakes is None or not isinstance(sock, socket.socket):
                sock.setblocking(False)
                sock.send(REFUSALS[reason].encode())
                sock.shutdown(socket.SHUT_WR)
                drain(sock)
        except OSError as error:
            logger.debug("cannot send the reason of a refusal: %s", error)
        finally:
            sock.close()

    def handle_session_opened(self, session: ChatSession) -> None:
        """Count a new client, and install the idle timeout and the rate limit."""
        self.counters.accepted += 1
        self._admission.add(session.addr)
        # The session itself has installed the room's rule.
        on_read: list[Callable[[ChatSession, int], object]] = []
        if self._idle is not None:
            self._idle.watch(session)
            on_read.append(self._idle.data_read)
        if self.limits.flood_bytes or self.limits.flood_messages:
            # Last, because handle_session_paused may close the session.
            limiter = RateLimiter(self.limits, self._map, self.handle_session_paused)
            session.limit_rate(limiter)
            on_read.append(limiter.data_read)
        if on_read:
            session.watch_reads(self.clients, *on_read)

    def handle_session_paused(self, session: ChatSession) -> None:
        """Count and log a pause: a client has exceeded the rate limit."""
        self.counters.pauses += 1
        user = session.user
        log_event("paused", logging.DEBUG, "%s: reading pauses", user, client=user)

    def handle_session_closed(
        self, session: ChatSession, reason: str, dropped: int
    ) -> None:
        """Count a closed client, and the bytes that were still queued for it."""
        self.counters.closed[reason] += 1
        self.counters.bytes_dropped += dropped
        self.counters.saw_backlog(dropped)
        self._admission.remove(session.addr)
        if self._idle is not None:
            self._idle.forget(session)
        if self._grace_timer is not None and not self.counters.connected:
            self._cancel_grace()

    def handle_close(self) -> None:
        """Print the tutorial's line, and keep listening."""
        print_line("服务器已经关闭")
        Listener.handle_close(self)

    def handle_error(self) -> None:
        """Print the tutorial's line, log the traceback, and keep listening."""
        print_line("服务器已经异常")
        log_error("the server continues after an error")

    def set_options(self, sock: socket.socket) -> None:
        """Set the options that sessions inherit: TCP_NODELAY and keepalive."""
        # Without TCP_NODELAY, each coalesced write would wait for the peer's delayed
        # acknowledgement of the write before.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.limits.keepalive:
            _keep_alive(sock, self.limits.keepalive)

    def _use_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        # Imported here, because most servers run without TLS.
        from compat.tls import over_tls
        from legacy_chat.handshakes import HandshakePool

        self.handshakes = HandshakePool(self, context, timeout, self._map)
        self.session_class = over_tls(self.session_class)

    def _start_services(self, metrics: tuple[str, int] | None) -> None:
        """Start everything that runs until close()."""
        self._cleanup.enter_context(compat.on_turn(self.counters.turn, map=self._map))
        if self.limits.idle:
            self._idle = IdleSweep(
                self.limits.idle,
                self.clients,
                self._sessions,
                lambda session: session.close_because("idle"),
                self._map,
            )
            self._cleanup.callback(self._idle.cancel)
        if metrics is not None:
            self.metrics = MetricsServer(*metrics, self.snapshot, self._map)
            self._cleanup.callback(self.metrics.close)

    def _close_unfinished(self, sock: socket.socket) -> None:
        """Close a socket, and the channel of a session whose constructor raised."""
        session = self._map.get(sock.fileno())
        if session is not None and getattr(session, "socket", None) is sock:
            if isinstance(session, ChatSession):
                session.close_because("error")
            session.close()
        sock.close()

    def _sessions(self) -> list[ChatSession]:
        """Return all sessions of this server, including those that are closing."""
        return [
            channel
            for channel in list(self._map.values())
            if isinstance(channel, ChatSession) and channel.server is self
        ]

    def _cancel_grace(self) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()

    def _close_sessions(self) -> None:
        left = self._sessions()
        if left:
            logger.warning("the grace period is over: closing %d clients", len(left))
        for session in left:
            session.close_because("grace")


def _keep_alive(sock: socket.socket, seconds: int) -> None:
    """Probe after *seconds* without traffic; drop the peer after as long again."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    pause = max(1, seconds // KEEPALIVE_PROBES)
    options = {"TCP_KEEPIDLE": seconds, "TCP_KEEPINTVL": pause}
    for name, value in {**options, "TCP_KEEPCNT": KEEPALIVE_PROBES}.items():
        # A system without one of these options uses its own value.
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
