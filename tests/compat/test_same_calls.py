"""The same script on asyncore's own poll and on ours: the same calls, the same data.

A script is a list of random steps: an action on a channel, now or in one of its
handlers, and the number of turns after the step. It is played in two worlds, each with
its own sockets and loop, and all calls of the channels are compared.

Rule 1: the reference is ``asyncore.poll`` itself, and ``asyncore.poll2`` for a loop
that is requested as poll2. Where ours differs on purpose, the reference gets a map that
makes the difference; AsPromised and AsPromisedOfPoll2 list all differences.
Rule 2: both worlds see the same kernel. Descriptors come from each world's own range,
so that a number is reused in both or in neither; data over TCP is small and has arrived
before the loop runs; large data goes over UNIX sockets, whose buffers take the same
amount each time.
Rule 3: nothing depends on the clock. The clock stands still, and jumps ahead after a
change that a loop can notice only by polling again (DESIGN.md, promise 3).

LEGACY_CHAT_EXAMPLES=5000 in the environment plays 5,000 scripts, different ones each
time.
"""

from __future__ import annotations

import asynchat
import asyncore
import fcntl
import os
import select
import socket
import sys
import time
from collections import UserDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import compat
from compat import registrations, settled
from tests.naive import NaiveLoop

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="elsewhere a byte sent over the loopback need not have arrived at once",
)

# Number of scripts; larger numbers are for a night, with other scripts each time.
VARIABLE = "LEGACY_CHAT_EXAMPLES"
EXAMPLES = int(os.environ.get(VARIABLE, "60"))

# The lowest descriptor of a world's channels; everything else has lower numbers.
FIRST_FD = 400

# More channels make a script no better, only longer.
MOST_CHANNELS = 9

# Bytes of a small send buffer, soon full. The kernel doubles it.
NARROW = 2304

# Maximum bytes over TCP; more may arrive in two parts.
MOST_OVER_TCP = 2000

LEAVES = (asyncore.ExitNow, SystemExit)

Entry: TypeAlias = tuple[Any, ...]


class DifferenceError(AssertionError):
    """The logs of the two worlds differ."""


# ---------------------------------------------------------------------------
# Scripts
# ---------------------------------------------------------------------------


class Step(NamedTuple):
    """An action, and the turns after it.

    Attributes:
        at: None for now, or (which channel, which call): during that next call.
        turns: number of turns after this step, even if the action is still pending.
    """

    verb: str
    given: dict[str, Any]
    at: tuple[int, str] | None = None
    turns: int = 1


# Which channel: 0 is the first in the map, -1 the one that is being called, or the
# newest; -2 one that is in the map no longer.
WHO = st.sampled_from((0, 1, 2, 3, 4, -1, -1, -2))

KINDS = ("scripted", "sender", "chat", "announcing", "choosy", "bare")
ENDS = ("unix", "narrow", "tcp", "pipe in", "pipe out", "file")
KIND = st.sampled_from(KINDS)
END = st.sampled_from((*ENDS, "unix", "unix", "tcp"))

# A number stands for that many bytes, all different.
DATA = st.one_of(
    st.text("ab\r\n", min_size=1, max_size=9).map(str.encode),
    st.sampled_from((1, 200, 5_000, 70_000, 300_000)),
)
TERMINATORS = st.sampled_from((None, 0, 1, 3, 1000, b"\n", b"\r\n", b"ab", b""))
ERRORS = st.sampled_from(
    (ValueError, ConnectionResetError, BlockingIOError, OSError, *LEAVES)
)
QUALITIES = st.sampled_from(
    (
        ("reads", False),
        ("reads", True),
        ("writes", False),
        ("writes", True),
        ("writes", None),
        ("closes", False),
        ("takes_urgent", False),
        ("ac_in_buffer_size", 1),
        ("ac_in_buffer_size", 7),
        ("ac_in_buffer_size", 1 << 20),
        ("ac_out_buffer_size", 5),
        ("ac_out_buffer_size", 1 << 20),
        ("connected", False),
    )
)

# Methods that a program replaces on a channel or on its class while the loop runs. The
# first two return answers, and the others call the replaced method.
REPLACED = (
    "readable",
    "writable",
    "recv",
    "handle_read",
    "handle_read_event",
    "handle_write_event",
    "handle_expt_event",
    "get_terminator",
    "collect_incoming_data",
)
NAMES = st.sampled_from((*REPLACED, *REPLACED[:4]))
SIDES = st.sampled_from((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR))

# The call in which a step happens; a channel never calls a method that it lacks.
CALLS = st.sampled_from(
    (
        "handle_read_event",
        "handle_read_event",
        "recv",
        "recv",
        "collect_incoming_data",
        "found_terminator",
        "handle_write_event",
        "handle_write_event",
        "send",
        "more",
        "handle_expt_event",
        "handle_connect",
        "handle_accepted",
        "handle_close",
        "handle_close",
        "handle_error",
        "readable",
        "writable",
    )
)

# Mostly now: some calls never come.
MOMENT = st.sampled_from((False, False, True)).flatmap(
    lambda later: st.tuples(WHO, CALLS) if later else st.none()
)

# Every verb is a method of World.
VERBS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "open": {"kind": KIND, "end": END},
    "couple": {"kind": KIND, "other": KIND},
    "listen": {"end": st.sampled_from(("unix", "tcp")), "child": KIND},
    "connect": {"kind": KIND, "refused": st.booleans()},
    "peer_send": {"who": WHO, "data": DATA},
    "peer_send_urgent": {"who": WHO},
    "peer_receive": {"who": WHO, "amount": st.sampled_from((1 << 20, 1, 1000))},
    "shut": {"who": WHO, "side": SIDES},
    "leave": {"who": WHO},
    "reset": {"who": WHO},
    "push": {"who": WHO, "data": DATA},
    "push_with_producer": {"who": WHO, "parts": st.lists(DATA, max_size=3)},
    "close_when_done": {"who": WHO},
    "discard_buffers": {"who": WHO},
    "initiate_send": {"who": WHO},
    "set_terminator": {"who": WHO, "terminator": TERMINATORS},
    "set": {"who": WHO, "quality": QUALITIES},
    "override": {"who": WHO, "name": NAMES, "answer": st.booleans()},
    "override_class": {"who": WHO, "name": NAMES, "answer": st.booleans()},
    "restore": {"who": WHO, "name": NAMES},
    "restore_class": {"who": WHO, "name": NAMES},
    "become": {"who": WHO, "kind": st.sampled_from(("announcing", "choosy", "louder"))},
    "close": {"who": WHO},
    "shut_own": {"who": WHO, "side": SIDES},
    "close_behind": {"who": WHO},
    "hold": {"who": WHO},
    "replace": {"who": WHO, "kind": KIND, "end": END},
    "reconnect": {"who": WHO, "end": END},
    "usurp": {"who": WHO, "kind": KIND},
    "take_out": {"who": WHO},
    "put_back": {"who": WHO},
    "put_twice": {"who": WHO},
    "put_under_socket": {"who": WHO},
    "let_go": {},
    "raise_error": {"error": ERRORS},
    "turn": {"count": st.sampled_from((1, 3)), "afresh": st.booleans()},
}

# Made once: for hypothesis it is more work to look through them than to draw from them.
STEPS = {
    verb: st.builds(
        Step,
        st.just(verb),
        st.fixed_dictionaries(given),
        MOMENT,
        st.sampled_from((1, 1, 0, 3)),
    )
    for verb, given in VERBS.items()
}
OPENED = st.builds(
    Step, st.just("open"), st.fixed_dictionaries(VERBS["open"]), turns=st.just(0)
)

# In all scripts; of the others each has some, so that they can happen often.
ALWAYS = ("open", "peer_send", "peer_send", "push", "peer_receive", "turn")


@st.composite
def scripts(draw: st.DrawFn, without: frozenset[str] = frozenset()) -> list[Step]:
    """Draw some channels, and the steps."""
    others = [verb for verb in VERBS if verb not in (*ALWAYS, *without)]
    some = draw(st.lists(st.sampled_from(others), unique=True, max_size=12))
    happen = st.lists(st.one_of(*(STEPS[verb] for verb in (*ALWAYS, *some))))
    first = draw(st.lists(OPENED, min_size=1, max_size=5))
    # Some lists in a row: a single one would seldom be long.
    return [*first, *(step for _ in range(4) for step in draw(happen))]


CHANGES = ("override", "override_class", "restore", "restore_class", "become", "set")


@st.composite
def overriding_scripts(draw: st.DrawFn) -> list[Step]:
    """Draw a few channels that announce, read and write; and replacing methods."""
    happen = [STEPS[verb] for verb in ("peer_send", "peer_send", "push", *CHANGES)]
    opened = Step("open", {"kind": "announcing", "end": "unix"}, turns=0)
    first = [opened] * draw(st.integers(1, 3))
    return [*first, *draw(st.lists(st.one_of(*happen), min_size=4, max_size=30))]


# ---------------------------------------------------------------------------
# Channels that record their calls
# ---------------------------------------------------------------------------


class Scripted:
    """Common base of all channels here.

    Attributes:
        peer: the peer's end, unless that is a channel too.
        reads, writes: results of ``readable`` and ``writable``, where these are ours;
            None: depends on whether there is data to write.
        closes: whether ``handle_close`` closes.
        armed: actions of the next calls, by the call's name.
    """

    reads, closes, takes_urgent = True, True, True
    writes: bool | None = None
    ac_in_buffer_size = 4096
    socket: Any

    def enter(self, world: World) -> None:
        self.world = world
        self.name = world.name_for(self)
        self.peer: Any = None
        self.armed: dict[str, deque[Step]] = {}
        self.outbox = b""

    def called(self, call: str, *data: Any) -> None:
        """Record a call, and perform the script's action for it."""
        self.world.log.append((self.name, call, *data))
        self.act(call)

    def act(self, call: str) -> None:
        """Perform the script's action for this call."""
        armed = self.armed.get(call)
        if armed:
            step = armed.popleft()
            self.world.called.append(self)
            try:
                self.world.happen(step)
            finally:
                self.world.called.pop()


class Dispatcher(Scripted, asyncore.dispatcher):
    """The handlers, as in asyncore, with a record."""

    def __init__(self, world: World) -> None:
        self.enter(world)
        super().__init__(map=world.map)

    def take(self, end: Any) -> None:
        """Become the channel of this end of a connection."""
        self.set_socket(end)
        self.connected = True

    def recv(self, buffer_size: int) -> bytes:
        data = super().recv(buffer_size)
        self.called("recv", data)
        return data

    def send(self, data: Any) -> Any:
        sent = super().send(data)
        self.called("send", sent)
        return sent

    def handle_read_event(self) -> None:
        self.called("handle_read_event")
        super().handle_read_event()

    def handle_write_event(self) -> None:
        self.called("handle_write_event")
        super().handle_write_event()

    def handle_expt_event(self) -> None:
        self.called("handle_expt_event")
        super().handle_expt_event()

    def handle_expt(self) -> None:
        if self.takes_urgent:
            self.called("handle_expt", self.socket.recv(1, socket.MSG_OOB))

    def handle_connect(self) -> None:
        self.called("handle_connect")

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        self.called("handle_accepted")
        self.world.adopt(self.child, sock)

    # The class of an accepted connection.
    child = "chat"

    def handle_close(self) -> None:
        self.called("handle_close")
        if self.closes:
            self.close()

    def handle_error(self) -> None:
        self.called("handle_error", kind_of(sys.exc_info()[1]))
        self.handle_close()


class Answers:
    """A mixin with its own ``readable`` and ``writable``, which loops must call."""

    act: Callable[..., None]
    reads: bool
    writes: bool | None
    outbox: bytes

    def readable(self) -> bool:
        self.act("readable")
        return self.reads and is_open(self)

    def writable(self) -> bool:
        self.act("writable")
        waiting = self.outbox or getattr(self, "producer_fifo", ())
        wants = bool(waiting) if self.writes is None else self.writes
        return wants and is_open(self)


class Scripted(Answers, Dispatcher):
    """A plain dispatcher."""

    def handle_read(self) -> None:
        self.recv(self.ac_in_buffer_size)

    def handle_write(self) -> None:
        if self.outbox:
            self.outbox = self.outbox[self.send(self.outbox) :]

    def push(self, data: bytes) -> None:
        self.outbox += data


class Sender(Dispatcher, asyncore.dispatcher_with_send):
    """A dispatcher with buffered output, and the original's ``writable``."""

    def handle_read(self) -> None:
        self.recv(self.ac_in_buffer_size)

    def push(self, data: bytes) -> None:
        self.send(data)


class Chats(Dispatcher):
    """The part of a chat session that every program writes itself."""

    terminator: Any = b"\n"
    get_terminator: Any
    ac_in_buffer_size = 65536

    def collect_incoming_data(self, data: bytes) -> None:
        self.called("collect_incoming_data", data)

    def found_terminator(self) -> None:
        self.called("found_terminator")


class Chat(Chats, asynchat.async_chat):
    """A chat session on the original class."""


class Announcing(Chats, compat.async_chat):
    """A session on our class: a loop need not call it before it announces."""


class Choosy(Answers, Announcing):
    """A session on our class, with its own ``readable``, which loops must call."""


class Louder(Announcing):
    """A session on our class, which an announcing channel may become."""

    def recv(self, buffer_size: int) -> bytes:
        return super().recv(buffer_size).upper()


class Bare(Scripted):
    """No dispatcher; the loop must not use its socket."""

    accepting = False
    sock: Any = None

    def __init__(self, world: World) -> None:
        self.enter(world)

    readable, writable = Answers.readable, Answers.writable

    def take(self, end: Any) -> None:
        self.sock = end
        self.add_channel()

    def add_channel(self) -> None:
        self.world.map[self.sock.fileno()] = self

    def push(self, data: bytes) -> None:
        self.outbox += data

    def handle_read_event(self) -> None:
        self.called("handle_read_event")
        data = self.sock.recv(self.ac_in_buffer_size)
        self.called("recv", data)
        if not data:
            self.handle_close()

    def handle_write_event(self) -> None:
        self.called("handle_write_event")
        if self.outbox:
            self.outbox = self.outbox[self.sock.send(self.outbox) :]

    def handle_expt_event(self) -> None:
        self.called("handle_expt_event")
        if self.takes_urgent:
            self.called("handle_expt", self.sock.recv(1, socket.MSG_OOB))

    def handle_close(self) -> None:
        self.called("handle_close")
        if self.closes:
            self.close()

    def handle_error(self) -> None:
        self.called("handle_error", kind_of(sys.exc_info()[1]))
        self.handle_close()

    def close(self) -> None:
        if self.world.map.get(self.sock.fileno()) is self:
            del self.world.map[self.sock.fileno()]
        self.sock.close()


CLASSES: dict[str, Callable[[World], Any]] = {
    "scripted": Scripted,
    "sender": Sender,
    "chat": Chat,
    "announcing": Announcing,
    "choosy": Choosy,
    "bare": Bare,
}
BECOMES = {"announcing": Announcing, "choosy": Choosy, "louder": Louder}


class Producer:
    """A producer that returns its parts one by one; its end is recorded like a call."""

    def __init__(self, channel: Any, parts: list[bytes]) -> None:
        self._channel = channel
        self._parts = parts

    def more(self) -> bytes:
        self._channel.called("more")
        return self._parts.pop(0) if self._parts else b""


def own(name: str, answer: bool, before: Callable[..., Any]) -> Callable[..., Any]:
    """Return a program's replacement of a method."""

    def method(channel: Any, *args: Any) -> Any:
        channel.called(f"own {name}")
        if name in ("readable", "writable"):
            return answer and is_open(channel)
        return before(channel, *args)

    return method


def kind_of(error: BaseException | None) -> tuple[str, Any]:
    """Return the comparable part of an exception."""
    return type(error).__name__, getattr(error, "errno", None)


# ---------------------------------------------------------------------------
# Two connected ends
# ---------------------------------------------------------------------------


def pair_of(end: str) -> tuple[Any, Any]:
    """Return two connected ends, the channel's and its peer's."""
    if end == "tcp":
        return _tcp_pair()
    if end == "file":
        return _file(os.memfd_create("a regular file")), None
    if end.startswith("pipe"):
        reader, writer = map(_file, os.pipe())
        return (reader, writer) if end == "pipe in" else (writer, reader)
    mine, peer = socket.socketpair()
    if end == "narrow":
        for sock in (mine, peer):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
    return mine, peer


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        return server.accept()[0], peer


def _file(fd: int) -> Any:
    try:
        return asyncore.file_wrapper(fd)
    finally:
        os.close(fd)


def is_tcp(end: Any) -> bool:
    """Return whether it is a socket on which data arrives with a delay."""
    return isinstance(end, socket.socket) and end.family == socket.AF_INET


# ---------------------------------------------------------------------------
# A world: a map, channels, their peers, a loop, and the log
# ---------------------------------------------------------------------------


class Clock:
    """A substitute of time.monotonic that moves only on request."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now

    def jump(self) -> None:
        """Move far enough that a loop that polls now and then polls again."""
        self.now += 10.0


class World:
    """The channels that a script's steps act on.

    Attributes:
        map: the channels.
        log: (channel, call, data), in order; and events of the peers and the loop.
        called: the channels whose handlers are active, the innermost last.
        error: the last exception that has left the loop.
    """

    error: BaseException | None = None

    def __init__(self, loop: Loop, clock: Clock) -> None:
        self.loop = loop
        self.clock = clock
        self.map: dict[Any, Any] = {}
        self.log: list[Entry] = []
        self.called: list[Any] = []
        self._channels: list[Any] = []
        self._ends: list[Any] = []
        self._held: list[int] = []
        self._classes = pytest.MonkeyPatch()
        self._spoken = 0
        self._fence = socket.socket(type=socket.SOCK_DGRAM)
        self._fence.bind(("127.0.0.1", 0))
        self._fence.connect(self._fence.getsockname())
        # Bound and not listening: it refuses connections.
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for end in (*self._ends, self._fence, self._refusing):
            end.close()
        for fd in self._held:
            os.close(fd)
        self._classes.undo()
        self.map.clear()
        # With an empty map, our loop frees its kept resources.
        self.loop(self.map, 1)

    # Playing a script

    def happen_now_or_later(self, step: Step) -> None:
        """Perform a step outside of any handler, or arm it."""
        if not self.map:
            # Without a channel, no step could do anything.
            self.open(KINDS[len(self._channels) % len(KINDS)], "unix")
        if step.at is not None:
            who, call = step.at
            channel = self.pick(who)
            if channel is not None:
                channel.armed.setdefault(call, deque()).append(step)
            return
        with self.noting(step.verb):
            self.happen(step)

    def happen(self, step: Step) -> None:
        """Perform a step; its exception goes to the active handler."""
        getattr(self, step.verb)(**step.given)

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Record a raised exception."""
        try:
            yield
        except TheEnd:
            raise
        except (Exception, *LEAVES) as error:
            self.error = error
            self.log.append(("world", what, kind_of(error)))

    def receive_all(self) -> None:
        """Record the data that the peers have not received yet."""
        for channel in self._channels:
            if channel.peer is not None:
                self._peer(channel, "peer_receive", channel.peer.recv, 1 << 20)

    def note_turn(self) -> None:
        """Record the state after a turn; wait until sent data has arrived."""
        self.log.append(("world", "map", *map(self._entry, self.map.items())))
        self.settle()

    def settle(self) -> None:
        """Wait until all data sent over TCP has arrived.

        Packets that this processor sends over the loopback arrive in order, and so does
        a datagram behind them. Three times: a handshake takes three packets.
        """
        if any(is_tcp(end) for end in self._ends):
            for _ in range(3):
                self._fence.send(b"!")
                self._fence.recv(1)

    def _entry(self, item: tuple[Any, Any]) -> Entry:
        key, channel = item
        where = key if isinstance(key, int) else type(key).__name__
        return where, channel.name, getattr(channel, "connected", None)

    # Objects of the world

    def name_for(self, channel: Any) -> str:
        self._channels.append(channel)
        return f"c{len(self._channels)}"

    def pick(self, who: int) -> Any:
        """Return the channel that a step names; None if there is none."""
        if who == -1:
            return (self.called or self._channels or [None])[-1]
        live = list(self.map.values())
        if who == -2:
            gone = [each for each in self._channels if each not in live]
            return gone[-1] if gone else None
        return live[who % len(live)] if live else None

    def place(self, end: Any) -> Any:
        """Move an end to the lowest free descriptor of the world's range."""
        fd = fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_FD)
        os.set_blocking(fd, False)
        if isinstance(end, socket.socket):
            placed: Any = socket.socket(end.family, end.type, end.proto, fd)
            end.close()
        else:
            os.close(end.fd)
            end.fd, placed = fd, end
        if is_tcp(placed):
            placed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends.append(placed)
        return placed

    def keep(self, peer: Any) -> Any:
        """A peer of a channel, under a fixed descriptor."""
        if peer is not None:
            os.set_blocking(peer.fileno(), False)
            self._ends.append(peer)
        if is_tcp(peer):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer

    def adopt(self, kind: str, end: Any, peer: Any = None) -> Any:
        channel = CLASSES[kind](self)
        channel.take(self.place(end))
        channel.peer = self.keep(peer)
        return channel

    def bytes_of(self, data: bytes | int, end: Any) -> bytes:
        """Return the bytes that a script names."""
        if isinstance(data, int):
            if is_tcp(end):
                data = min(data, MOST_OVER_TCP)
            begin = self._spoken
            self._spoken += data
            numbers = range(begin // 100, (begin + data) // 100 + 1)
            data = b"".join(b"%99d\n" % n for n in numbers)[:data]
        return data

    # The verbs: new channels

    def open(self, kind: str, end: str) -> None:
        if len(self.map) < MOST_CHANNELS:
            self.adopt(kind, *pair_of(end))

    def couple(self, kind: str, other: str) -> None:
        """Add two channels that are connected to each other."""
        mine, peer = pair_of("unix")
        self.adopt(kind, mine)
        self.adopt(other, peer)

    def listen(self, end: str, child: str) -> None:
        family = socket.AF_UNIX if end == "unix" else socket.AF_INET
        channel = Scripted(self)
        channel.child = child
        channel.writes = True
        channel.set_socket(self.place(socket.socket(family)))
        channel.bind("" if end == "unix" else ("127.0.0.1", 0))
        channel.listen(8)

    def connect(self, kind: str, refused: bool) -> None:
        channel = CLASSES[kind](self)
        if not isinstance(channel, Dispatcher) or len(self.map) >= MOST_CHANNELS:
            return
        listening = [each for each in self.map.values() if each.accepting]
        where = self._refusing if refused or not listening else listening[-1].socket
        channel.set_socket(self.place(socket.socket(where.family)))
        channel.connect(where.getsockname())
        if channel.socket.family == socket.AF_INET:
            self.settle()

    # Actions of the peer

    def peer_send(self, who: int, data: bytes | int) -> None:
        channel = self._with_peer(who)
        if channel is not None:
            sent_bytes = self.bytes_of(data, channel.peer)
            self._peer(channel, "peer_send", channel.peer.send, sent_bytes)

    def peer_send_urgent(self, who: int) -> None:
        self._of_socket(who, "peer_send_urgent", "send", b"!", socket.MSG_OOB)

    def peer_receive(self, who: int, amount: int) -> None:
        channel = self._with_peer(who)
        if channel is not None:
            self._peer(channel, "peer_receive", channel.peer.recv, amount)

    def shut(self, who: int, side: int) -> None:
        self._of_socket(who, "shut", "shutdown", side)

    def leave(self, who: int) -> None:
        channel = self._with_peer(who)
        if channel is not None:
            self._peer(channel, "leave", channel.peer.close)

    def reset(self, who: int) -> None:
        linger = b"\1\0\0\0\0\0\0\0"
        self._of_socket(
            who, "linger", "setsockopt", socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self.leave(who)

    def _with_peer(self, who: int) -> Any:
        """The channel that is meant, or another one whose peer can do something."""
        channel = self.pick(who)
        if channel is not None and channel.peer is not None:
            return channel
        talking = [each for each in self.map.values() if each.peer is not None]
        return talking[who % len(talking)] if talking else None

    def _of_socket(self, who: int, verb: str, method: str, *args: Any) -> None:
        """Something that a socket can do, and a pipe cannot."""
        channel = self._with_peer(who)
        if channel is not None and isinstance(channel.peer, socket.socket):
            self._peer(channel, verb, getattr(channel.peer, method), *args)

    def _peer(
        self, channel: Any, verb: str, act: Callable[..., Any], *args: Any
    ) -> None:
        try:
            seen = act(*args)
        except OSError as error:
            seen = kind_of(error)
        self.log.append((f"peer of {channel.name}", verb, seen))
        self.settle()

    # Actions of the channel

    def push(self, who: int, data: bytes | int) -> None:
        channel = self.pick(who)
        if channel is not None:
            channel.push(self.bytes_of(data, end_of(channel)))

    def push_with_producer(self, who: int, parts: list[bytes | int]) -> None:
        channel = self._chat(who)
        if channel is not None:
            end = end_of(channel)
            more = [self.bytes_of(part, end) for part in parts]
            channel.push_with_producer(Producer(channel, more))

    def close_when_done(self, who: int) -> None:
        channel = self._chat(who)
        if channel is not None:
            channel.close_when_done()

    def discard_buffers(self, who: int) -> None:
        channel = self._chat(who)
        if channel is not None:
            channel.discard_buffers()

    def initiate_send(self, who: int) -> None:
        channel = self._chat(who)
        if channel is not None:
            channel.initiate_send()

    def set_terminator(self, who: int, terminator: Any) -> None:
        channel = self._chat(who)
        if channel is not None:
            channel.set_terminator(terminator)

    def set(self, who: int, quality: tuple[str, Any]) -> None:
        channel = self.pick(who)
        if channel is not None:
            setattr(channel, *quality)
            self._changed_by_hand()

    def override(self, who: int, name: str, answer: bool) -> None:
        channel = self.pick(who)
        if hasattr(channel, name):
            before = getattr(type(channel), name)
            setattr(channel, name, partial(own(name, answer, before), channel))
            self._changed_by_hand()

    def override_class(self, who: int, name: str, answer: bool) -> None:
        kind = type(self.pick(who))
        if kind in CLASSES.values() and hasattr(kind, name):
            method = own(name, answer, getattr(kind, name))
            self._classes.setattr(kind, name, method)

    def restore(self, who: int, name: str) -> None:
        channel = self.pick(who)
        if name in getattr(channel, "__dict__", ()):
            delattr(channel, name)

    def restore_class(self, who: int, name: str) -> None:
        kind = type(self.pick(who))
        if getattr(vars(kind).get(name), "__name__", "") == "method":
            self._classes.delattr(kind, name)

    def become(self, who: int, kind: str) -> None:
        channel = self.pick(who)
        if isinstance(channel, Announcing):
            channel.__class__ = BECOMES[kind]
            self._changed_by_hand()

    def _changed_by_hand(self) -> None:
        if len(self.map) > settled.FEW_CHANNELS:
            self.clock.jump()

    def close(self, who: int) -> None:
        channel = self.pick(who)
        if end_of(channel) is not None:
            channel.close()

    def shut_own(self, who: int, side: int) -> None:
        end = end_of(self.pick(who))
        if isinstance(end, socket.socket):
            end.shutdown(side)

    def raise_error(self, error: type[BaseException]) -> None:
        raise error("required by the script")

    def _chat(self, who: int) -> Any:
        channel = self.pick(who)
        return channel if isinstance(channel, asynchat.async_chat) else None

    # Reused descriptors

    def replace(self, who: int, kind: str, end: str) -> None:
        """Put another channel under the same descriptor."""
        self.close(who)
        self.open(kind, end)

    def reconnect(self, who: int, end: str) -> None:
        """Give the same channel another socket under the same descriptor."""
        channel = self.pick(who)
        if end_of(channel) is not None:
            channel.close()
            mine, peer = pair_of(end)
            channel.take(self.place(mine))
            channel.peer = self.keep(peer)

    def hold(self, who: int) -> None:
        """Hold a duplicate: closing the channel does not close the socket."""
        end = end_of(self.pick(who))
        if end is not None and end.fileno() >= 0:
            self._held.append(os.dup(end.fileno()))

    def close_behind(self, who: int) -> None:
        """Close the socket and not the channel."""
        end = end_of(self.pick(who))
        if end is not None:
            end.close()
            self.clock.jump()

    # Changes of the map by hand

    def usurp(self, who: int, kind: str) -> None:
        """Put another object under the descriptor, with the same socket."""
        before = self.pick(who)
        end = end_of(before)
        if end is None or end.fileno() < 0:
            return
        after = CLASSES[kind](self)
        after.take(end)
        after.peer = before.peer
        self.clock.jump()

    def take_out(self, who: int) -> None:
        channel = self.pick(who)
        for key in [key for key, each in self.map.items() if each is channel]:
            del self.map[key]
        self.clock.jump()

    def put_back(self, who: int) -> None:
        channel = self.pick(who)
        if end_of(channel) is not None:
            channel.add_channel()
            self.clock.jump()

    def put_twice(self, who: int) -> None:
        """Put the channel under a duplicate, too."""
        channel = self.pick(who)
        end = end_of(channel)
        if end is not None and end.fileno() >= 0:
            fd = fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_FD)
            self._held.append(fd)
            self.map[fd] = channel
            self.clock.jump()

    def put_under_socket(self, who: int) -> None:
        """Use the socket as the key: asyncore accepts a key with a fileno()."""
        channel = self.pick(who)
        end = end_of(channel)
        if end is not None:
            self.map[end] = channel
            self.clock.jump()

    def let_go(self) -> None:
        """Close the oldest duplicate."""
        if self._held:
            os.close(self._held.pop(0))
            self.clock.jump()

    # The loop

    def turn(self, count: int, afresh: bool) -> None:
        """Run the loop, even inside a handler. Afresh: with a map new to the loop."""
        turned: Any = self.map
        if afresh:
            turned = UserDict()
            turned.data = self.map
        self.loop(turned, count)


def end_of(channel: Any) -> Any:
    """Return the socket or the pipe of a channel; None if it has none, or is none."""
    if isinstance(channel, Bare):
        return channel.sock
    return getattr(channel, "socket", None)


def is_open(channel: Any) -> bool:
    """Return whether it still has a descriptor."""
    end = end_of(channel)
    return end is not None and end.fileno() >= 0


# ---------------------------------------------------------------------------
# The loops: asyncore's own, with our intended differences; and ours
# ---------------------------------------------------------------------------


class Loop:
    """A loop made of single turns.

    Attributes:
        poll: runs one turn of a map, without waiting.
    """

    def __init__(self, poll: Callable[[Any], object]) -> None:
        self.poll = poll

    def __call__(self, map: Any, count: int) -> None:
        """Run ``asyncore.loop`` with a count."""
        while map and count > 0:
            self.poll(map)
            count -= 1

    def run(self, world: World, between: Callable[[], object]) -> None:
        """Run ``asyncore.loop`` without a count, with an action between two turns."""
        while world.map:
            self.poll(world.map)
            between()


class OurLoop(Loop):
    """One of compat's loops."""

    def __init__(self, name: str, use_poll: bool = False) -> None:
        super().__init__(lambda map: self(map, 1))
        self._name = name
        self._use_poll = use_poll

    def __call__(self, map: Any, count: int) -> None:
        compat.loop(0.0, self._use_poll, map, count, loop=self._name)

    def run(self, world: World, between: Callable[[], object]) -> None:
        def again() -> None:
            nonlocal timer
            # A loop inside of a handler runs the timers of the map, too.
            if not world.called:
                between()
            timer = compat.call_later(0, again, map=world.map)

        timer = compat.call_later(0, again, map=world.map)
        try:
            compat.loop(0.0, self._use_poll, world.map, loop=self._name)
        finally:
            timer.cancel()


class PolledChannel:
    """A channel at the time of its readable() call, as asyncore.poll sees it."""

    def __init__(self, key: Any, channel: Any) -> None:
        self.key, self.channel = key, channel
        self._reads, self._writes = channel.readable(), channel.writable()
        self._socket = getattr(channel, "socket", None)
        self.accepting = bool(self._writes) and channel.accepting
        self.closed = False

    def readable(self) -> Any:
        return self._reads and not self.closed

    def writable(self) -> Any:
        return self._writes and not self.closed

    def find_out(self) -> None:
        """Find out whether it has interest in a closed descriptor."""
        if self._reads or self._writes:
            self.closed = is_closed(self.key)

    def is_still_in(self, map: Any) -> bool:
        return (
            map.get(self.key) is self.channel
            and getattr(self.channel, "socket", None) is self._socket
        )


class AsPromised:
    """A map that makes asyncore.poll behave as the selectors loop should."""

    def __init__(self, map: Any) -> None:
        self._map = map
        self._asked: dict[Any, PolledChannel] = {}

    def __len__(self) -> int:
        return len(self._map)

    def items(self) -> list[tuple[Any, PolledChannel]]:
        for key, channel in list(self._map.items()):
            self._asked[key] = PolledChannel(key, channel)
        for asked in self._asked.values():
            asked.find_out()
        return list(self._asked.items())

    def get(self, key: Any) -> Any:
        # Difference 1. asyncore.poll calls the current channel of a ready descriptor;
        # ours calls a channel only if it and its socket are still those it registered.
        asked = self._asked[key]
        return asked.channel if asked.is_still_in(self._map) else None

    def close_closed(self) -> None:
        # Difference 2. A socket that was closed behind the loop's back makes select()
        # raise EBADF out of the loop; ours calls handle_close at the end of the turn,
        # as poll2 does.
        for asked in self._asked.values():
            if asked.closed and asked.is_still_in(self._map):
                asyncore.readwrite(asked.channel, select.POLLNVAL)


def poll_as_promised(map: Any) -> None:
    """Run asyncore.poll with the two differences."""
    asked = AsPromised(map)
    asyncore.poll(0.0, asked)
    asked.close_closed()


class AskedByPoll2:
    """A channel in poll2's map that passes each call on to the real channel."""

    def __init__(self, key: Any, channel: Any) -> None:
        self._key, self.channel = key, channel
        self.readable = channel.readable

    def writable(self) -> Any:
        writes = self.channel.writable()
        self._socket = getattr(self.channel, "socket", None)
        return writes

    @property
    def accepting(self) -> Any:
        return self.channel.accepting

    def is_still_in(self, map: Any) -> bool:
        return (
            map.get(self._key) is self.channel
            and getattr(self.channel, "socket", None) is self._socket
        )


class AsPromisedOfPoll2:
    """A map that makes asyncore.poll2 behave as the selectors loop should."""

    def __init__(self, map: Any) -> None:
        self._map = map
        self._asked: dict[Any, AskedByPoll2] = {}

    def __len__(self) -> int:
        return len(self._map)

    def items(self) -> list[tuple[Any, AskedByPoll2]]:
        self._asked = {key: AskedByPoll2(key, it) for key, it in self._map.items()}
        return list(self._asked.items())

    def get(self, key: Any) -> Any:
        # Difference 1, as in AsPromised. There is no other.
        asked = self._asked.get(key)
        return asked.channel if asked and asked.is_still_in(self._map) else None


def is_closed(key: Any) -> bool:
    """Return whether this number, or this object's number, is a closed descriptor."""
    fd = key if isinstance(key, int) else getattr(key, "fileno", lambda: -1)()
    if fd < 0:
        # select() raises an error, and so does ours.
        return False
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


# ---------------------------------------------------------------------------
# Playing
# ---------------------------------------------------------------------------


def play_by_turns(world: World, script: list[Step]) -> None:
    """Perform one step, run a loop with a count, perform the next step."""
    for step in script:
        world.happen_now_or_later(step)
        if step.turns:
            with world.noting("loop"):
                world.loop(world.map, step.turns)
        world.note_turn()


def play_running(world: World, script: list[Step]) -> None:
    """Run one loop without a count, and perform the steps between its turns."""
    steps = iter(script)
    turns = 0

    def between() -> None:
        nonlocal turns
        world.note_turn()
        while turns <= 0:
            step = next(steps, None)
            if step is None:
                raise TheEnd
            world.happen_now_or_later(step)
            turns = step.turns
        turns -= 1

    try:
        while True:
            # A loop ends when its map is empty; then the story goes on without it.
            between()
            with world.noting("loop"):
                world.loop.run(world, between)
    except TheEnd:
        return


class TheEnd(asyncore.ExitNow):
    """The script has ended."""


PLAYS = {"by turns": play_by_turns, "running": play_running}


def compare(
    script: list[Step], reference: Loop, loop: Loop, play: Callable[..., None]
) -> None:
    """Play a script twice.

    Raises:
        DifferenceError: its cause is the last exception that left the loop, if any.
    """
    expected, _ = _seen(script, reference, play)
    found, error = _seen(script, loop, play)
    if found != expected:
        raise DifferenceError(_difference(expected, found)) from error


def _seen(
    script: list[Step], loop: Loop, play: Callable[..., None]
) -> tuple[list[Entry], BaseException | None]:
    with pytest.MonkeyPatch.context() as patched:
        clock = Clock()
        patched.setattr(time, "monotonic", clock)
        with World(loop, clock) as world:
            play(world, script)
            world.receive_all()
        return world.log, world.error


def _difference(expected: list[Entry], found: list[Entry]) -> str:
    same = 0
    for here, there in zip(expected, found, strict=False):
        if here != there:
            break
        same += 1
    lines = ["both  " + _line(each) for each in expected[max(0, same - 12) : same]]
    lines += ["asyncore  " + _line(each) for each in expected[same : same + 5]]
    lines += ["ours      " + _line(each) for each in found[same : same + 5]]
    return "\n".join(("the calls differ:", *lines))


def _line(entry: Entry) -> str:
    line = " ".join(map(repr, entry))
    return line if len(line) < 200 else f"{line[:160]} ... {line[-30:]}"


# ---------------------------------------------------------------------------
# The tests
# ---------------------------------------------------------------------------

# Each of our loops, and the reference that it must agree with.
POLL2 = Loop(lambda map: asyncore.poll2(0.0, map))
POLL2_AS_PROMISED = Loop(lambda map: asyncore.poll2(0.0, AsPromisedOfPoll2(map)))
PAIRS = {
    "select": (Loop(lambda map: asyncore.poll(0.0, map)), OurLoop("select")),
    "poll": (POLL2, OurLoop("poll")),
    "selectors": (Loop(poll_as_promised), OurLoop("selectors")),
    "select as poll2": (POLL2, OurLoop("select", use_poll=True)),
    "selectors as poll2": (POLL2_AS_PROMISED, OurLoop("selectors", use_poll=True)),
}


def played(examples: int, **options: Any) -> settings:
    """Set the number of scripts; nothing depends on the time or on an earlier run."""
    return settings(
        max_examples=examples,
        database=None,
        derandomize=VARIABLE not in os.environ,
        suppress_health_check=list(HealthCheck),
        **options,
    )


@pytest.mark.timeout(0 if VARIABLE in os.environ else 120)
@pytest.mark.parametrize("play", PLAYS)
@pytest.mark.parametrize("loop", PAIRS)
def test_the_same_calls_in_the_same_order_with_the_same_data(
    loop: str, play: str
) -> None:
    @played(EXAMPLES)
    @given(scripts())
    def holds(script: list[Step]) -> None:
        compare(script, *PAIRS[loop], PLAYS[play])

    holds()


@pytest.mark.timeout(0 if VARIABLE in os.environ else 120)
@pytest.mark.parametrize("play", PLAYS)
@pytest.mark.parametrize("loop", ["selectors", "selectors as poll2"])
def test_override_takes_effect_at_the_next_event(loop: str, play: str) -> None:
    @played(EXAMPLES)
    @given(overriding_scripts())
    def holds(script: list[Step]) -> None:
        compare(script, *PAIRS[loop], PLAYS[play])

    holds()


@pytest.mark.timeout(0 if VARIABLE in os.environ else 120)
@pytest.mark.parametrize("loop", ["selectors", "selectors as poll2"])
def test_frame_loop_without_a_look_at_settled_channels_agrees(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with very many channels, of which nothing changes without a report."""
    for module in (registrations, settled):
        monkeypatch.setattr(module, "FEW_CHANNELS", 0)

    @played(EXAMPLES)
    @given(scripts(without=frozenset(CHANGES)))
    def holds(script: list[Step]) -> None:
        compare(script, *PAIRS[loop], PLAYS["by turns"])

    holds()


def test_a_naive_epoll_is_found_out() -> None:
    """The scripts distinguish a wrong loop from a right one."""

    @played(EXAMPLES, phases=[Phase.generate])
    @given(scripts())
    def holds(script: list[Step]) -> None:
        naive = NaiveLoop()
        try:
            loop = Loop(lambda map: naive.turn(0.0, map))
            compare(script, PAIRS["selectors"][0], loop, PLAYS["by turns"])
        finally:
            naive.close()

    with pytest.raises(DifferenceError):
        holds()


def test_poll2_reference_rejects_a_loop_that_answers_as_poll() -> None:
    @played(EXAMPLES, phases=[Phase.generate])
    @given(scripts())
    def holds(script: list[Step]) -> None:
        compare(script, POLL2_AS_PROMISED, OurLoop("selectors"), PLAYS["by turns"])

    with pytest.raises(DifferenceError):
        holds()
