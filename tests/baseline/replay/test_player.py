"""Evidence ends a step: a barrier, or a quiet that suits the server."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from legacy_chat.baseline import (
    Action,
    Endpoint,
    Profile,
    Received,
    ReplayError,
    Step,
    Transcript,
    TranscriptHeader,
    check,
    conversation,
    find_profile,
    play,
)
from legacy_chat.baseline.model.names import Volatile
from legacy_chat.baseline.model.profile import BarrierMessages
from legacy_chat.baseline.model.transcript import Answers
from legacy_chat.baseline.replay import player
from legacy_chat.baseline.replay.barrier import WITNESS
from legacy_chat.baseline.replay.client_pool import ClientPool
from legacy_chat.baseline.replay.quiescence import LAST_POLL, QUIET, Quiescence
from tests.baseline.line_server import LINES, line_server, serving
from tests.support import DEADLINE, process, room

ROOM = find_profile("tutorial")
HELLO = b"welcome, {token%d}, at {time}\r\n"


def a(do: str, data: bytes = b"", cut: str = "") -> Action:
    return Action("a", do, data, cut)


def b(do: str, data: bytes = b"") -> Action:
    return Action("b", do, data)


@pytest.fixture(scope="module")
def lines() -> Iterator[Endpoint]:
    with line_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def chat() -> Iterator[Endpoint]:
    with room("selectors") as (_, address):
        yield Endpoint(*address)


def to_a(data: bytes, **more: Received) -> Answers:
    return {"a": Received(data), **more}


def test_step_returns_the_data_that_it_caused(chat: Endpoint) -> None:
    with conversation(chat, ROOM) as talk:
        assert talk.step(a("open")) == talk.step(b("open")) == {}
        answers = talk.step(a("send", b"hello"))
        assert answers == to_a(b"hell", b=Received("用户{a} 说:hell".encode()))
        answers = talk.step(a("send", b"ut"))
        assert answers["a"] == Received(b"", "eof")


def test_data_of_the_witness_is_returned_on_request(chat: Endpoint) -> None:
    with conversation(chat, ROOM, header=TranscriptHeader(witness=True)) as talk:
        talk.step(a("open"))
        assert talk.step(a("send", b"hi"))[WITNESS] == Received(
            "用户{a} 说:hi".encode()
        )


def test_the_pieces_of_a_message_are_segments(chat: Endpoint) -> None:
    with conversation(chat, ROOM) as talk:
        talk.step(a("open"))
        talk.step(b("open"))
        answers = talk.step(a("send", b"two", "at 1"))
        assert answers["b"].data.decode() == "用户{a} 说:t用户{a} 说:w"


def test_a_message_that_takes_many_reads_is_one_step(chat: Endpoint) -> None:
    with conversation(chat, ROOM) as talk:
        talk.step(a("open"))
        assert talk.step(a("send", b"x" * 3_000_000)) == to_a(b"x" * 3_000_000)
        assert talk.step(a("send", b"y")) == to_a(b"y")


def test_the_next_conversation_finds_an_empty_room(chat: Endpoint) -> None:
    for _ in range(3):
        with conversation(chat, ROOM, header=TranscriptHeader(witness=True)) as talk:
            talk.step(a("open"))
            assert talk.step(a("send", b"alone?"))["a"] == Received(b"alone?")


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ([a("send", b"x")], "a cannot send: it is not connected"),
        ([a("open"), a("open")], "is connected already"),
        ([a("open"), a("reset", b"x")], "may or may not read"),
        (
            [a("open"), a("half-close"), a("send", b"x")],
            "is not connected .eof",
        ),
        ([Action(WITNESS, "drop")], "is not connected"),
        ([Action(WITNESS, "open")], "is connected already"),
    ],
)
def test_impossible_action_is_an_error(
    chat: Endpoint, actions: list[Action], why: str
) -> None:
    with conversation(chat, ROOM) as talk:
        *before, last = actions
        for action in before:
            talk.step(action)
        with pytest.raises(ReplayError, match=why):
            talk.step(last)


def with_barrier(say: bytes, hello: bytes = b"", welcome: bytes = b"") -> Profile:
    """Return a barrier that the line server answers to the witness only."""
    words = BarrierMessages(say, (say.replace(b"PING", b"PONG"),), 3, 4, hello, welcome)
    return replace(LINES, barrier=words)


def test_barrier_that_the_witness_does_not_receive_is_an_error(lines: Endpoint) -> None:
    why = r"""the witness sent b'PING 1\\r\\n' and did not receive b'PONG 1\\r\\n' """
    with (
        pytest.raises(
            ReplayError, match=f"{why}within 0.2 s: the last .*leave .barrier. out"
        ),
        conversation(lines, with_barrier(b"PING {n}\r\n"), timeout=0.2),
    ):
        pytest.fail("the barrier works")


def test_barrier_without_its_welcome_is_an_error(lines: Endpoint) -> None:
    # No part of the greeting, whose token is a number.
    profile = with_barrier(b"barrier {n}\r\n", b"NICK w\r\n", b"^001 w")
    why = r"sent hello b'NICK w\\r\\n' and received no welcome that matches b'\^001 w'"
    with (
        pytest.raises(ReplayError, match=why),
        conversation(lines, profile, timeout=0.2),
    ):
        pytest.fail("the barrier works")


def test_barrier_that_others_do_not_receive_is_an_error(lines: Endpoint) -> None:
    # The line server echoes to the witness, and sends nothing to the others.
    with conversation(lines, with_barrier(b"barrier {n}\r\n"), timeout=0.2) as talk:
        why = r"a received neither the witness's markers .*leave \[barrier\] out"
        with pytest.raises(ReplayError, match=why):
            talk.step(a("open"))
        talk.abort()


def test_barrier_with_constant_noise_is_an_error() -> None:
    """A large message ends when markers arrive alone; this server adds noise."""

    class Noisy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(1 << 16):
                for each in people:
                    each.sendall(data + b" and noise ")

        def setup(self) -> None:
            people.append(self.request)

        def finish(self) -> None:
            people.remove(self.request)

    people: list[socket.socket] = []
    profile = Profile(barrier=BarrierMessages(b"<{n}>", (b"<{n}>",)))
    with (
        serving(Noisy) as endpoint,
        conversation(endpoint, profile, timeout=0.5) as talk,
    ):
        talk.step(a("open"))
        with pytest.raises(
            ReplayError, match=r"besides the witness's markers .* 0\.5 s"
        ):
            talk.step(a("send", b"x" * 20_000))
        talk.abort()


def test_killed_server_disconnects_the_witness() -> None:
    with (
        room("select") as (server, address),
        conversation(Endpoint(*address), ROOM) as talk,
    ):
        talk.step(a("open"))
        server.popen.kill()
        server.wait()
        answers = talk.step(a("send", b"there?"))
        assert answers[WITNESS].end
        with pytest.raises(ReplayError, match="is gone"):
            talk.step(a("send", b"still?"))


def test_without_a_barrier_quiet_ends_a_step(lines: Endpoint) -> None:
    with conversation(lines, LINES) as talk:
        assert talk.step(a("open")) == to_a(HELLO % 1)
        assert talk.step(b("open")) == {"b": Received(HELLO % 2)}
        assert talk.step(a("send", b"half a ")) == {}
        assert talk.step(a("send", b"line\r\n")) == to_a(b"you sent half a line\r\n")
        answers = talk.step(b("send", b"ALL of you\r\n"))
        assert answers == to_a(b"all: of you\r\n", b=Received(b"all: of you\r\n"))
        assert talk.step(a("send", b"{token1}\r\n")) == to_a(b"you sent {token1}\r\n")


def test_late_but_expected_answer_is_awaited(lines: Endpoint) -> None:
    expected = to_a(b"you sent LATE x\r\n")
    with conversation(lines, LINES) as talk:
        talk.step(a("open"))
        assert talk.step(a("send", b"LATE x\r\n"), expected) == expected


def test_ends_of_connections_are_events(lines: Endpoint) -> None:
    with conversation(lines, LINES) as talk:
        for name in "abc":
            talk.step(Action(name, "open"))
        assert talk.step(a("send", b"QUIT\r\n")) == {
            "a": Received(b"you sent QUIT\r\n", "eof")
        }
        assert talk.step(b("send", b"RESET\r\n")) == {"b": Received(b"", "reset")}
        assert talk.step(Action("c", "half-close", b"bye\r\n")) == {
            "c": Received(b"you sent bye\r\n", "eof")
        }


@pytest.mark.parametrize("profile", [LINES, ROOM], ids=["quiet", "barrier"])
def test_refused_connection_is_an_event(profile: Profile) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = Endpoint(*nobody.getsockname())
        with conversation(endpoint, profile) as talk:
            assert talk.step(a("open")) == {"a": Received(end="refused")}
            with pytest.raises(ReplayError, match=r"is not connected .refused"):
                talk.step(a("drop"))


def test_data_is_read_while_the_server_reads_nothing() -> None:
    """The server writes before it reads on, so each side may wait for the other."""
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); c, _ = s.accept()\n"
        "while data := c.recv(1 << 16): c.sendall(data)"
    )
    data = b"x" * 5_000_000
    with process(sys.executable, "-c", program) as server:
        endpoint = Endpoint("127.0.0.1", int(server.wait_for(r"(\d+)")[1]))
        with conversation(endpoint, Profile()) as talk:
            talk.step(a("open"))
            assert talk.step(a("send", data), to_a(data)) == to_a(data)


class Observed(Quiescence):
    """Lets a test read the clients."""

    def __init__(self, pool: ClientPool) -> None:
        super().__init__(pool)
        self.pool = pool


class Recorded(Observed):
    """Notes the seconds of each wait, and waits for LAST_POLL seconds instead.

    The first wait also waits for the greeting of the line server.
    """

    made: ClassVar[list[Recorded]] = []

    def __init__(self, pool: ClientPool) -> None:
        super().__init__(pool)
        self.made.append(self)
        self.seconds: list[float] = []

    def settle(self, seconds: float) -> None:
        self.note(seconds)
        super().settle(LAST_POLL)

    def wait_for(
        self, complete: Callable[[], bool], patience: float = LAST_POLL
    ) -> None:
        self.note(patience)
        super().wait_for(complete, LAST_POLL)

    def note(self, seconds: float) -> None:
        if not self.seconds:
            self.pool.until(self.pool, lambda client: bool(client.received))
        self.seconds.append(seconds)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    monkeypatch.setattr(player, "Quiescence", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    return Recorded.made


TALK = Transcript(
    TranscriptHeader("talk"), [Step(a("open"), {}), Step(a("send", b"half a line"), {})]
)


@pytest.mark.parametrize(
    ("profile", "asked", "seconds"),
    [
        (Profile(), 0.0, [3.0, 3.0, 9.0]),
        (Profile(quiet=1.0), 0.0, [1.0, 1.0, 3.0]),
        (Profile(quiet=1.0), 5.0, [5.0, 5.0, 15.0]),
    ],
)
def test_recording_waits_for_seconds_and_longer_at_the_end(
    lines: Endpoint,
    waits: list[Recorded],
    profile: Profile,
    asked: float,
    seconds: list[float],
) -> None:
    list(play(TALK, lines, profile, quiet=asked))
    (quiet,) = waits
    assert quiet.seconds == seconds


def test_check_waits_as_long_as_the_recording_did(
    lines: Endpoint, waits: list[Recorded]
) -> None:
    transcript = TALK._replace(header=TranscriptHeader("talk", quiet=4.0))
    check(transcript, lines, Profile(patience=3.0))
    # The first step differs: the server greets.
    assert [quiet.seconds for quiet in waits] == [[8.0]]
    profile = Profile(volatile=(Volatile("x", rb"welcome[\s\S]*", "any"),))
    greeted = Step(a("open"), {"a": Received(b"{x}")})
    check(Transcript(transcript.header, [greeted, TALK.steps[1]]), lines, profile)
    assert waits[1].seconds == [8.0, 24.0, LAST_POLL]


def test_late_end_belongs_to_the_last_step() -> None:
    """The server closes during the wait for late data, and not before."""

    class Closing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            looks_again.wait(DEADLINE)

    looks_again = threading.Event()

    class Signalling(Observed):
        def settle(self, seconds: float) -> None:
            if seconds > QUIET:
                looks_again.set()
                self.pool.until(self.pool, lambda client: bool(client.end))
            super().settle(LAST_POLL)

    with serving(Closing) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setattr(player, "Quiescence", Signalling)
        (step,) = play(
            Transcript(TranscriptHeader(), [Step(a("open"), {})]), endpoint, Profile()
        )
    assert step.answers == {"a": Received(b"", "eof")}


@pytest.mark.parametrize(
    ("pattern", "half", "rest", "expected"),
    [
        (
            b"id=(?P<value>[0-9]+)",
            b"id=12",
            b"34 again id=1234\n",
            b"id={id1} again id={id1}\n",
        ),
        (b"<(?P<value>[a-f]+)>", b"<" + b"a" * 90, b"b>\n", b"<{id1}>\n"),
        (b"<(?P<value>[a-f\n]+)>", b"<a\nb\n", b"c>\n", b"<{id1}>\n"),
    ],
    ids=["ambiguous", "long", "several lines"],
)
def test_half_of_a_value_gets_no_name(
    pattern: bytes, half: bytes, rest: bytes, expected: bytes
) -> None:
    """The server sends the other half when the check has received the first."""
    is_seen = threading.Event()

    class Halves(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(half)
            is_seen.wait(DEADLINE)
            self.request.sendall(rest)
            self.request.recv(1)

    class Looking(Observed):
        def wait_for(
            self, complete: Callable[[], bool], patience: float = LAST_POLL
        ) -> None:
            self.pool.until(self.pool, lambda client: half in client.received)
            assert not complete()
            is_seen.set()
            super().wait_for(complete, patience)

    profile = Profile(volatile=(Volatile("id", pattern),))
    with (
        serving(Halves) as endpoint,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(player, "Quiescence", Looking)
        with conversation(endpoint, profile) as talk:
            assert talk.step(a("open"), to_a(expected)) == to_a(expected)


def test_check_waits_between_segments_as_the_recording_did(
    lines: Endpoint, waits: list[Recorded]
) -> None:
    steps = [
        Step(a("open"), {"a": Received(b"{x}")}),
        Step(a("send", b"ab", "at 1"), {}),
    ]
    volatile = (Volatile("x", rb"welcome[\s\S]*", "any"),)
    header = TranscriptHeader("talk", quiet=4.0)
    check(Transcript(header, steps), lines, Profile(volatile=volatile))
    (quiet,) = waits
    assert quiet.seconds == [8.0, 4.0, 24.0, LAST_POLL]
