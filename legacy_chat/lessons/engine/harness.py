"""Where a lesson takes place: a room, its peers, and the loop that turns it.

Rule 1: everything is in one process and one thread, and nothing sleeps: what a peer has
said has arrived before the turn that is to read it.
Rule 2: the room is the real one, on the loopback, on a free port, in a map of its own.
Rule 3: whatever happens, what was changed (standard output, the log, limits) is as
before when the stage is left, and every socket is closed.
Rule 4: no two peers of a stage ever have the same port, for by that they are known.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import compat
from legacy_chat.lessons.engine.lesson import Seen
from legacy_chat.server import ChatServer
from legacy_chat.session import ChatSession

__all__ = ["Note", "Peer", "Stage", "StageError", "user_of"]

# Seconds that only a scenario waits which does not go as it should.
PATIENCE = 5.0

HOST = "127.0.0.1"


class StageError(Exception):
    """The scenario does not go as it should, or cannot be played here."""


def user_of(port: int) -> str:
    """What the room calls who comes from that port."""
    return f"用户{HOST}{port}"


class Note(NamedTuple):
    """Something that a peer, or the room, did outside of the trace.

    Attributes:
        turn: the number of turns before it.
        who: a peer; or several, with commas between them.
        what: "comes", "says", "hears", "ends", "drops", "prints", "logs" or "inside".
    """

    turn: int
    who: str
    what: str
    data: bytes = b""


class Peer:
    """The other end of a connection: a blocking socket that remembers what it got.

    Attributes:
        user: its name in the room.
        got: every byte so far.
        ended: has it seen the end?
    """

    def __init__(self, stage: Stage, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        self.got = b""
        self.ended = False
        # The channel's socket, where there is no room to ask for it.
        self.far_end: socket.socket | None = None
        self._stage = stage
        sock.settimeout(PATIENCE)
        self.port = 0
        if sock.family == socket.AF_INET:
            self.port = sock.getsockname()[1]
        self.user = user_of(self.port)

    def say(self, data: str | bytes) -> None:
        """Send it; return when the room's end has it to read."""
        data = data.encode() if isinstance(data, str) else data
        self.sock.sendall(data)
        self._stage.note(self.name, "says", data)
        self._stage.wait_for_arrival(self)

    def hear(self, wanted: str | bytes | int) -> bytes:
        """Receive until that has come, or so many bytes; return all that came.

        Raises:
            StageError: it does not come.
        """
        wanted = wanted.encode() if isinstance(wanted, str) else wanted
        heard = b""
        while len(heard) < wanted if isinstance(wanted, int) else wanted not in heard:
            heard += self._receive(f"{wanted!r}, but got {heard[-200:]!r}")
            if self.ended:
                raise StageError(f"{self.name} saw the end before {wanted!r}")
        return self._hears(heard)

    def hear_all(self) -> bytes:
        """Receive what is there, without waiting."""
        heard = b""
        while not self.ended and select.select([self.sock], [], [], 0)[0]:
            heard += self._receive("nothing")
        return self._hears(heard)

    def hear_end(self) -> bytes:
        """Receive until the room closes the connection; return what came."""
        heard = b""
        while not self.ended:
            heard += self._receive("the end")
        self._hears(heard)
        self._stage.note(self.name, "ends")
        return heard

    def drop(self) -> None:
        """Close, without a word; return when the room's end can tell."""
        self.sock.close()
        self._stage.note(self.name, "drops")
        self._stage.wait_for_arrival(self)

    def _hears(self, heard: bytes) -> bytes:
        if heard:
            self._stage.note(self.name, "hears", heard)
        return heard

    def _receive(self, wanted: str) -> bytes:
        try:
            data = self.sock.recv(1 << 20)
        except TimeoutError:
            raise StageError(f"{self.name} waited in vain for {wanted}") from None
        except ConnectionResetError:
            data = b""
        self.got += data
        self.ended = not data
        return data


class Stage:
    """The scenery of one lesson, on one loop. A context manager.

    Attributes:
        loop: the name of the loop.
        map: the channels. room: the server that was opened last.
        turns: how many there have been; begun: before what is to be seen of this step.
        notes: what was done and heard outside of the trace, in this step.
        facts: what the scenario has measured so far.
    """

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self.map: dict[int, Any] = {}
        self.turns = self.begun = 0
        self.notes: list[Note] = []
        self.facts: dict[str, Any] = {}
        self.room: ChatServer
        self._peers: dict[str, Peer] = {}
        self._ports: set[int] = set()
        self._at_end = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._at_end.callback(self._close_all)
        self._at_end.enter_context(contextlib.redirect_stdout(_Printed(self)))
        logger = logging.getLogger("legacy_chat")
        written = _Written(self)
        for name, value in (("propagate", False), ("level", logging.INFO)):
            self._at_end.callback(setattr, logger, name, getattr(logger, name))
            setattr(logger, name, value)
        logger.addHandler(written)
        self._at_end.callback(logger.removeHandler, written)
        # Levels are remembered by loggers.
        logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *error: object) -> None:
        self._at_end.close()

    def play(self, act: Callable[[Stage], None]) -> tuple[Seen, list[Note]]:
        """Do one step; return what was seen of it from outside of the trace."""
        self.notes, self.begun = [], self.turns
        act(self)
        seen = Seen(self.loop, facts=dict(self.facts))
        for note in self.notes:
            if note.what == "hears":
                seen.heard[note.who] += note.data
            elif note.what == "ends":
                seen.ended.add(note.who)
            elif note.what == "prints":
                seen.printed.append(note.data.decode())
            elif note.what == "logs":
                seen.logged.append(note.data.decode())
        seen.ports = {name: peer.port for name, peer in self._peers.items()}
        return seen, self.notes

    def note(self, who: str, what: str, data: bytes = b"") -> None:
        """Write down what was done or heard."""
        self.notes.append(Note(self.turns, who, what, data))

    def begin(self) -> None:
        """What was done so far in this step was the setting: nothing to look at."""
        came = ",".join(note.who for note in self.notes if note.what == "comes")
        self.notes, self.begun = [Note(self.turns, came, "inside")], self.turns

    def at_end(self, undo: Callable[[], object]) -> None:
        """Do that when the stage is left."""
        self._at_end.callback(undo)

    # The room.

    def open_room(self, **options: Any) -> ChatServer:
        """The real one, with the options of ChatServer."""
        self.room = ChatServer(host=HOST, port=0, map=self.map, **options)
        return self.room

    def knock(self, name: str, receive_buffer: int = 0, at: Any = None) -> Peer:
        """Connect, to the room or to *at*; nobody has accepted it yet."""
        door = self.room if at is None else at
        sock = self._bound()
        if receive_buffer:
            # Before it connects, for then the window is agreed on.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect((HOST, door.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = self._peers[name] = Peer(self, name, sock)
        self.note(name, "comes")
        self._wait_until_readable(door.socket)
        return peer

    def enter(self, name: str, receive_buffer: int = 0) -> Peer:
        """Connect, and be let in by a turn."""
        peer = self.knock(name, receive_buffer)
        self.turn()
        return peer

    def peer(self, name: str) -> Peer:
        """Who came under that name."""
        return self._peers[name]

    def session(self, peer: Peer) -> Any:
        """The room's end of its connection; None if there is none (any more)."""
        for channel in self.map.values():
            if isinstance(channel, ChatSession) and channel.port == peer.port:
                return channel
        return None

    def pair(self, name: str) -> tuple[socket.socket, Peer]:
        """A socket for a channel, and who is at its other end; without a room."""
        ours, theirs = socket.socketpair()
        self._at_end.callback(ours.close)
        self._at_end.callback(theirs.close)
        peer = self._peers[name] = Peer(self, name, theirs)
        peer.far_end = ours
        return ours, peer

    # The loop.

    def turn(self, timeout: float = PATIENCE) -> None:
        """One turn, which waits so many seconds at most."""
        self.turns += 1
        compat.loop(timeout, map=self.map, count=1, loop=self.loop)

    def turn_until(self, holds: Callable[[], object]) -> None:
        """Turn until that holds; StageError if it does not, for too long."""
        self.repeat(lambda: self.turn(0.02), holds)

    def repeat(self, act: Callable[[], object], holds: Callable[[], object]) -> None:
        """Do that until something holds.

        Raises:
            StageError: it does not, for too long.
        """
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise StageError(f"after {PATIENCE:g} s nothing has come of it")
            act()

    def wait_for_arrival(self, peer: Peer) -> None:
        """Let what *peer* has sent arrive at the room's end of its connection."""
        ours, session = peer.far_end, self.session(peer)
        if session is not None:
            ours = session.socket
        if ours is not None:
            self._wait_until_readable(ours)

    def _bound(self) -> socket.socket:
        """A socket with a port that no peer has had.

        One that connects unbound may be given that of another, for another room.
        """
        while True:
            sock = socket.socket()
            self._at_end.callback(sock.close)
            sock.bind((HOST, 0))
            port = sock.getsockname()[1]
            if port not in self._ports:
                self._ports.add(port)
                return sock

    def _wait_until_readable(self, sock: socket.socket) -> None:
        if not select.select([sock], [], [], PATIENCE)[0]:
            raise StageError(f"nothing has arrived at {sock}")

    def _close_all(self) -> None:
        for channel in list(self.map.values()):
            channel.close()
        # A loop that is left with an empty map gives back what it has kept.
        compat.loop(0.0, map=self.map, count=1, loop=self.loop)


class _Printed(io.StringIO):
    """Standard output, while the room runs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._stage.note("", "prints", line.encode())
        return len(text)


class _Written(logging.Handler):
    """The room's log, while it runs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        self._stage.note("", "logs", record.getMessage().encode())
