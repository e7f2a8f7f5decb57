"""The search finds a difference of two rewrites, and reports its shortest form."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from legacy_chat.baseline import Action, Profile, Received, ReplayError, find_profile
from legacy_chat.baseline.fuzz.generator import Generator
from legacy_chat.baseline.fuzz.minimise import matches_never, minimise
from legacy_chat.baseline.fuzz.search import search
from legacy_chat.baseline.model.errors import ReferenceFailedError
from legacy_chat.baseline.replay.lockstep import Lockstep
from legacy_chat.baseline.replay.server import Target
from tests.baseline.line_server import serving
from tests.baseline.targets import in_thread, target
from tests.support import DEADLINE

ROOM = find_profile("tutorial")
LINES = find_profile("lines")


@contextmanager
def pair(reference: str, rewrite: str) -> Iterator[Lockstep]:
    """Yield two rewrites, each in a thread of this process."""
    with (
        in_thread(reference) as one,
        in_thread(rewrite) as other,
        Lockstep(one, other, ROOM, DEADLINE) as servers,
    ):
        yield servers


@pytest.fixture(scope="module")
def same() -> Iterator[Lockstep]:
    """Yield two correct rewrites."""
    with pair("right", "right") as servers:
        yield servers


def written(profile: Profile, number: int) -> list[Action]:
    return list(Generator(profile, 7, number))


def opens(*clients: str) -> list[Action]:
    return [Action(client, "open") for client in clients]


def test_conversation_depends_only_on_its_seed_and_number() -> None:
    assert written(ROOM, 1) == written(ROOM, 1) != written(ROOM, 2)


@pytest.mark.parametrize("profile", [ROOM, LINES], ids=["tutorial", "lines"])
def test_only_connected_clients_act(profile: Profile) -> None:
    for number in range(30):
        connected: set[str] = set()
        half_closed: set[str] = set()
        for action in written(profile, number):
            assert (action.client in connected) != (action.do == "open")
            assert action.client not in half_closed or action.do in ("drop", "reset")
            connected.add(action.client)
            half_closed |= {action.client} if action.do == "half-close" else set()
            connected -= {action.client} if action.do in ("drop", "reset") else set()
            assert len(connected) <= profile.fuzz.clients


def test_disconnected_client_sends_nothing_more() -> None:
    generator = Generator(ROOM, 7, 0)
    ended: list[str] = []
    for action in generator:
        assert action.client not in ended
        if action.do == "send":
            ended.append(action.client)
            generator.update({action.client: Received(b"", "eof")})
    assert ended


def test_forbidden_data_is_never_generated() -> None:
    for number in range(60):
        assert not matches_never(written(ROOM, number), ROOM.fuzz.never)
    assert matches_never([Action("a", "send", b"an out, out")], ROOM.fuzz.never)
    split = [Action("a", "send", b"out o"), Action("a", "send", b"ut")]
    assert matches_never(split, ROOM.fuzz.never)


def test_only_stream_framing_is_cut_at_random() -> None:
    assert any(action.cut for number in range(9) for action in written(LINES, number))
    assert not any(
        action.cut for number in range(9) for action in written(ROOM, number)
    )


def test_search_of_two_correct_servers_finds_nothing(same: Lockstep) -> None:
    result = search(same, conversations=4)
    assert result.found is None
    assert result.conversations == 4
    assert result.steps == 4 * ROOM.fuzz.steps
    assert "4 conversations, 120 steps, in " in result.summary()


def test_search_by_conversations_has_no_time_limit(same: Lockstep) -> None:
    assert search(same, conversations=3).conversations == 3


def test_search_by_time_ends_when_its_time_is_up(same: Lockstep) -> None:
    assert search(same, seconds=1e-9).conversations == 1


def test_missing_rule_is_found_and_minimised() -> None:
    with pair("right", "forgets-k2") as servers:
        result = search(servers, seed=1)
    assert result.found is not None
    come, say = (step.action for step in result.found.steps)
    assert (come.do, say.do) == ("open", "send")
    assert say.data in (b"o", b"ou")


def test_minimise_drops_irrelevant_clients_steps_and_words() -> None:
    actions = [
        *opens("a", "b"),
        Action("b", "send", b"hello"),
        Action("a", "send", "bye out 你".encode()),
        Action("b", "drop"),
    ]
    with pair("right", "forgets-k4") as servers:
        found = minimise(actions, servers)
    assert found is not None
    come, say = (step.action for step in found.steps)
    assert (come, say.client) == (Action("a", "open"), "a")
    assert say.data in ("out你".encode(), b"out ")


def test_hanging_server_is_a_difference() -> None:
    actions = [*opens("a"), Action("a", "send", b"route")]
    # The reference answers in time, even on a busy machine.
    with (
        in_thread("right") as right,
        Lockstep(right, target("hangs"), ROOM, 1.0) as servers,
    ):
        found = minimise(actions, servers)
    assert found is not None
    assert found.difference is not None
    assert "received nothing back within 1 s" in found.difference.error
    assert found.actions == actions


def test_minimise_returns_none_without_a_difference() -> None:
    with pair("right", "forgets-k2") as servers:
        assert minimise([*opens("a"), Action("a", "send", b"hi")], servers) is None


def test_actions_that_the_reference_rejects_are_an_error(same: Lockstep) -> None:
    with pytest.raises(ReferenceFailedError):
        minimise([Action("a", "send", b"hi")], same)


def test_server_that_exits_is_an_error() -> None:
    with (
        in_thread("right") as right,
        Lockstep(right, Target("{python} -c 0 {port}"), ROOM, 5.0) as servers,
        pytest.raises(ReplayError, match="status 0"),
    ):
        search(servers, conversations=1)


def test_late_answer_of_the_reference_is_no_difference() -> None:
    """The reference answers when the other server has, in the same step or later."""
    answered = threading.Semaphore(0)

    class Late(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                answered.acquire(timeout=DEADLINE)
                self.request.sendall(b"you sent " + data)

    class Prompt(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                self.request.sendall(b"you sent " + data)
                answered.release()

    actions = [*opens("a"), *(Action("a", "send", b"%d\n" % n) for n in range(3))]
    with serving(Late) as late, serving(Prompt) as prompt:
        targets = [Target("", (each.host, each.port)) for each in (late, prompt)]
        with Lockstep(*targets, LINES, 20.0) as servers:
            played = servers.play(actions)
    assert played.difference is None
    assert played.steps[1].answers == {"a": Received(b"you sent 0\n")}
