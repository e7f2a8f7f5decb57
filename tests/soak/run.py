"""Two real servers, one with TLS, and all that happens to them.

Most clients are well-behaved: they came before the first word, stay, and are compared
with the transcript of their room; see tests.soak.model. Some of these speak, the others
listen, and now and then one of those dozes. Guests come and go, each with a fault.

Rule 1: one thread, which must not cost more than the servers. Speakers and observers
are polled; listeners are read one after the other, each about once a second, while
what they get lies in the kernel.
Rule 2: no speaker says a thing before the room has heard its last one, so that each
message is one read of the server's.
Rule 3: faults are drawn from one generator of random numbers, with a seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import ssl
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests import secure
from tests.soak.model import STX, Hearer, Tally, Transcript
from tests.support import DEADLINE, Process, descriptors, room

__all__ = ["Outcome", "Plan", "soak"]

READ_SIZE = 1 << 18

# Of each room: those who speak; and, at a time, guests and those who do not read.
SPEAKERS = 20
GUESTS = 16
SLOW = 8

# Seconds in which each listener is read once, and in which a dozing one is not.
SWEEP = 1.0
DOZE = 8.0

# Seconds between looks at the counters, and after which what is missing is lost.
LOOK = 5.0
PATIENCE = 60.0

# The longest noise in bytes.
NOISE = 16384

# A reset in place of a FIN.
LINGER = b"\1\0\0\0\0\0\0\0"


class Plan(NamedTuple):
    """What shall be done.

    Attributes:
        loop: of the servers.
        clients: well-behaved ones, half of them with TLS.
        seconds: for so long at most.
        messages: so many at most, from all speakers.
        rate: messages a second; and half as many faults.
        seed: of the faults.
        send_queue: bytes that may wait for a client, or it is closed.
    """

    loop: str
    clients: int
    seconds: float
    messages: float
    rate: float
    seed: int
    send_queue: int = 1 << 17


class Outcome(NamedTuple):
    """What has happened in one room.

    Attributes:
        name: "plain" or "TLS".
        sent, delivered: messages of the speakers, and how often one has come.
        tally: what was not as it must be, of all well-behaved clients.
        faults: how many, by kind.
        closed: clients, by the server's reason.
        descriptors: of the server: before anybody came, when all were in, when only
            they were in again, and when all had gone.
        memory: bytes of it, when all were in, and when only they were in again.
        longest_turn: seconds.
        trouble: what must not be, in words.
    """

    name: str
    sent: int
    delivered: int
    tally: Tally
    faults: Counter[str]
    closed: dict[str, int]
    descriptors: tuple[int, int, int, int]
    memory: tuple[int, int]
    longest_turn: float
    trouble: list[str]


class Client:
    """A well-behaved one.

    Attributes:
        hearer: its model; None for the observer, who makes the transcript.
        dozes_until: a time of the monotonic clock, before which it is not read.
        ended: its connection has, which must not be.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.hearer: Hearer | None = None
        self.dozes_until = 0.0
        self.ended = False

    def read(self) -> bytes:
        """What is there."""
        parts = []
        try:
            while not self.ended:
                data = self.sock.recv(READ_SIZE)
                parts.append(data)
                self.ended = not data
        except (BlockingIOError, ssl.SSLWantReadError):
            pass  # that was all
        except OSError:
            self.ended = True
        return b"".join(parts)


class Room:
    """One server, and everybody in it."""

    def __init__(
        self, server: Process, address: tuple[str, int], tls: bool, plan: Plan
    ) -> None:
        self.server, self.address, self.tls = server, address, tls
        self.faults: Counter[str] = Counter()
        self.guests: deque[socket.socket] = deque()
        self.slow: deque[socket.socket] = deque()
        self.trouble: list[str] = []
        self.counters: dict[str, float] = {}
        self._seen = 0
        self._swept = 0.0
        self._next_listener = 0
        self._visit()
        self.before = self._descriptors()
        self._enter(plan.clients // 2)
        self.full = self._descriptors(), self._memory()

    def connect(self, handshake: bool = True, narrow: bool = False) -> socket.socket:
        """Come in. *narrow*: hardly anything can lie in the kernel."""
        sock = socket.socket()
        sock.settimeout(DEADLINE)
        if narrow:
            # With the loopback's long segments, a server's buffer is megabytes at once.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(self.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls and handshake:
            context = secure.client_context()
            return context.wrap_socket(sock, server_hostname="localhost")
        return sock

    def look(self) -> dict[str, float]:
        """Ask the server for its counters, and wait for them."""
        seen = len(self.server.err)
        os.kill(self.server.pid, signal.SIGUSR1)
        found = self.server.wait_for('"event": "counters"', err=True, since=seen)
        self.counters = dict(json.loads(found.string))
        # Who was too slow has been closed, the oldest first.
        while self.slow and self._closed_slow() > self.faults["slow"] - len(self.slow):
            self.slow.popleft().close()
        return self.counters

    def speak(self) -> bool:
        """Let the next one speak, if the room has heard it."""
        said, come = self.transcript.said, self.transcript.come
        speaker = sum(said) % len(said)
        if come[speaker] < said[speaker]:
            return False
        data = self.transcript.say(speaker)
        sock = self.speakers[speaker].sock
        if sock.send(data) != len(data):
            raise AssertionError(f"speaker {speaker} could not send {len(data)} bytes")
        return True

    def listen(self, timeout: float) -> None:
        """Read the observer and the speakers; listeners as it is their time."""
        self.epoll.poll(timeout)
        self._read(self.observer)
        for client in self.speakers:
            self._read(client)
        now = time.monotonic()
        share = min(1.0, (now - self._swept) / SWEEP)
        self._swept = now
        for _ in range(1 + int(share * len(self.listeners))):
            client = self.listeners[self._next_listener]
            self._next_listener = (self._next_listener + 1) % len(self.listeners)
            if now >= client.dozes_until:
                self._read(client)
        if self._next_listener < share * len(self.listeners):
            self.transcript.forget_until(
                min(each.offset for each in self.hearers if not each.wrong)
            )

    def finish(self) -> None:
        """Send the guests away, and wait until everybody has heard all."""
        for sock in (*self.guests, *self.slow):
            sock.close()
        self.guests.clear()
        self.slow.clear()
        for client in self.listeners:
            client.dozes_until = 0.0
        end = time.monotonic() + PATIENCE
        while not self._is_quiet() and time.monotonic() < end:
            self.listen(0.01)
        staying = 1 + len(self.hearers)
        connections = self.look()["connections"]
        if connections != staying:
            self.trouble.append(
                f"{connections:g} connections, where there are {staying}"
            )

    def outcome(self) -> Outcome:
        """Let everybody go, and reckon."""
        again = self._descriptors(), self._memory()
        if sum(each.ended for each in self._clients):
            self.trouble.append("the server has closed well-behaved clients")
        self.trouble += [each.wrong for each in self.hearers if each.wrong][:3]
        for client in self._clients:
            client.sock.close()
        self._until(lambda: self.look()["connections"] == 0)
        after = self._descriptors()
        if after > self.before:
            self.trouble.append(f"{self.before} descriptors have become {after}")
        if self.server.popen.poll() is not None:
            self.trouble.append("the server has died")
        if "Traceback" in (told := "\n".join(self.server.err)):
            self.trouble.append(told[told.index("Traceback") :][:2000])
        delivered, tallies = self._reckon()
        if any(tallies):
            self.trouble.append(f"messages are not as they must be: {tallies}")
        return Outcome(
            "TLS" if self.tls else "plain",
            sum(self.transcript.said),
            delivered,
            tallies,
            self.faults,
            {
                name.removeprefix("closed_"): int(count)
                for name, count in self.counters.items()
                if name.startswith("closed_")
            },
            (self.before, self.full[0], again[0], after),
            (self.full[1], again[1]),
            self.counters["longest_turn"],
            self.trouble,
        )

    def _visit(self) -> None:
        """What a server opens for its first client, it has opened after that."""
        self.connect().close()
        self._until(lambda: self.look()["closed_eof"] + self.look()["closed_reset"])

    def _enter(self, count: int) -> None:
        self._clients = [Client(self.connect()) for _ in range(count)]
        self._until(lambda: self.look()["clients"] == count)
        self.observer, *others = self._clients
        speakers = min(SPEAKERS, count // 4)
        self.speakers, self.listeners = others[:speakers], others[speakers:]
        names = ("{}{}".format(*each.sock.getsockname()) for each in self.speakers)
        self.transcript = Transcript([f"用户{name} 说:".encode() for name in names])
        for number, client in enumerate(self.speakers):
            client.hearer = Hearer(self.transcript, number)
        for client in self.listeners:
            client.hearer = Hearer(self.transcript)
        self.hearers = [each.hearer for each in others if each.hearer]
        self.epoll = select.epoll()
        for client in (self.observer, *self.speakers):
            self.epoll.register(client.sock, select.EPOLLIN)

    def _read(self, client: Client) -> None:
        data = client.read()
        if client.hearer is None:
            self.transcript.add(data)
        elif data:
            client.hearer.add(data)
        else:
            client.hearer.compare()

    def _is_quiet(self) -> bool:
        transcript = self.transcript
        staying = 1 + len(self.hearers)
        return (
            len(transcript.tokens) >= sum(transcript.said)
            and all(
                each.wrong or each.offset >= transcript.settled for each in self.hearers
            )
            and self.look()["connections"] == staying
        )

    def _reckon(self) -> tuple[int, Tally]:
        delivered = len(self.transcript.tokens)
        totals = list(self.transcript.tally())
        # What has not come to the observer has come to nobody.
        totals[0] *= 1 + len(self.hearers)
        for hearer in self.hearers:
            count, wrong = hearer.tally()
            delivered += count
            totals = [a + b for a, b in zip(totals, wrong, strict=True)]
        return delivered, Tally(*totals)

    def _closed_slow(self) -> float:
        return self.counters["closed_slow"]

    def _until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"not in {PATIENCE:g} s: {self.counters}")

    def _descriptors(self) -> int:
        return descriptors(self.server.pid)

    def _memory(self) -> int:
        pages = Path(f"/proc/{self.server.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def noise(dice: random.Random) -> bytes:
    """Bytes without a meaning: no UTF-8, mostly, and no beginning of a message."""
    size = int(NOISE ** dice.random())
    return dice.randbytes(size).replace(STX, b"?")


def garbage(room: Room, dice: random.Random) -> None:
    sock = room.connect()
    sock.sendall(noise(dice))
    room.guests.append(sock)


def terminated(room: Room, dice: random.Random) -> None:
    sock = room.connect()
    sock.sendall(noise(dice) + b"out" + noise(dice))
    room.guests.append(sock)


def resetting(room: Room, dice: random.Random) -> None:
    sock = room.connect()
    sock.sendall(b"a word, and a reset")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    sock.close()


def vanishing(room: Room, dice: random.Random) -> None:
    sock = room.connect()
    sock.sendall("in the middle of 聊天".encode()[:-1])
    sock.close()


def half_closing(room: Room, dice: random.Random) -> None:
    sock = room.connect()
    sock.sendall(b"that was all, but I listen")
    sock.shutdown(socket.SHUT_WR)
    room.guests.append(sock)


def no_handshake(room: Room, dice: random.Random) -> None:
    """Noise, and with TLS in place of a handshake."""
    sock = room.connect(handshake=False)
    sock.sendall(noise(dice))
    room.guests.append(sock)


def slow(room: Room, dice: random.Random) -> None:
    if len(room.slow) < SLOW:
        room.slow.append(room.connect(narrow=True))
        room.faults["slow"] += 1


def dozing(room: Room, dice: random.Random) -> None:
    client = dice.choice(room.listeners)
    client.dozes_until = time.monotonic() + DOZE


FAULTS = (
    garbage,
    terminated,
    resetting,
    vanishing,
    half_closing,
    no_handshake,
    slow,
    dozing,
)


def soak(plan: Plan) -> list[Outcome]:
    """Do it, in both rooms at once.

    Raises:
        AssertionError: it could not be done to the end.
    """
    dice = random.Random(plan.seed)
    with contextlib.ExitStack() as stack:
        rooms = [stack.enter_context(_room(tls, plan)) for tls in (False, True)]
        _talk(rooms, plan, dice)
        for each in rooms:
            each.finish()
        return [each.outcome() for each in rooms]


@contextlib.contextmanager
def _room(tls: bool, plan: Plan) -> Iterator[Room]:
    options = ["--log-format", "json", "--backlog", "4096"]
    options += ["--send-queue", str(plan.send_queue)]
    with tempfile.TemporaryDirectory() as folder:
        if tls:
            files = secure.write_files(Path(folder))
            options += ["--tls-cert", files["cert"], "--tls-key", files["key"]]
        with room(plan.loop, *options) as (server, address):
            yield Room(server, address, tls, plan)


def _talk(rooms: list[Room], plan: Plan, dice: random.Random) -> None:
    """Messages at their rate, a fault after each second one."""
    began = looked = now = time.monotonic()
    said = faults = 0
    while said < plan.messages and now < began + plan.seconds:
        if said <= plan.rate * (now - began):
            said += rooms[said % len(rooms)].speak()
        if faults < said // 2:
            _misbehave(rooms[faults % len(rooms)], dice, faults)
            faults += 1
        for each in rooms:
            each.listen(0.005)
        now = time.monotonic()
        if now > looked + LOOK:
            looked = now
            for each in rooms:
                each.look()


def _misbehave(room: Room, dice: random.Random, number: int) -> None:
    """The next fault, each in its turn; and the oldest guest goes."""
    fault = FAULTS[number // 2 % len(FAULTS)]
    fault(room, dice)
    if fault is not slow:
        room.faults[fault.__name__] += 1
    if len(room.guests) > GUESTS:
        room.guests.popleft().close()
