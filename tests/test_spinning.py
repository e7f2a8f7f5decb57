"""No peer keeps one of our channels busy, with any bytes and flags.

Rule 1: every channel class of both packages is covered; a new class fails the first
test.
Rule 2: dispatches and turns are counted, never time. An idle loop dispatches nothing,
and its turn waits.
"""

from __future__ import annotations

import asyncore
import contextlib
import functools
import importlib
import inspect
import os
import pkgutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import pytest

import compat
import legacy_chat
from compat.tls import TLS, Handshake, TLSSocket
from compat.tls.lingering import LingeringClose
from legacy_chat import ChatServer
from legacy_chat.conversation import Conversation
from legacy_chat.lessons import coalesced_writes, split_character
from legacy_chat.lessons.out_of_descriptors import Plain
from legacy_chat.listener import _ExtraListener
from legacy_chat.metrics import MetricsServer
from legacy_chat.secure_conversation import SecureConversation
from tests.secure import SecurePeer, client_context, server_context, until
from tests.support import reset_on_close, turn_once

# A listening channel in a map, and its address.
Served = Callable[[compat.Map], Any]

# A step of an attack.
Act = Callable[["Attacker"], None]

# Far more turns than are needed to dispatch all data that has arrived.
ENOUGH = 30

# Turns of a loop that waits for a timer; a turn may also end for another reason.
FEW = 5

LOCAL = {"host": "127.0.0.1", "port": 0}


class Door(asyncore.dispatcher):
    """A listener that makes a channel of each connection."""

    def __init__(self, map: compat.Map, make: Callable[..., object]) -> None:
        super().__init__(map=map)
        self._make = make
        self.create_socket()
        self.bind(("127.0.0.1", 0))
        self.listen(100)

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        self._make(sock, self._map)


class Session(TLS, compat.async_chat):
    def __init__(self, sock: socket.socket, map: compat.Map) -> None:
        super().__init__(sock, map)
        self.set_terminator(None)
        self.start_tls(server_context(), server_side=True)

    def collect_incoming_data(self, data: bytes) -> None:
        """Discard the data."""


def each(make: Callable[..., object]) -> Served:
    return lambda map: Door(map, make)


def room(**options: Any) -> Served:
    return lambda map: ChatServer(**LOCAL, map=map, **options)


def another_door(map: compat.Map) -> _ExtraListener:
    door = _ExtraListener(ChatServer(**LOCAL, map=map), map)
    door.create_socket(socket.AF_INET, socket.SOCK_STREAM)
    door.bind(("127.0.0.1", 0))
    door.listen(100)
    return door


@functools.cache
def screen() -> TextIO:
    """Return a stream that is never full and never fails."""
    return open(os.devnull, "w", encoding="utf8")


SUBJECTS: dict[str, Served] = {
    "compat.tls.handshake.Handshake": each(
        lambda sock, map: Handshake(
            TLSSocket(sock, server_context(), server_side=True), map
        )
    ),
    "compat.tls.mixin.TLS": each(Session),
    "compat.tls.mixin.Upgrade": each(
        lambda sock, map: Session(sock, map).push(b"after the handshake")
    ),
    "compat.tls.lingering.LingeringClose": each(
        lambda sock, map: LingeringClose(sock, b"goodbye", map)
    ),
    "legacy_chat.listener.Listener": room(),
    "legacy_chat.listener._ExtraListener": another_door,
    "legacy_chat.lessons.out_of_descriptors.Plain": Plain,
    "legacy_chat.metrics.MetricsServer": lambda map: MetricsServer(
        "127.0.0.1", 0, list, map
    ),
    "legacy_chat.metrics.Scrape": lambda map: MetricsServer("127.0.0.1", 0, list, map),
    "legacy_chat.server.ChatServer": room(max_clients=3),
    "legacy_chat.session.ChatSession": room(),
    "legacy_chat.conversation.Conversation": each(
        lambda sock, map: Conversation(sock, screen(), map)
    ),
    "legacy_chat.secure_conversation.SecureConversation": each(
        lambda sock, map: SecureConversation(sock, screen(), map).start_tls(
            client_context(), server_hostname="localhost"
        )
    ),
    "legacy_chat.handshakes._ServerHandshake": room(tls=server_context()),
    **{
        f"{kind.__module__}.{kind.__qualname__}": room(session_class=kind)
        for kind in (
            coalesced_writes.EagerGuest,
            coalesced_writes.EagerImpatient,
            coalesced_writes.EagerWaiter,
            coalesced_writes.Guest,
            coalesced_writes.Impatient,
            coalesced_writes.Polite,
            coalesced_writes.Waiter,
            split_character.Hasty,
        )
    },
}

# Subjects whose peers can perform a TLS handshake, and the peer's side in it.
SECURED = {
    "compat.tls.mixin.TLS": (client_context, False),
    "legacy_chat.handshakes._ServerHandshake": (client_context, False),
    "legacy_chat.secure_conversation.SecureConversation": (server_context, True),
}

# Classes that no peer can reach, or that must behave as asyncore's.
ELSEWHERE = {
    "compat._reader.LinearReader": "the reading half of compat.async_chat",
    "compat._types.Channel": "a protocol",
    "compat.async_chat.async_chat": "the original's handle_expt, whose loop spins too",
    "legacy_chat.lessons.always_writable.Calm": "the lesson has the other end",
    "legacy_chat.lessons.always_writable.Echo": "the lesson has the other end",
    "legacy_chat.lessons.always_writable.Mute": "the lesson has the other end",
    "legacy_chat.lessons.descriptor_reuse.Greedy": "the lesson has the other end",
    "legacy_chat.lessons.descriptor_reuse.Listening": "the lesson has the other end",
    "legacy_chat.lessons.descriptor_reuse.Neighbour": "the lesson has the other end",
    "legacy_chat.lessons.descriptor_reuse.Newcomer": "the lesson has the other end",
}


class Attacker:
    """A peer that sends unexpected data and flags to a channel."""

    def __init__(self, address: Any) -> None:
        self.sock = socket.create_connection(address)
        self.secure: SecurePeer | None = None

    def act(self, attack: Sequence[Act], between: Callable[[], object] = int) -> None:
        """Perform the steps until the connection ends."""
        for step in attack:
            with contextlib.suppress(OSError):
                step(self)
            between()

    def data(self) -> None:
        """Send the beginning of a message, a request or a TLS record."""
        self.sock.send(b"\x16\x03\x01")

    def urgent(self) -> None:
        self.sock.send(b"!", socket.MSG_OOB)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        reset_on_close(self.sock)
        self.close()

    def close(self) -> None:
        self.sock.close()
        if self.secure is not None:
            self.secure.close()

    def begin_tls(self, context: Any, server_side: bool) -> SecurePeer:
        self.secure = SecurePeer(self.sock.dup(), context, server_side=server_side)
        return self.secure


A = Attacker
ATTACKS: Sequence[Sequence[Act]] = (
    (A.urgent,),
    (A.urgent, A.urgent, A.urgent),
    (A.data, A.urgent),
    (A.urgent, A.data),
    (A.data, A.urgent, A.end),
    (A.urgent, A.end),
    (A.end,),
    (A.data, A.end),
    (A.urgent, A.reset),
    (A.data, A.reset),
    (A.end, A.reset),
    (A.reset,),
    (A.close,),
)


class Dispatches:
    """Count the dispatches of a loop in a map."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[str] = []
        for name in ("read", "write", "_exception", "readwrite"):
            monkeypatch.setattr(asyncore, name, self._counting(getattr(asyncore, name)))

    def _counting(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(channel: Any, *flags: int) -> object:
            self.of.append(f"{function.__name__} {channel!r}")
            return function(channel, *flags)

        return call

    def end(self, loop: str, map: compat.Map) -> None:
        """Run the loop until a turn dispatches nothing."""
        for _ in range(ENOUGH):
            self.of.clear()
            turn_once(loop, map, timeout=0)
            if not self.of:
                return
        raise AssertionError(f"{loop} still dispatches {self.of}")


@contextmanager
def attackers(name: str) -> Iterator[tuple[compat.Map, Callable[[], Attacker]]]:
    """Put a subject into a map; yield a function that connects attackers."""
    map: compat.Map = {}
    server = SUBJECTS[name](map)
    made = []

    def connect() -> Attacker:
        made.append(Attacker(server.socket.getsockname()))
        return made[-1]

    yield map, connect
    for attacker in made:
        attacker.close()
    asyncore.close_all(map, ignore_all=True)


def classes() -> dict[str, type]:
    """Return every class of both packages that a loop can dispatch to."""
    found = {}
    for package in (compat, legacy_chat):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            for _, kind in inspect.getmembers(
                importlib.import_module(module.name), inspect.isclass
            ):
                if kind.__module__.partition(".")[0] == package.__name__ and hasattr(
                    kind, "handle_expt_event"
                ):
                    found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return found


def test_every_channel_class_is_attacked_or_unreachable() -> None:
    assert set(classes()) == {*SUBJECTS, *ELSEWHERE}


@pytest.mark.parametrize("name", SUBJECTS)
def test_attacked_channel_is_dispatched_a_few_times(
    any_loop: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatches = Dispatches(monkeypatch)
    with attackers(name) as (map, connect):
        for attack in ATTACKS:
            # One turn before the connection is accepted, one after.
            early, late = connect(), connect()
            early.act(attack)
            dispatches.end(any_loop, map)
            late.act(attack, lambda: dispatches.end(any_loop, map))


@pytest.mark.parametrize("name", SECURED)
def test_attacked_tls_channel_is_dispatched_a_few_times(
    any_loop: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatches = Dispatches(monkeypatch)
    context, server_side = SECURED[name]
    with attackers(name) as (map, connect):
        for attack in ATTACKS:
            attacker = connect()
            peer = attacker.begin_tls(context(), server_side)
            until(any_loop, lambda peer=peer: peer.secured, peer, map=map)
            dispatches.end(any_loop, map)
            attacker.act(attack, lambda: dispatches.end(any_loop, map))


@pytest.mark.parametrize("name", SUBJECTS)
def test_attacked_loop_waits_for_its_timer(loop: str, name: str) -> None:
    with attackers(name) as (map, connect):
        for attack in ATTACKS:
            attacker = connect()
            turn_once(loop, map, timeout=0)
            attacker.act(attack)
        for _ in range(ENOUGH):
            turn_once(loop, map, timeout=0)
        turns: list[float] = []

        def stop() -> None:
            raise asyncore.ExitNow

        compat.call_later(0.01, stop, map=map)
        with compat.on_turn(turns.append, map=map), pytest.raises(asyncore.ExitNow):
            compat.loop(map=map, loop=loop)
        assert len(turns) < FEW


@pytest.mark.parametrize("name", SUBJECTS)
def test_attacked_channel_logs_no_traceback(
    any_loop: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with attackers(name) as (map, connect):
        for attack in ATTACKS:
            attacker = connect()
            turn_once(any_loop, map, timeout=0)
            attacker.act(attack, lambda: turn_once(any_loop, map, timeout=0))
        assert [record for record in caplog.records if record.exc_info] == []
        assert "uncaptured" not in "".join(capsys.readouterr())
