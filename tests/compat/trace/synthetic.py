"""Traces without a loop: the lines that a recorder would have written.

Rule 1: the same calls make the same lines; the clock here moves only on request.
Rule 2: the lines keep compat.trace's promises: a call is written when it ends, after
the events inside it, and code before the first call of it.
Rule 3: Room plays the tutorial's chat room, and reads as asynchat does: a possible
beginning of the terminator is held back.

    >>> room = Room()
    >>> anna, bert = room.enter(), room.enter()
    >>> room.send(anna, b"hello")
    >>> turns, reader = room.trace.read()
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compat.trace.model import Turn
from compat.trace.reader import Reader, read_lines

__all__ = ["Room", "Trace", "hello", "large"]

TERMINATOR = b"out"

ACCEPTED = """\
def handle_accepted(self, sock, addr):
    if self.handshakes is not None:
        self.handshakes.start(sock, addr)
    else:
        self.admit(sock, addr)
"""

COLLECT = """\
def collect_incoming_data(self, data):
    if not data:
        return
    # The echo, then the other clients.
    self.push(data)
    self.broadcasting(data)
"""

FOUND = """\
def found_terminator(self):
    self.close_when_done()
    self.clients.remove(self)
    self.broadcasting(f"{self.user}退出聊天".encode())
"""

ERROR = """\
def handle_error(self):
    logger.exception("%s: closing after an error", self.user)
    self.close()
"""


class Trace:
    """The lines of a trace, in the order in which they were written.

    Attributes:
        lines: without their newlines; the header is the first.
        now: microseconds since the trace began.
        thread: the thread that writes.
    """

    def __init__(self, payload: int | None = 64, **header: Any) -> None:
        self.payload = payload
        self.now = 0
        self.thread = 1
        self._depth = 0
        self._changed: dict[int, dict[str, Any]] = {}
        self._channels = 0
        self._code = 0
        self._turns: dict[int, int] = {}
        usual = {
            "program": "room.py 19528",
            "python": "CPython 3.13.0",
            "asyncore": "pyasyncore 1.0.5",
            "payload": payload,
            "max": 1 << 26,
            "began": "2026-11-24T08:00:00Z",
        }
        self.lines: list[str] = []
        self._write({"format": "compat-trace", "version": 1, **usual, **header})

    def advance(self, microseconds: int) -> None:
        """Advance the clock."""
        self.now += microseconds

    def event(self, what: str, at: int | None = None, **fields: Any) -> None:
        """Write any event, at the depth of the calls that are open."""
        line: dict[str, Any] = {"e": what, "t": self.now if at is None else at}
        if self._depth:
            line["d"] = self._depth
        if self.thread > 1:
            line["th"] = self.thread
        self._write(line | fields)

    def open(self, kind: str, fd: int, module: str = "room") -> int:
        """Add a channel to its map; return its number."""
        self._channels += 1
        number = self._channels
        self.event("open", ch=number, fd=fd, **{"class": kind}, module=module)
        return number

    def state(self, channel: int, **changes: Any) -> None:
        """Write changes of a channel; ``status`` for the format's ``is``.

        In a call, they are written after the outermost call, as the recorder does.
        """
        if "status" in changes:
            changes["is"] = changes.pop("status")
        if isinstance(changes.get("terminator"), bytes):
            changes["terminator"] = text(changes["terminator"])
        if self._depth:
            self._changed.setdefault(channel, {}).update(changes)
        else:
            self.event("state", ch=channel, **changes)

    def code(
        self, source: str, kind: str | None = None, file: str = "room.py", line: int = 1
    ) -> int:
        """Write a function's source; return its number."""
        self._code += 1
        lines = source.splitlines()
        names = [each for each in lines if each.lstrip().startswith("def ")]
        do = names[0].split("(")[0].removeprefix("def ").strip()
        where = {"file": file, "line": line, "source": lines[:40]}
        self.event("code", f=self._code, do=do, **{"class": kind}, **where)
        return self._code

    def turn(
        self,
        *,
        read: Collection[int] = (),
        write: Collection[int] = (),
        urgent: Collection[int] = (),
        wants: dict[int, tuple[bool, bool]] | None = None,
        why: str = "ready",
        waited: int = 250,
        timeout: float | None = 30.0,
        channels: int = 0,
        asked: int = 8,
        by: str = "selectors",
    ) -> None:
        """Write a turn: interest and wait; *wants* are the changed interests."""
        self.begin_turn(wants, timeout, channels, asked, by)
        self.advance(waited)
        ready = {"read": read, "write": write, "urgent": urgent}
        found = {name: list(who) for name, who in ready.items() if who}
        self.event("woke", why=why, waited=waited, **found)

    def begin_turn(
        self,
        wants: dict[int, tuple[bool, bool]] | None = None,
        timeout: float | None = 30.0,
        channels: int = 0,
        asked: int = 8,
        by: str = "selectors",
    ) -> None:
        """Write a turn whose wait has not ended."""
        for channel, (r, w) in (wants or {}).items():
            self.event("interest", ch=channel, r=r, w=w)
        self.advance(asked)
        number = self._turns[self.thread] = self._turns.get(self.thread, 0) + 1
        figures = {"timeout": timeout, "channels": channels, "asked": asked}
        self.event("turn", n=number, by=by, **figures)

    @contextmanager
    def call(
        self,
        do: str,
        channel: int | None = None,
        *,
        us: int = 6,
        data: bytes | None = None,
        given: bool = False,
        **fields: Any,
    ) -> Iterator[None]:
        """Write a call with the events of the body inside.

        Args:
            us: microseconds, without those of the calls inside.
            data: its argument, with *given*, or the bytes that it received or sent.
        """
        began = self.now
        self._depth += 1
        self.advance(us - us // 2)
        try:
            yield
        finally:
            self.advance(us // 2)
            self._depth -= 1
            if channel is not None:
                fields["ch"] = channel
            if given and data is not None:
                fields["n"] = len(data)
            if data is not None and self.payload is not None:
                fields["data"] = text(data[: self.payload])
            took = self.now - began
            self.event("call", began, do=do, us=took, **fields)
            if not self._depth:
                self._write_changes()

    def calls(self, do: str, channel: int | None = None, **fields: Any) -> None:
        """Write a call without events inside."""
        with self.call(do, channel, **fields):
            pass

    def end(self, why: str = "closed") -> None:
        """Write the last line."""
        self.event("end", why=why)

    def bytes(self) -> bytes:
        """Return the file's content."""
        return "".join(f"{line}\n" for line in self.lines).encode("ascii")

    def save(self, path: Path) -> Path:
        """Write the file; return its path."""
        path.write_bytes(self.bytes())
        return path

    def read(self) -> tuple[list[Turn], Reader]:
        """Return the turns, and the reader that read them."""
        reader = Reader()
        turns = list(read_lines(self.bytes().splitlines(keepends=True), reader))
        return turns, reader

    def _write_changes(self) -> None:
        changed, self._changed = self._changed, {}
        for channel, changes in changed.items():
            self.event("state", ch=channel, **changes)

    def _write(self, fields: dict[str, Any]) -> None:
        self.lines.append(json.dumps(fields, separators=(",", ":")))


class Room:
    """The chat room: a listener, and sessions that coalesce writes.

    Attributes:
        trace: the trace that it writes.
        sessions: the channels of the connected clients.
    """

    def __init__(self, trace: Trace | None = None) -> None:
        self.trace = trace or Trace()
        self.sessions: list[int] = []
        self._slow: set[int] = set()
        self._waiting: set[int] = set()
        self._held: dict[int, bytes] = {}
        self._queue: dict[int, list[bytes]] = {}
        self._peer: dict[int, str] = {}
        self._wants: dict[int, tuple[bool, bool]] = {}
        self._known: dict[int, tuple[bool, bool]] = {}
        self._leaving: set[int] = set()
        self._code: dict[str, int] = {}
        self._waited = 250
        self._listen()

    def quiet(self, microseconds: int) -> None:
        """Let no client send for that long: the next turn waits."""
        self._waited += microseconds

    def enter(self, slow: bool = False) -> int:
        """Connect a client; return its channel. A *slow* client receives nothing."""
        trace = self.trace
        self._turn(read=[self.listener])
        code = self._learn(ACCEPTED, "ChatServer", 120)
        with (
            trace.call("handle_accept", self.listener, us=9),
            trace.call("handle_accepted", self.listener, f=code, us=31),
        ):
            session = trace.open("ChatSession", 6 + len(self._peer), "room")
            self._peer[session] = f"127.0.0.1:{40000 + 7 * session}"
            trace.state(
                session,
                status="connected",
                local="127.0.0.1:19528",
                peer=self._peer[session],
                terminator=TERMINATOR,
            )
        self.sessions.append(session)
        self._held[session], self._queue[session] = b"", []
        self._wants[session] = True, False
        if slow:
            self._slow.add(session)
        self._flush()
        return session

    def send(self, session: int, data: bytes) -> None:
        """Let a client's bytes arrive in their own turn."""
        self.send_together({session: data})

    def send_together(self, sent: dict[int, bytes]) -> None:
        """Let several clients' bytes arrive in one turn."""
        self._turn(read=list(sent))
        for session, data in sent.items():
            self._read(session, data)
        self._flush()

    def leave(self, session: int) -> None:
        """Let a client close its connection."""
        trace = self.trace
        self._turn(read=[session])
        with (
            trace.call("handle_read", session, us=7),
            trace.call("handle_close", session, us=9),
        ):
            self._close(session)
        self._flush()

    def fail(self, session: int, data: bytes, error: str = "ValueError: no") -> None:
        """Let a client's data raise in its handler, which closes the connection."""
        trace = self.trace
        self._turn(read=[session])
        collect = self._learn(COLLECT, "ChatSession", 40)
        code = self._learn(ERROR, "ChatSession", 90)
        with trace.call("handle_read", session, us=7, data=data, **{"in": len(data)}):
            trace.calls(
                "collect_incoming_data",
                session,
                data=data,
                given=True,
                f=collect,
                error=error,
                where="room.py:44",
            )
            with trace.call("handle_error", session, f=code, error=error):
                self._close(session)
        self._flush()

    def drain(self, session: int) -> None:
        """Let a slow client receive its whole queue."""
        self._slow.discard(session)
        self._turn(write=[session])
        with self.trace.call("handle_write", session, us=5):
            self._send(session)

    def stop_reading(self, session: int) -> None:
        """Make a client slow from now on."""
        self._slow.add(session)

    def _listen(self) -> None:
        trace = self.trace
        self.listener = trace.open("ChatServer", 4)
        local = "0.0.0.0:19528"
        trace.advance(40)
        trace.state(self.listener, status="listening", local=local)
        self._wants[self.listener] = True, False

    def _turn(self, **ready: Any) -> None:
        now, before = self._wants, self._known
        wants = {each: what for each, what in now.items() if before.get(each) != what}
        self._known = dict(now)
        channels = 1 + len(self.sessions)
        figures = {"channels": channels, "asked": 3 + channels, "waited": self._waited}
        self._waited = 250
        self.trace.turn(wants=wants, **figures, **ready)

    def _read(self, session: int, data: bytes) -> None:
        trace = self.trace
        with trace.call("handle_read", session, us=11, data=data, **{"in": len(data)}):
            before = self._held[session]
            rest = before + data
            while rest:
                head, found, rest = _cut(rest)
                if head:
                    self._collect(session, head)
                if not found:
                    break
                self._find_terminator(session)
            self._held[session] = rest
            if len(rest) != len(before):
                trace.state(session, held=len(rest))

    def _collect(self, session: int, data: bytes) -> None:
        trace = self.trace
        code = self._learn(COLLECT, "ChatSession", 40)
        with trace.call(
            "collect_incoming_data", session, us=8, data=data, given=True, f=code
        ):
            if session not in self._leaving:
                trace.calls("push", session, us=3, data=data, given=True)
                self._queue[session].append(data)
            self._broadcast(session, f"用户{self._peer[session]} 说:".encode() + data)

    def _find_terminator(self, session: int) -> None:
        if session in self._leaving:
            return
        trace = self.trace
        code = self._learn(FOUND, "ChatSession", 70)
        with trace.call("found_terminator", session, us=10, f=code):
            self._leaving.add(session)
            trace.calls("close_when_done", session, us=2)
            trace.state(session, status="closing")
            self._broadcast(session, f"用户{self._peer[session]}退出聊天".encode())

    def _broadcast(self, session: int, data: bytes) -> None:
        staying = [each for each in self.sessions if each not in self._leaving]
        others = [each for each in staying if each != session]
        to = len(others)
        with self.trace.call("push", us=4, data=data, given=True, to=to, but=session):
            for each in others:
                self._queue[each].append(data)

    def _flush(self) -> None:
        receivers = [each for each in self.sessions if self._queue[each]]
        receivers = [each for each in receivers if each not in self._slow]
        slow = [each for each in self._slow if self._queue[each]]
        if not receivers and not slow and not self._leaving:
            return
        with self.trace.call("turn ends", us=4):
            for each in receivers:
                self._send(each)
            for each in sorted(slow):
                queue = self._queue[each]
                backlog = sum(map(len, queue))
                self.trace.state(each, backlog=backlog, queued=len(queue))
                self._waiting.add(each)
                self._wants[each] = True, True
            for each in sorted(self._leaving):
                self._close(each)

    def _send(self, session: int) -> None:
        data = b"".join(self._queue[session])
        trace = self.trace
        with trace.call("send", session, us=14, data=data, out=len(data)):
            self._queue[session] = []
            self._wants[session] = True, False
            if session in self._waiting:
                self._waiting.discard(session)
                trace.state(session, backlog=0, queued=0)

    def _close(self, session: int) -> None:
        with self.trace.call("close", session, us=12):
            self.trace.state(session, status="closed")
        self.sessions.remove(session)
        self._slow.discard(session)
        self._leaving.discard(session)
        self._wants.pop(session, None)

    def _learn(self, source: str, kind: str, line: int) -> int:
        if source not in self._code:
            self._code[source] = self.trace.code(source, kind, "room.py", line)
        return self._code[source]


def _cut(data: bytes) -> tuple[bytes, bool, bytes]:
    """Return the collected bytes, whether the terminator follows, and the rest."""
    head, found, rest = data.partition(TERMINATOR)
    if found:
        return head, True, rest
    for size in range(len(TERMINATOR) - 1, 0, -1):
        if data.endswith(TERMINATOR[:size]):
            return data[:-size], False, data[-size:]
    return data, False, b""


def text(data: bytes) -> str:
    """Return bytes in the format's form."""
    return data.decode("utf-8", "surrogateescape")


def hello() -> Trace:
    """Return a conversation of three clients, one slow, with every kind of event."""
    room = Room()
    anna, bert = room.enter(), room.enter()
    room.send(anna, b"hello")
    room.quiet(400_000)
    room.send(anna, b" world")
    carl = room.enter(slow=True)
    room.quiet(900_000)
    room.send(bert, "你好!".encode())
    room.send(bert, "好".encode()[:1])
    room.send(bert, "好".encode()[1:])
    room.quiet(250_000)
    room.send_together({anna: b"about\r\n", bert: b"\x1b[1mno\x00"})
    room.quiet(1_200_000)
    room.drain(carl)
    room.trace.turn(why="timer", waited=30_000, channels=4)
    with room.trace.call("timer", us=3, id=1):
        room.trace.event("timer", id=2, **{"in": 30.0})
    room.quiet(600_000)
    room.send(bert, b"I shout")
    room.fail(carl, b"!", "UnicodeDecodeError: invalid start byte")
    room.trace.end()
    return room.trace


def large(events: int, clients: int = 60) -> Trace:
    """Return a busy room's trace of at least that many lines."""
    room = Room()
    slow = {3, 17}
    inside = [room.enter(slow=each in slow) for each in range(clients)]
    number = 0
    while len(room.trace.lines) < events:
        number += 1
        speaker = inside[number * 7 % clients]
        others = [inside[(number * 13 + each) % clients] for each in range(number % 3)]
        words = f"message {number} to the room".encode()
        room.send_together(dict.fromkeys([speaker, *others], words))
        if number % 200 == 0:
            room.drain(inside[3])
            room.stop_reading(inside[3])
        room.quiet(number % 50 * 100)
    room.trace.end("full")
    return room.trace
