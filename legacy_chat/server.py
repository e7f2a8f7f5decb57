"""The room's door: the tutorial's server.

What is kept: the parameters, their order and their spelling; the printed lines; one
socket that listens, one session for each client, all in one map.

What is repaired, and must stay true:

Rule 1: whatever ``accept`` does, the server goes on, and does not spin. When the system
is out of descriptors or memory it pauses, says so once, and serves the clients it has.
Rule 2: what fails while one client is let in costs that client its connection, nobody
else anything.
Rule 3: a server that could not be made leaves nothing behind in the map.
"""

from __future__ import annotations

import asyncore
import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import compat
from legacy_chat.room import Clients, say
from legacy_chat.session import ChatSession

__all__ = ["DEFAULT_PORT", "ChatServer"]

DEFAULT_PORT = 19528

# Seconds without accepting after accept() failed. Long enough not to spin, short enough
# that a client which waits in the backlog does not give up.
ACCEPT_PAUSE = 1.0

# Connections accepted in one turn at most: enough to empty a full backlog in a few
# turns, few enough that the clients in the room do not wait for it.
ACCEPTS_A_TURN = 64

# An address that this machine does not have is no reason not to serve the others of
# the same name.
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

# A free port of one address may be taken on the next address of the same name.
FREE_PORT_TRIES = 16

logger = logging.getLogger("legacy_chat")


class _Unsaid(int):
    """A default port, told apart from the same number said by the caller."""


class ChatServer(asyncore.dispatcher):
    """Listen, and make a session of each client that comes.

    Args:
        list_num: the backlog: how many connections may wait to be accepted.
        host: an address or a name; a name with several addresses is listened to on
            each that this machine has. "" is every interface.
        post: the port, spelled as in the tutorial; 0 takes a free one.
        port: the same, spelled as everywhere else.
        map: the channel map; None for ``asyncore.socket_map``.
        session_class: what to make of a client; called as ChatSession is.

    Attributes:
        clients: the sessions in the room, in the order of their coming.
        port: the port that is listened to.

    Raises:
        OSError: an address is in use, or may not be bound. ``socket.gaierror``: the
            host has no address. Nothing is left in the map.
        TypeError: both *post* and *port* are given.
    """

    def __init__(
        self,
        list_num: int = 20,
        host: str = "0.0.0.0",
        post: int = _Unsaid(DEFAULT_PORT),
        *,
        port: int | None = None,
        map: compat.Map | None = None,
        session_class: Callable[..., Any] = ChatSession,
    ) -> None:
        if port is None:
            port = int(post)
        elif not isinstance(post, _Unsaid):
            raise TypeError(f"post={post} and port={port} mean the same: give one")
        asyncore.dispatcher.__init__(self, map=map)
        self.clients = Clients(self._map)
        self.session_class = session_class
        self._doors: list[_Door] = []
        self._pause_ends = 0.0
        self._clients_then = 0
        self._failing = False
        self._timers: list[compat.Timer] = []
        try:
            self.port = self._open(host, port, list_num)
        except BaseException:
            self.close()
            raise
        say("***server start***")

    def readable(self) -> bool:
        """Accepting? Not while it pauses, unless somebody has left meanwhile."""
        return (
            self._pause_ends == 0.0
            or time.monotonic() >= self._pause_ends
            or len(self.clients) < self._clients_then
        )

    def close(self) -> None:
        """Stop listening. Who is in the room stays there."""
        for timer in self._timers:
            timer.cancel()
        self._close_all_doors()

    def shut_down(self, grace: float = 3.0) -> None:
        """Stop listening, let every client have what is queued for it, and close it.

        Args:
            grace: seconds, after which those who have not taken it are closed too.
                Needs a loop of compat; asyncore's own has no timers.
        """
        self.close()
        for session in self._sessions():
            session.close_when_done()
        if compat.is_turned(self._map):
            compat.call_later(grace, self._close_sessions, map=self._map)

    def handle_accept(self) -> None:
        """Let in the clients that wait."""
        self._accept_from(self)

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        """Make a session of an accepted connection."""
        ip, port = addr[:2]
        say(f"client {ip} enter")
        try:
            self.session_class(self, sock, ip, port, self.clients)
        except BaseException:
            half_made = self._map.get(sock.fileno())
            if half_made is not None and getattr(half_made, "socket", None) is sock:
                half_made.close()
            sock.close()
            raise

    def handle_close(self) -> None:
        """Say so, and stay."""
        say("服务器已经关闭")

    def handle_error(self) -> None:
        """Say so, log the traceback, and stay."""
        say("服务器已经异常")
        logger.exception("the server goes on after an error")

    def _open(self, host: str, port: int, list_num: int) -> int:
        """Listen on every address of *host*; return the port."""
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        addresses = list(dict.fromkeys((each[0], each[4]) for each in found))
        for _ in range(FREE_PORT_TRIES - 1):
            try:
                return self._listen_on(addresses, port, list_num)
            except OSError as error:
                self._close_all_doors()
                if port or error.errno != errno.EADDRINUSE:
                    raise
        return self._listen_on(addresses, port, list_num)

    def _listen_on(
        self, addresses: Sequence[tuple[int, Any]], port: int, list_num: int
    ) -> int:
        missing: OSError | None = None
        for family, (ip, _, *scope) in addresses:
            door = _Door(self) if self.accepting else self
            try:
                door.create_socket(family, socket.SOCK_STREAM)
                door.set_reuse_addr()
                if family == socket.AF_INET6 and len(addresses) > 1:
                    # Or it would take the IPv4 port of the same number, too.
                    door.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # Sessions inherit it. Without it, what a gathering room sends waits for
                # the delayed acknowledgement of what it sent before.
                door.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                door.bind((ip, port, *scope))
                door.listen(list_num)
            except OSError as error:
                door.close()
                if error.errno not in NOT_HERE:
                    raise
                missing = error
            else:
                # With port 0, the other addresses take the number that the first got.
                port = door.socket.getsockname()[1]
                if isinstance(door, _Door):
                    self._doors.append(door)
        if not self.accepting and missing is not None:
            raise missing
        return port

    def _close_all_doors(self) -> None:
        for door in self._doors:
            door.close()
        self._doors.clear()
        asyncore.dispatcher.close(self)

    def _accept_from(self, door: asyncore.dispatcher) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                pair = door.accept()
            except OSError as error:
                self._pause(error)
                return
            if pair is None:
                return
            if self._failing:
                self._failing, self._pause_ends = False, 0.0
                logger.info("accepting again")
            self.handle_accepted(*pair)

    def _pause(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            logger.warning(
                "cannot accept: %s; trying again every %g s, %d clients stay",
                error,
                ACCEPT_PAUSE,
                len(self.clients),
            )
        self._pause_ends = time.monotonic() + ACCEPT_PAUSE
        self._clients_then = len(self.clients)
        if compat.is_turned(self._map):
            # asyncore's own loop asks again when anything happens, or at its timeout.
            self._timers = [
                compat.call_later(ACCEPT_PAUSE, self._end_pause, map=self._map)
            ]

    def _end_pause(self) -> None:
        self._pause_ends = 0.0

    def _sessions(self) -> list[ChatSession]:
        """Everybody whom this server let in, those who are leaving included."""
        return [
            channel
            for channel in list(self._map.values())
            if isinstance(channel, ChatSession) and channel.server is self
        ]

    def _close_sessions(self) -> None:
        left = self._sessions()
        if left:
            logger.warning("closing %d clients that took too long", len(left))
        for session in left:
            session.close()


class _Door(asyncore.dispatcher):
    """A further address of a server: the same backlog, the same room."""

    def __init__(self, server: ChatServer) -> None:
        asyncore.dispatcher.__init__(self, map=server._map)
        self._server = server

    def readable(self) -> bool:
        return self._server.readable()

    def handle_accept(self) -> None:
        self._server._accept_from(self)

    def handle_close(self) -> None:
        self._server.handle_close()

    def handle_error(self) -> None:
        self._server.handle_error()
