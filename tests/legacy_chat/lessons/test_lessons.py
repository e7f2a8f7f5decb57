"""The scenarios: their claims hold on every loop, and a claim can fail."""

from __future__ import annotations

import asyncore
import pkgutil
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.harness import ScenarioError
from legacy_chat.lessons.engine.lesson import ChangedCodeError, Excerpt
from legacy_chat.lessons.engine.runner import run_lesson
from tests.legacy_chat.lessons.support import NUMBERS, excerpts_of, steps_of, texts_of

# Code that tests replace.
SESSION = "legacy_chat.session:ChatSession"


LISTENER = "legacy_chat.listener:Listener"


ECHO = "legacy_chat.lessons.always_writable"


CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize("number", NUMBERS)
def test_claims_of_a_lesson_hold(number: int, loop: str, ran: Any) -> None:
    lesson, runs = LESSONS[number - 1], ran(number, loop)
    assert all(step.claims(loop) for step in steps_of(lesson))
    assert [claim.en for claim in lesson.false_claims(runs)] == []


@pytest.mark.parametrize("number", NUMBERS)
def test_code_is_shown_beside_a_call_that_was_made(
    number: int, loop: str, ran: Any
) -> None:
    for step, run in zip(steps_of(LESSONS[number - 1]), ran(number, loop), strict=True):
        made = {call.name for call in run.calls()}
        for excerpt in step.code(loop):
            assert excerpt.beside in {"", *made}, excerpt.name


@pytest.mark.parametrize("number", NUMBERS)
def test_excerpts_of_a_lesson_are_in_the_code(number: int, loop: str) -> None:
    changed = []
    for excerpt in excerpts_of(LESSONS[number - 1], loop):
        try:
            assert excerpt.lines()
        except ChangedCodeError as error:
            changed.append(str(error))
    assert changed == []


@pytest.mark.parametrize("number", NUMBERS)
def test_lesson_texts_name_the_same_code_in_both_languages(number: int) -> None:
    for text in texts_of(LESSONS[number - 1]):
        assert not CHINESE.search(re.sub("`[^`]*`", "", text.en)), text.en
        assert CHINESE.search(text.zh), text.zh
        named = [set(re.findall("`[^`]*`", each)) for each in text]
        assert named[0] == named[1]


def test_excerpt_of_a_missing_line_is_an_error() -> None:
    with pytest.raises(ChangedCodeError, match=r"poll has no line with 'goto'"):
        Excerpt("asyncore:poll", "goto").lines()


def test_excerpt_of_a_missing_function_is_an_error() -> None:
    with pytest.raises(ChangedCodeError, match=r"asyncore:goto does not exist"):
        Excerpt("asyncore:goto").lines()


# By change: the lesson, the replaced name, and its new value.
CHANGES: dict[str, tuple[int, str, Any]] = {
    "nothing is held back": (2, "asynchat:find_prefix_at_end", lambda *_: 0),
    "out ends nothing": (3, f"{SESSION}.close_when_flushed", lambda *_: None),
    "characters are cut": (4, "legacy_chat.session:_partial_size", lambda data: 0),
    "slow readers stay": (5, f"{SESSION}.handle_backlog", lambda self: None),
    "stale events are dispatched": (
        6,
        "compat.registration:Registration.is_current",
        lambda *_: True,
    ),
    "the calm one spins": (7, f"{ECHO}:Calm.writable", lambda self: True),
    "the mute one writes": (7, f"{ECHO}:Mute.writable", lambda self: True),
    "there is no reserve": (8, f"{LISTENER}._refuse_all_from", lambda *_: None),
    "the room spins": (8, f"{LISTENER}.readable", lambda self: True),
    "no writes are coalesced": (9, f"{SESSION}.ac_coalesce_writes", False),
    "all writes are coalesced": (9, "compat:async_chat.ac_coalesce_writes", True),
}


def replace(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Replace an existing ``module:qualified.name``."""
    owner, attribute = re.fullmatch(r"(.+)[:.](\w+)", name).groups()
    monkeypatch.setattr(pkgutil.resolve_name(owner), attribute, value)


@pytest.mark.parametrize("change", CHANGES)
def test_claim_fails_when_the_code_differs(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, name, value = CHANGES[change]
    monkeypatch.setattr("legacy_chat.lessons.engine.harness.PATIENCE", 0.3)
    replace(monkeypatch, name, value)
    assert is_found_out(number, "selectors", tmp_path / "trace")


def leave_a_socket_open(original: Any) -> Any:
    def changed(self: Any, *given: Any) -> Any:
        asyncore.dispatcher(map=self._map).create_socket()
        return original(self, *given)

    return changed


def add_a_companion(original: Any) -> Any:
    def changed(self: Any, *given: Any) -> None:
        original(self, *given)
        companion: Any = asyncore.dispatcher(map=self._map)
        companion.readable = companion.writable = lambda: False
        companion.create_socket(type=socket.SOCK_DGRAM)

    return changed


def accept_first(original: Any) -> Any:
    def changed(self: Any, data: bytes) -> None:
        self.server.handle_accept()
        original(self, data)

    return changed


def echo_twice(original: Any) -> Any:
    def changed(self: Any, data: bytes) -> None:
        self.push(data)
        original(self, data)

    return changed


def insert_in_front(original: Any) -> Any:
    def changed(self: Any, map: Any = None) -> None:
        map = self._map if map is None else map
        others = dict(map)
        map.clear()
        original(self, map)
        map.update(others)

    return changed


# By change: the replaced name, its replacement, and the claims that fail.
CHANGES_OF_ONE_TURN: dict[str, tuple[str, Callable[[Any], Any], list[str]]] = {
    "a socket is left in the map": (
        f"{LISTENER}.listen_on",
        leave_a_socket_open,
        ["The map has one channel", "The ready set was the listening channel"],
    ),
    "a session does not come alone": (
        "legacy_chat.server:ChatServer.handle_accepted",
        add_a_companion,
        ["`handle_accept` ran once"],
    ),
    "the listener is called for nothing": (
        f"{SESSION}.collect_incoming_data",
        accept_first,
        ["Only Ann's channel was ready"],
    ),
    "data is echoed twice": (
        f"{SESSION}.collect_incoming_data",
        echo_twice,
        ["Received, collected and echoed"],
    ),
    "the room spins": (
        f"{SESSION}.writable",
        lambda original: lambda self: True,
        ["No channel was ready"],
    ),
    "the last channel is first": (
        "asyncore:dispatcher.add_channel",
        insert_in_front,
        ["One turn with two channels"],
    ),
}


@pytest.mark.parametrize("change", CHANGES_OF_ONE_TURN)
def test_claim_about_a_turn_fails_when_the_code_differs(
    change: str, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, changed, begin = CHANGES_OF_ONE_TURN[change]
    replace(monkeypatch, name, changed(pkgutil.resolve_name(name)))
    runs = run_lesson(LESSONS[0], loop, tmp_path / "trace")
    false = [claim.en for claim in LESSONS[0].false_claims(runs)]
    for each in begin:
        assert [text for text in false if text.startswith(each)], false


def test_claims_about_one_turn_have_all_been_seen_to_fail(loop: str) -> None:
    begin = [each for *_, begin in CHANGES_OF_ONE_TURN.values() for each in begin]
    for step in steps_of(LESSONS[0]):
        for claim in step.claims(loop):
            assert claim.en.startswith(tuple(begin))


def test_claim_fails_when_a_message_is_sent_twice(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(self: Any, data: bytes) -> None:
        self.push(data)
        self.broadcasting(data)
        self.broadcasting(data)

    replace(monkeypatch, f"{SESSION}.collect_incoming_data", twice)
    assert is_found_out(2, loop, tmp_path / "trace")


def is_found_out(number: int, loop: str, trace: Path) -> bool:
    """Return whether a claim of that lesson fails, or its scenario."""
    try:
        runs = run_lesson(LESSONS[number - 1], loop, trace)
    except ScenarioError:
        return True
    return bool(LESSONS[number - 1].false_claims(runs))
