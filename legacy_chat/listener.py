"""A listener that survives failures, on every address of a name.

Rule 1: no failure of ``accept`` ends the server or makes it spin. When the system is
out of descriptors or memory, the listener pauses, logs that once, and the server goes
on serving its clients.
Rule 2: one descriptor is kept in reserve. When no other is left, pending connections
are accepted on it, one by one, and rejected with a message; without that, each client
would wait for its own timeout.
Rule 3: a listener that could not be opened leaves nothing in the map.
Rule 4: a socket that has stopped listening is made to listen again, on its address and
port. While that fails, the listener logs the failure once and keeps trying.
"""

from __future__ import annotations

import asyncore
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import compat

__all__ = ["Listener"]

# Seconds without accepting after accept() failed: long enough not to spin, short enough
# for a client that waits in the backlog.
ACCEPT_PAUSE = 1.0

# Maximum connections accepted in one turn: enough to empty a full backlog in a few
# turns, few enough not to delay the clients in the room.
ACCEPTS_PER_TURN = 64

# This machine does not have the address; the name's other addresses are still used.
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

# The process, or the system, has no descriptor left.
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

# Attempts to find a port that is free on every address of a name.
FREE_PORT_TRIES = 16

CANNOT_ACCEPT = "cannot accept"

logger = logging.getLogger("legacy_chat")


class Listener(asyncore.dispatcher):
    """Listen on every address of a name, and survive failures.

    A subclass defines ``handle_accepted``, ``refuse`` and ``clients``, the collection
    of its open connections.

    Args:
        map: the channel map; None for ``asyncore.socket_map``.
    """

    clients: Any = ()

    # The result of getsockname() once the socket listens; None before.
    address: Any = None

    def __init__(self, map: compat.Map | None = None) -> None:
        asyncore.dispatcher.__init__(self, map=map)
        self._extra: list[_ExtraListener] = []
        self._reserve = _Reserve()
        self._list_num = 0
        self._pause_ends = 0.0
        self._clients_at_pause = 0
        # Operations that keep failing; each is logged only when it first fails.
        self._failing: set[str] = set()
        self._pause_timer: compat.Timer | None = None

    def readable(self) -> bool:
        """Return whether to accept: no pause, or a client has left since it began."""
        return (
            self._pause_ends == 0.0
            or time.monotonic() >= self._pause_ends
            or len(self.clients) < self._clients_at_pause
        )

    def close(self) -> None:
        """Stop listening. Accepted connections stay open."""
        self._cancel_timer()
        self._reserve.release()
        self._close_sockets()

    def handle_accept(self) -> None:
        """Accept the pending connections."""
        self._accept_from(self)

    def handle_close(self) -> None:
        """Stay open, and listen again on each socket that has stopped listening."""
        self._listen_again(self)
        for channel in self._extra:
            self._listen_again(channel)

    def refuse(self, sock: socket.socket, reason: str) -> None:
        """Reject a connection. This method owns *sock* and closes it."""
        sock.close()

    def listen_on(self, host: str, port: int, list_num: int) -> int:
        """Listen on every address of *host*; return the port.

        Raises:
            OSError: an address is in use, or may not be bound. ``socket.gaierror``:
                the host has no address. Nothing is left in the map.
        """
        self._list_num = list_num
        try:
            port = self._open_all(host, port)
        except BaseException:
            self.close()
            raise
        self._reserve.hold()
        return port

    def set_options(self, sock: socket.socket) -> None:
        """Set the options that accepted sockets inherit from the listening socket."""

    def _accept_from(self, channel: _Channel) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                pair = channel.accept()
            except OSError as error:
                if error.errno in NO_DESCRIPTOR:
                    self._refuse_all_from(channel)
                elif error.errno == errno.EINVAL and self._listen_again(channel):
                    return
                self._pause(CANNOT_ACCEPT, error)
                return
            if pair is None:
                return
            if CANNOT_ACCEPT in self._failing:
                self._failing.remove(CANNOT_ACCEPT)
                self._pause_ends = 0.0
                logger.info("accepting again")
            self.handle_accepted(*pair)
            if not _has_pending(channel.socket):
                return

    def _open_all(self, host: str, port: int) -> int:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        addresses = list(dict.fromkeys((each[0], each[4]) for each in found))
        for _ in range(FREE_PORT_TRIES - 1):
            try:
                return self._open(addresses, port)
            except OSError as error:
                self._close_sockets()
                if port or error.errno != errno.EADDRINUSE:
                    raise
        return self._open(addresses, port)

    def _open(self, addresses: Sequence[tuple[int, Any]], port: int) -> int:
        missing: OSError | None = None
        for family, (ip, _, *scope) in addresses:
            channel = _ExtraListener(self, self._map) if self.accepting else self
            try:
                channel.create_socket(family, socket.SOCK_STREAM)
                channel.set_reuse_addr()
                if family == socket.AF_INET6 and len(addresses) > 1:
                    # Otherwise the socket would also bind the IPv4 port.
                    only_ipv6 = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1
                    channel.socket.setsockopt(*only_ipv6)
                self.set_options(channel.socket)
                channel.bind((ip, port, *scope))
                channel.listen(self._list_num)
            except OSError as error:
                channel.close()
                if error.errno not in NOT_HERE:
                    raise
                missing = error
            else:
                # With port 0, all addresses use the port that the first one got.
                channel.address = channel.socket.getsockname()
                port = channel.address[1]
                if isinstance(channel, _ExtraListener):
                    self._extra.append(channel)
        if not self.accepting and missing is not None:
            raise missing
        return port

    def _close_sockets(self) -> None:
        for channel in self._extra:
            channel.close()
        self._extra.clear()
        asyncore.dispatcher.close(self)

    def _refuse_all_from(self, channel: _Channel) -> None:
        """Accept each pending connection on the reserve descriptor, and reject it."""
        for _ in range(ACCEPTS_PER_TURN):
            self._reserve.release()
            try:
                pair = channel.accept()
            except OSError as error:
                # Another thread has taken the descriptor.
                logger.debug("cannot accept on the reserve descriptor: %s", error)
                pair = None
            if pair is None:
                break
            self.refuse(pair[0], "descriptors")
            self._reserve.hold()
        self._reserve.hold()

    def _listen_again(self, channel: _Channel) -> bool:
        """Listen again on a socket that was shut down through a duplicate.

        Return whether the socket had stopped listening.
        """
        ip, port = channel.address[:2]
        failure = f"cannot listen on {ip} port {port} again"
        try:
            if _listens(channel.socket):
                return False
            _bind_again(channel.socket, channel.address)
            channel.socket.listen(self._list_num)
        except OSError as error:
            self._pause(failure, error)
        else:
            self._failing.discard(failure)
            text = "the socket on %s port %d had stopped listening; it listens again"
            logger.warning(text, ip, port)
        return True

    def _pause(self, failure: str, error: OSError) -> None:
        if failure not in self._failing:
            self._failing.add(failure)
            text = "%s: %s; trying again every %g s, %d clients stay"
            logger.warning(text, failure, error, ACCEPT_PAUSE, len(self.clients))
        self._pause_ends = time.monotonic() + ACCEPT_PAUSE
        self._clients_at_pause = len(self.clients)
        self._cancel_timer()
        if compat.is_running(self._map):
            # asyncore's own loop calls readable() after any event and at its timeout.
            self._pause_timer = compat.call_later(
                ACCEPT_PAUSE, self._end_pause, map=self._map
            )

    def _cancel_timer(self) -> None:
        if self._pause_timer is not None:
            self._pause_timer.cancel()

    def _end_pause(self) -> None:
        self._pause_ends = 0.0


class _ExtraListener(asyncore.dispatcher):
    """An additional address of a listener, with the same backlog and clients."""

    address: Any = None

    def __init__(self, listener: Listener, map: compat.Map) -> None:
        asyncore.dispatcher.__init__(self, map=map)
        self._listener = listener

    def readable(self) -> bool:
        return self._listener.readable()

    def handle_accept(self) -> None:
        self._listener._accept_from(self)

    def handle_close(self) -> None:
        self._listener.handle_close()

    def handle_error(self) -> None:
        self._listener.handle_error()


class _Reserve:
    """A descriptor that is kept until no other is left.

    Code that daemonizes closes every descriptor, and another file may get the number.
    The reserve is therefore identified by its inode, and closed only if that matches.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._inode = 0

    def hold(self) -> None:
        """Open the reserve, unless it is open or no descriptor is left."""
        if self._is_ours():
            return
        try:
            # Each socket has its own inode; all users of a device share one.
            self._fd = socket.socket().detach()
            self._inode = os.fstat(self._fd).st_ino
        except OSError as error:
            logger.debug("cannot hold a descriptor in reserve: %s", error)
            self._fd = -1

    def release(self) -> None:
        """Close the reserve, so that the next file or socket can be opened."""
        if self._is_ours():
            os.close(self._fd)
        self._fd = -1

    def _is_ours(self) -> bool:
        try:
            return self._fd >= 0 and os.fstat(self._fd).st_ino == self._inode
        except OSError:
            return False


def _bind_again(sock: socket.socket, address: Any) -> None:
    """Bind a socket that was shut down, unless it is still bound.

    Linux releases a port that it chose itself; listen() alone would choose another.

    Raises:
        OSError: another socket has bound the address meanwhile.
    """
    try:
        sock.bind(address)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _has_pending(sock: socket.socket) -> bool:
    """Return whether a connection is pending; True if select() cannot report that.

    An accept() without one costs a multiple: the kernel allocates a socket first.
    """
    try:
        return bool(select.select((sock,), (), (), 0)[0])
    except (OSError, ValueError):
        # Closed, or above the limit of select().
        return True


def _listens(sock: socket.socket) -> bool:
    """Return whether *sock* listens; True if the system does not report it."""
    option = getattr(socket, "SO_ACCEPTCONN", None)
    return option is None or bool(sock.getsockopt(socket.SOL_SOCKET, option))


_Channel: TypeAlias = Listener | _ExtraListener
