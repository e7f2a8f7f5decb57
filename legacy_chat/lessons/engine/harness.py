"""The harness of one run: a room, its peers, and the loop that serves them.

Rule 1: everything runs in one process and one thread, and nothing sleeps. Sent
data has arrived before the turn that is to read it.
Rule 2: the room is the real one, on the loopback, on a free port, in its own map.
Rule 3: on exit, standard output, the log and all limits are restored, and every socket
is closed.
Rule 4: no two peers of a run have the same port, because ports identify peers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Self

import compat
from compat.console import CommandError
from legacy_chat.lessons.engine.step_run import Note, StepRun
from legacy_chat.server import ChatServer
from legacy_chat.session import ChatSession

__all__ = ["Harness", "Peer", "ScenarioError", "user_of"]

# Seconds until a scenario that makes no progress fails.
PATIENCE = 5.0

HOST = "127.0.0.1"


class ScenarioError(CommandError):
    """The scenario does not behave as planned, or cannot run on this system."""


def user_of(port: int) -> str:
    """Return the room's name for the client that connects from *port*."""
    return f"用户{HOST}{port}"


class Peer:
    """The far end of a connection: a blocking socket that keeps all received data.

    Attributes:
        user: its name in the room.
        got: every byte received so far.
        ended: whether the room has closed the connection.
    """

    def __init__(
        self,
        harness: Harness,
        name: str,
        sock: socket.socket,
        near: socket.socket | None = None,
    ) -> None:
        self.name = name
        self.sock = sock
        # The channel's socket, if no session of a room has it.
        self.near = near
        self.got = b""
        self.ended = False
        self._harness = harness
        sock.settimeout(PATIENCE)
        is_inet = sock.family == socket.AF_INET
        self.port: int = sock.getsockname()[1] if is_inet else 0
        self.user = user_of(self.port)

    def send(self, data: str | bytes) -> None:
        """Send *data*; return when it can be read at the room's end."""
        data = data.encode() if isinstance(data, str) else data
        self.sock.sendall(data)
        self._note("sends", data)
        self._harness.wait_for_arrival(self)

    def receive(self, wanted: str | bytes | int) -> None:
        """Receive until *wanted* has arrived, or that number of bytes.

        Raises:
            ScenarioError: it does not arrive.
        """
        wanted = wanted.encode() if isinstance(wanted, str) else wanted
        data = b""
        while len(data) < wanted if isinstance(wanted, int) else wanted not in data:
            data += self._receive(f"{wanted!r}, but received {data[-200:]!r}")
            if self.ended:
                raise ScenarioError(f"{self.name} received EOF before {wanted!r}")
        self._note("receives", data)

    def exchange(self, data: str | bytes, reply: str | bytes | int) -> None:
        """Send *data*, run one turn, and receive *reply*."""
        self.send(data)
        self._harness.turn()
        self.receive(reply)

    def receive_pending(self) -> None:
        """Receive everything that has arrived, without waiting."""
        data = b""
        while not self.ended and select.select([self.sock], [], [], 0)[0]:
            data += self._receive("nothing")
        self._note("receives", data)

    def receive_eof(self) -> None:
        """Receive until the room closes the connection."""
        data = b""
        while not self.ended:
            data += self._receive("EOF")
        self._note("receives", data)
        self._note("ends")

    def disconnect(self) -> None:
        """Close the connection; return when the room's end can read the EOF."""
        self.sock.close()
        self._note("disconnects")
        self._harness.wait_for_arrival(self)

    def _note(self, kind: str, data: bytes = b"") -> None:
        if data or kind != "receives":
            self._harness.note(kind, data, self.name)

    def _receive(self, wanted: str) -> bytes:
        try:
            data = self.sock.recv(1 << 20)
        except TimeoutError:
            raise ScenarioError(f"{self.name} timed out waiting for {wanted}") from None
        except ConnectionResetError:
            data = b""
        self.got += data
        self.ended = not data
        return data


class Harness:
    """Context manager: one run of a lesson, on one loop.

    Attributes:
        loop: the name of the loop.
        map: the channels.
        room: the server that was opened last.
        peers: by name.
        facts: measurements of the scenario.
    """

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self.map: dict[int, Any] = {}
        self.room: ChatServer
        self.peers: dict[str, Peer] = {}
        self.facts: dict[str, Any] = {}
        self._turns = self._turns_before = 0
        self._notes: list[Note] = []
        self._ports: set[int] = set()
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.on_exit(self._close_all)
        self._exit.enter_context(contextlib.redirect_stdout(_PrintedLines(self)))
        logger = logging.getLogger("legacy_chat")
        handler = logging.Handler()
        handler.addFilter(self._note_logged)
        self.on_exit(logger.setLevel, logger.level)
        self.on_exit(setattr, logger, "propagate", logger.propagate)
        self.on_exit(logger.removeHandler, handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def on_exit(self, undo: Callable[..., object], *args: Any) -> None:
        """Call *undo* with these arguments on exit, in reverse order."""
        self._exit.callback(undo, *args)

    def run(self, act: Callable[[Harness], None]) -> StepRun:
        """Run one step; return everything about it except its turns."""
        self._notes, self._turns_before = [], self._turns
        act(self)
        ports = {name: peer.port for name, peer in self.peers.items()}
        first, last = self._turns_before + 1, self._turns
        return StepRun(self.loop, self._notes, dict(self.facts), ports, first, last)

    def note(self, kind: str, data: bytes, *peers: str) -> None:
        """Add a note of an event."""
        self._notes.append(Note(self._turns, kind, data, peers))

    def end_setup(self) -> None:
        """Treat everything so far as the setup of this step, which is not shown."""
        joined = [note.peers[0] for note in self._notes if note.kind == "connects"]
        self._notes, self._turns_before = [], self._turns
        self.note("present", b"", *joined)

    # The room and its peers.

    def open_room(self, **options: Any) -> ChatServer:
        """Open the real room, with these options of ChatServer."""
        self.room = ChatServer(host=HOST, port=0, map=self.map, **options)
        return self.room

    def room_with(self, *names: str, **options: Any) -> list[Peer]:
        """Open a room that these peers have joined, as the setup of this step."""
        self.open_room(**options)
        peers = [self.join(name) for name in names]
        self.end_setup()
        return peers

    def connect(self, name: str, receive_buffer: int = 0, to: Any = None) -> Peer:
        """Connect to the room, or to another server; no turn accepts it yet."""
        server = self.room if to is None else to
        sock = self._bound_socket()
        if receive_buffer:
            # Before connecting, which fixes the TCP window.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect((HOST, server.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = self.peers[name] = Peer(self, name, sock)
        self.note("connects", b"", name)
        _wait_until_readable(server.socket)
        return peer

    def join(self, name: str, receive_buffer: int = 0) -> Peer:
        """Connect, and run the turn that accepts the connection."""
        peer = self.connect(name, receive_buffer)
        self.turn()
        return peer

    def session(self, peer: Peer) -> Any:
        """Return the room's session of *peer*, or None."""
        for channel in self.map.values():
            if isinstance(channel, ChatSession) and channel.port == peer.port:
                return channel
        return None

    def send_last(self, peer: Peer, data: str | bytes) -> None:
        """Send the data that ends the session; run turns until EOF arrives."""
        peer.send(data)
        self.turn_until(lambda: self.session(peer) is None)
        peer.receive_eof()

    def socket_pair(self, name: str) -> tuple[socket.socket, Peer]:
        """Return a socket for a channel, and its peer, without a room."""
        near, far = socket.socketpair()
        self.on_exit(near.close)
        self.on_exit(far.close)
        peer = self.peers[name] = Peer(self, name, far, near)
        return near, peer

    # The loop.

    def turn(self, timeout: float = PATIENCE) -> None:
        """Run one turn, which waits at most *timeout* seconds."""
        self._turns += 1
        compat.loop(timeout, map=self.map, count=1, loop=self.loop)

    def turn_until(self, holds: Callable[[], object]) -> None:
        """Run turns until *holds* returns true."""
        self.repeat(lambda: self.turn(0.02), holds)

    def repeat(self, act: Callable[[], object], holds: Callable[[], object]) -> None:
        """Call *act* until *holds* returns true.

        Raises:
            ScenarioError: PATIENCE is over first.
        """
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise ScenarioError(f"no progress in {PATIENCE:g} s")
            act()

    def wait_for_arrival(self, peer: Peer) -> None:
        """Wait until the data that *peer* has sent can be read by its channel."""
        session = self.session(peer)
        near = peer.near if session is None else session.socket
        if near is not None:
            _wait_until_readable(near)

    def _note_logged(self, record: logging.LogRecord) -> bool:
        self.note("logs", record.getMessage().encode())
        return False

    def _bound_socket(self) -> socket.socket:
        """Return a socket with a port that no peer has had.

        A socket that connects unbound may get another peer's port, for another room.
        """
        while True:
            sock = socket.socket()
            self.on_exit(sock.close)
            sock.bind((HOST, 0))
            port = sock.getsockname()[1]
            if port not in self._ports:
                self._ports.add(port)
                return sock

    def _close_all(self) -> None:
        for channel in list(self.map.values()):
            channel.close()
        # A loop that ends with an empty map releases its resources.
        compat.loop(0.0, map=self.map, count=1, loop=self.loop)


def _wait_until_readable(sock: socket.socket) -> None:
    if not select.select([sock], [], [], PATIENCE)[0]:
        raise ScenarioError(f"no data has arrived at {sock}")


class _PrintedLines(io.StringIO):
    """Standard output while the room runs."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self._harness = harness
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._harness.note("prints", line.encode())
        return len(text)
