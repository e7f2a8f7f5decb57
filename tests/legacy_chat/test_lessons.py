"""The lessons: their claims hold on every loop, and a claim can fail."""

from __future__ import annotations

import asyncore
import contextlib
import os
import pkgutil
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compat
from compat.trace.reader import Reader, read_trace
from compat.trace.render.text import lines
from legacy_chat.baseline.report.text import width
from legacy_chat.cli import main
from legacy_chat.lessons import LESSONS, cli, out_of_descriptors
from legacy_chat.lessons.engine import render
from legacy_chat.lessons.engine.cjk_wrap import beside, code_wrapped, filled, folded
from legacy_chat.lessons.engine.harness import Stage, StageError
from legacy_chat.lessons.engine.lesson import (
    LANGUAGES,
    ChangedCodeError,
    Claim,
    Excerpt,
    Lesson,
    Text,
)
from legacy_chat.lessons.engine.render import Show
from legacy_chat.lessons.engine.runner import Scene, play
from tests.support import OURS

NUMBERS = range(1, len(LESSONS) + 1)

# Code that tests replace.
SESSION = "legacy_chat.session:ChatSession"
LISTENER = "legacy_chat.listener:Listener"
ECHO = "legacy_chat.lessons.always_writable"

CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Scene]]:
    """Return a function that plays a lesson once on each loop."""
    done: dict[tuple[int, str], list[Scene]] = {}
    folder = tmp_path_factory.mktemp("lessons")

    def played(number: int, loop: str) -> list[Scene]:
        if (number, loop) not in done:
            trace = folder / f"{number}-{loop}"
            done[number, loop] = play(LESSONS[number - 1], loop, trace)
        return done[number, loop]

    return played


@pytest.mark.parametrize("number", NUMBERS)
def test_claims_of_a_lesson_hold(number: int, loop: str, played: Any) -> None:
    for scene in played(number, loop):
        claims = scene.claims()
        assert claims
        assert [claim.text.en for claim, holds in claims if not holds] == []


@pytest.mark.parametrize("number", NUMBERS)
def test_code_is_shown_beside_a_call_that_was_made(
    number: int, loop: str, played: Any
) -> None:
    for scene in played(number, loop):
        made = {call.name for turn in scene.seen.turns for call in turn.calls()}
        for excerpt in scene.step.code:
            if loop in (excerpt.loops or OURS):
                assert excerpt.lines()
                assert excerpt.beside in {"", *made}, excerpt.name


@pytest.mark.parametrize("number", NUMBERS)
def test_lesson_texts_name_the_same_code_in_both_languages(
    number: int,
) -> None:
    for text in texts_of(LESSONS[number - 1]):
        assert not CHINESE.search(re.sub("`[^`]*`", "", text.en)), text.en
        assert CHINESE.search(text.zh), text.zh
        named = [set(re.findall("`[^`]*`", each)) for each in text]
        assert named[0] == named[1]


def test_no_phrase_is_missing_in_a_language() -> None:
    for phrases in (render.WORDS, render.NOTES, render.STATES, render.NAMES):
        for text in phrases.values():
            blanks = [sorted(re.findall(r"{\w+", each)) for each in text]
            assert all(each.strip() for each in text)
            assert blanks[0] == blanks[1]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("columns", [40, 53, 60, 80, 120, 200])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_fits_into_the_columns_that_there_are(
    number: int, columns: int, lang: str, played: Any
) -> None:
    told = Show(lang, columns)
    lines = list(told.head(number, LESSONS[number - 1], "select"))
    for at, scene in enumerate(played(number, "select"), 1):
        lines += told.step(at, scene)
        for claim, _ in scene.claims():
            assert "".join(claim.text.said_in(lang).split()) in "".join(
                "".join(lines).split()
            )
    assert max(map(width, lines)) <= columns


def test_events_are_shown_beside_the_code_that_caused_them(
    loop: str, played: Any
) -> None:
    lines = [
        " ".join(line.split()) for line in Show("en", 110).scene(played(2, loop)[0])
    ]
    assert 'Ann says "hello"' in " ".join(lines)
    (call,) = [line for line in lines if line.startswith("collect_incoming_data")]
    assert call == (
        'collect_incoming_data "hell" │ compat/chat.py async_chat._compat_collect'
    )
    assert 'Bob gets "用户{Ann} 说:hell"' in " ".join(lines)


def test_handle_error_is_called_for_an_exception_and_raises_none(
    played: Any,
) -> None:
    told = list(Show("en", 80).scene(played(4, "select")[0]))
    assert "  Ann: handle_error for UnicodeDecodeError" in told
    assert any(
        line.startswith("    collect_incoming_data ")
        and line.endswith(" raises UnicodeDecodeError")
        for line in told
    )


def test_the_log_names_people_as_the_lesson_does(played: Any) -> None:
    told = list(Show("en", 80).scene(played(4, "select")[0]))
    assert "the log says 用户{Ann}: closing after an error" in told
    told = list(Show("zh", 80).scene(played(4, "select")[0]))
    assert "日志：用户{甲}: closing after an error" in told


def test_scene_shows_no_setup_of_the_next_step(
    played: Any,
) -> None:
    first, second, *_ = played(8, "select")
    assert "ChatServer" not in "".join(Show("en", 80).scene(first))
    assert "ChatServer" in "".join(Show("en", 80).scene(second))


def test_actors_are_listed_with_commas_and_a_conjunction(played: Any) -> None:
    assert "(Cid, Dan and Eve in the room)" in Show("en", 80).scene(
        played(9, "select")[-1]
    )
    assert "（聊天室里有丙、丁、戊）" in Show("zh", 80).scene(played(9, "select")[-1])


# A claim can fail: one change in the code of a lesson makes it fail.

# By change: the lesson, what is replaced, and by what.
CHANGES: dict[str, tuple[int, str, Any]] = {
    "nothing is held back": (2, "asynchat:find_prefix_at_end", lambda *_: 0),
    "out ends nothing": (3, f"{SESSION}.finish", lambda *_: None),
    "characters are cut": (4, "legacy_chat.session:_unfinished", lambda data: 0),
    "slow readers stay": (5, f"{SESSION}.handle_backlog", lambda self: None),
    "stale events are dispatched": (
        6,
        "compat.selector_loop:Known.is_still_in",
        lambda *_: True,
    ),
    "the calm one spins": (7, f"{ECHO}:Calm.writable", lambda self: True),
    "the mute one writes": (7, f"{ECHO}:Mute.writable", lambda self: True),
    "there is no reserve": (8, f"{LISTENER}._refuse_all_from", lambda *_: None),
    "the room spins": (8, f"{LISTENER}.readable", lambda self: True),
    "no writes are coalesced": (9, f"{SESSION}.ac_gather", False),
    "all writes are coalesced": (9, "compat:async_chat.ac_gather", True),
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


# Of lesson 1, each claim by itself: changes that leave the scenario as it is. Each is
# made from the original function.


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


# By change: what is replaced, by what, and the beginnings of the claims that fail.
CHANGES_OF_ONE_TURN: dict[str, tuple[str, Callable[[Any], Any], list[str]]] = {
    "a socket is left in the map": (
        f"{LISTENER}.open_doors",
        leave_a_socket_open,
        ["The map has one channel", "The ready set was the listening channel"],
    ),
    "a session does not come alone": (
        "legacy_chat.server:ChatServer.handle_accepted",
        add_a_companion,
        ["`handle_accept` was called once"],
    ),
    "the listener is called for nothing": (
        f"{SESSION}.collect_incoming_data",
        accept_first,
        ["Only Ann's channel was ready; nobody called"],
    ),
    "data is echoed twice": (
        f"{SESSION}.collect_incoming_data",
        echo_twice,
        ["Read, collected, echoed"],
    ),
    "the room spins": (
        f"{SESSION}.writable",
        lambda original: lambda self: True,
        ["Nobody was ready"],
    ),
    "the last channel is first": (
        "asyncore:dispatcher.add_channel",
        insert_in_front,
        ["One turn, two in its ready set"],
    ),
}


@pytest.mark.parametrize("change", CHANGES_OF_ONE_TURN)
def test_claim_about_a_turn_fails_when_the_code_differs(
    change: str, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, changed, begin = CHANGES_OF_ONE_TURN[change]
    replace(monkeypatch, name, changed(pkgutil.resolve_name(name)))
    scenes = play(LESSONS[0], loop, tmp_path / "trace")
    false = [
        claim.text.en
        for scene in scenes
        for claim, holds in scene.claims()
        if not holds
    ]
    for each in begin:
        assert [said for said in false if said.startswith(each)], false


def test_every_claim_about_one_turn_has_been_seen_to_fail() -> None:
    steps = (*LESSONS[0].steps, LESSONS[0].answer)
    claims = [claim.text.en for step in steps for claim in step.claims]
    begin = [each for *_, begin in CHANGES_OF_ONE_TURN.values() for each in begin]
    assert all(any(said.startswith(each) for each in begin) for said in claims)


def test_the_tutorials_way_with_one_message_more_is_found_out(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(self: Any, data: bytes) -> None:
        self.push(data)
        self.broadcasting(data)
        self.broadcasting(data)

    replace(monkeypatch, f"{SESSION}.collect_incoming_data", twice)
    assert is_found_out(2, loop, tmp_path / "trace")


def test_false_claim_is_reported_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Claim(Text("Pigs fly.", "猪会飞。"), lambda seen: False)
    lesson = LESSONS[1]
    first = lesson.steps[0]._replace(claims=(wrong,))
    monkeypatch.setattr(cli, "LESSONS", (lesson._replace(steps=(first,)),))
    assert main(["lesson", "1"]) == 1
    out, err = capsys.readouterr()
    assert "✗ NOT TRUE HERE: Pigs fly." in out
    assert err.splitlines() == [
        "legacy-chat lesson: lesson 1 is wrong here, please report it: Pigs fly."
    ]


def test_excerpt_of_a_missing_line_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"poll has no line with 'goto'"):
        Excerpt("asyncore:poll", "goto").lines()


def test_excerpt_of_a_missing_function_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"compat\.loops:goto does not exist"):
        Excerpt("compat.loops:goto").lines()


@pytest.mark.parametrize("number", NUMBERS)
def test_excerpts_of_a_lesson_are_in_the_code(number: int) -> None:
    changed = []
    for excerpt in excerpts_of(LESSONS[number - 1]):
        try:
            excerpt.lines()
        except ChangedCodeError as error:
            changed.append(str(error))
    assert changed == []


# The stage.


def test_a_stage_leaves_nothing_behind(loop: str) -> None:
    stdout, open_files = sys.stdout, count_descriptors()
    with Stage(loop) as stage:
        stage.open_room()
        stage.enter("ann").say("hi")
        assert stage.map
    assert sys.stdout is stdout
    assert stage.map == {}
    assert count_descriptors() == open_files


def test_two_peers_never_have_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []

    class Again(socket.socket):
        """A socket class that can get the port of another room's peer."""

        def bind(self, address: Any) -> None:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            super().bind((address[0], ports.pop() if ports else address[1]))

        def connect(self, address: Any) -> None:
            if not self.getsockname()[1]:
                self.bind(("127.0.0.1", 0))
            super().connect(address)

    with Stage("select") as stage:
        stage.open_room()
        monkeypatch.setattr(socket, "socket", Again)
        ann = stage.enter("ann")
        monkeypatch.undo()
        stage.open_room()
        monkeypatch.setattr(socket, "socket", Again)
        ports.append(ann.port)
        bob = stage.enter("bob")
        assert not ports
        assert bob.port != ann.port
        assert stage.session(bob).server is stage.room


def test_wait_that_times_out_names_the_actor(loop: str) -> None:
    with Stage(loop) as stage:
        stage.open_room()
        ann = stage.enter("ann")
        ann.sock.settimeout(0.05)
        with pytest.raises(StageError, match="ann waited in vain"):
            ann.hear("a word")


# The layout.


def test_chinese_breaks_anywhere_but_before_what_closes() -> None:
    lines = filled("“就绪”只是提示，不是保证。就绪，就绪。", 10)
    assert all(width(line) <= 10 for line in lines)
    assert not any(line[0] in "，。”" for line in lines)
    assert "".join(lines) == "“就绪”只是提示，不是保证。就绪，就绪。"


@pytest.mark.parametrize("columns", range(40, 121, 4))
def test_no_word_of_a_lesson_is_broken(columns: int) -> None:
    for text in said_in_lessons():
        lines = filled(text.en, columns)
        assert " ".join(lines).split() == text.en.split()
        assert max(map(width, lines)) <= columns


@pytest.mark.parametrize("columns", range(40, 121, 4))
def test_chinese_breaks_neither_before_what_closes_nor_in_code(columns: int) -> None:
    for text in said_in_lessons():
        lines = filled(text.zh, columns)
        assert not any(line[0] in "，。、；：？！）”》」…,.)" for line in lines)
        assert not any(line[-1] in "（“《「(" for line in lines)
        assert re.findall("`[^`]*`", "\n".join(lines)) == re.findall("`[^`]*`", text.zh)
        assert "".join("".join(lines).split()) == "".join(text.zh.split())


def test_a_stop_stays_with_the_code_before_it() -> None:
    assert filled("The `o` stays in `ac_in_buffer`.", 31) == [
        "The `o` stays in",
        "`ac_in_buffer`.",
    ]


def test_quoted_message_is_wrapped_only_if_it_is_too_long() -> None:
    assert list(folded(['  乙：send "用户{甲} 退出聊天"'], 28)) == [
        "  乙：send",
        '      "用户{甲} 退出聊天"',
    ]
    assert list(folded(['  send "用户{甲} 退出聊天"'], 17)) == [
        "  send",
        '      "用户{甲}',
        '      退出聊天"',
    ]


@given(st.text('ab `"（，。“”(.，甲乙', max_size=60), st.integers(2, 30))
def test_any_text_fits_its_columns_and_stays_whole(text: str, columns: int) -> None:
    lines = filled(text, columns)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width(line) <= columns for line in lines)


def test_columns_stand_straight_beside_wide_characters() -> None:
    lines = list(beside(["甲说", "Ann"], ["a", "b", "c"], 6))
    assert lines == ["甲说   │ a", "Ann    │ b", "       │ c"]


def test_code_is_broken_where_a_reader_would() -> None:
    assert code_wrapped("    first.second(third, fourth)", 26) == [
        "    first.second(third,",
        "            fourth)",
    ]


@pytest.mark.parametrize("columns", range(36, 70))
def test_a_name_in_code_is_broken_only_if_it_is_too_long(columns: int) -> None:
    for lesson in LESSONS:
        for excerpt in excerpts_of(lesson):
            for _, line in excerpt.lines():
                parts = code_wrapped(line, columns)
                assert re.findall(r"\w+", " ".join(parts)) == re.findall(r"\w+", line)
                assert max(map(len, parts)) <= columns


@pytest.mark.parametrize("columns", [80, 116])
def test_code_beside_or_below_its_events_is_whole(columns: int, played: Any) -> None:
    for number in NUMBERS:
        for scene in played(number, "select"):
            told = list(Show("en", columns).scene(scene))
            for excerpt in scene.step.code:
                if "select" in (excerpt.loops or ("select",)):
                    for at, line in excerpt.lines():
                        shown = f"{at or '':>4}  {line}".rstrip()
                        assert any(each.endswith(shown) for each in told), shown


def test_turns_that_look_alike_are_counted(played: Any) -> None:
    first, _, third = played(5, "select")[:3]
    for scene in (first, third):
        told = "\n".join(Show("en", 80).scene(scene))
        (counted, *_) = re.findall(r"… (\d+) more like it …", told)
        assert int(counted) > 1
        turns = re.split(r"(?m)^turn \d+: ", told)[1:]
        shapes = [re.sub(r"[\d,]+", "0", each) for each in turns]
        assert len(set(shapes)) == len(shapes)


def test_turn_that_first_shows_an_interest_is_shown(played: Any) -> None:
    told = "\n".join(Show("en", 80).scene(played(5, "select")[2]))
    assert "  interest of Bob: read and write" in told


def test_lesson_shows_the_code_of_the_waiter_that_serves(played: Any) -> None:
    first, second = played(9, "select")[:2]
    assert "ac_gather = False" in "\n".join(Show("en", 80).scene(first))
    told = "\n".join(Show("en", 80).scene(second))
    assert "ac_gather = True" in told
    assert "ac_gather = False" not in told
    assert "EagerWaiter" not in told


# The command line.


@pytest.fixture(autouse=True)
def no_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set English, independent of the environment."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "COMPAT_LOOP"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "lang"),
    [
        ("", "en"),
        ("LANG=zh_CN.UTF-8", "zh"),
        ("LANG=en_US.UTF-8 LC_MESSAGES=zh_CN", "zh"),
        ("LANG=zh_CN.UTF-8 LC_MESSAGES=de_DE", "en"),
        ("LC_MESSAGES=en_GB LC_ALL=zh_TW.Big5", "zh"),
        ("LC_ALL=C LANG=zh_CN.UTF-8", "en"),
        ("LANG=zh_CN.UTF-8 LC_ALL=", "zh"),
        ("LANGUAGE=zh LANG=en_US.UTF-8", "zh"),
        ("LANGUAGE=en:zh LANG=zh_CN.UTF-8", "en"),
        ("LANGUAGE=fr:zh_CN:en LANG=C.UTF-8", "en"),
        ("LANGUAGE=fr:zh_CN:en LANG=de_DE.UTF-8", "zh"),
        ("LANGUAGE=fr LANG=zh-CN", "zh"),
        ("LANGUAGE=zh_CN", "zh"),
        ("LANGUAGE=zh LC_ALL=POSIX", "en"),
        ("LANG=zhuang", "en"),
    ],
)
def test_list_is_in_the_language_of_the_environment(
    environment: str,
    lang: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for each in environment.split():
        monkeypatch.setenv(*each.split("="))
    assert main(["lesson"]) == 0
    assert cli.LIST.said_in(lang) in capsys.readouterr().out
    assert main(["lesson", "--lang", "en"]) == 0
    assert cli.LIST.en in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "environment", "loop", "other"),
    [
        ([], "", "select", "selectors"),
        (["--loop", "selectors"], "", "selectors", "select"),
        (["--loop", "auto"], "", compat.choose("auto").name, None),
        ([], "poll", "poll", "select"),
    ],
)
def test_lesson_of_the_descriptor_shows_its_trap(
    asked: list[str],
    environment: str,
    loop: str,
    other: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COMPAT_LOOP", environment)
    assert main(["lesson", "6", *asked]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"on the loop {loop} " in out
    assert ("closes a channel that had done nothing wrong" in out) == (
        loop != "selectors"
    )
    if other:
        assert f"ends otherwise: legacy-chat lesson 6 --loop {other} " in out


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_list_has_every_lesson(
    lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lesson", "--lang", lang]) == 0
    out = capsys.readouterr().out
    for number, lesson in enumerate(LESSONS, 1):
        assert f"  {number}  {lesson.title.said_in(lang)}\n" in out


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_lesson_ends_with_its_trace_a_question_and_the_answer(
    lang: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.trace"
    argv = ["lesson", "2", "--lang", lang, "--loop", "poll", "--trace", str(kept)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    words = ("trace", "question", "answer", "remember")
    at = [out.index(f"── {render.WORDS[word].said_in(lang)} ──") for word in words]
    assert at == sorted(at)
    assert "ChatSession#2.handle_read()" in out[at[0] : at[1]]
    assert ("有通道就绪" if lang == "zh" else "ready to read") in out[at[0] : at[1]]
    assert "hellou" not in out[: at[1]]
    assert any(turn.loop == "poll" for turn in read_trace(kept))


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("columns", [40, 60, 100])
def test_all_of_a_lesson_fits_into_the_terminal(
    columns: int,
    lang: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["lesson", "--lang", lang]) == 0
    assert main(["lesson", "2", "--lang", lang]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ChatSession#2.handle_read(" in "".join(lines)
    assert max(map(width, lines)) <= columns


@pytest.mark.parametrize(
    ("number", "begins", "next_begins"), [(5, "turn 3", "turn "), (9, "turn 2", "  ")]
)
def test_shown_trace_begins_at_the_step_and_ends_with_a_turn(
    number: int,
    begins: str,
    next_begins: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    kept = tmp_path / "kept.trace"
    assert main(["lesson", str(number), "--trace", str(kept)]) == 0
    out = capsys.readouterr().out
    shown = out[out.index("── The trace") : out.index("── Question")].splitlines()
    reader = Reader()
    whole = [
        line.rstrip()
        for turn in read_trace(kept, reader)
        for line in lines(turn, reader, columns=110)
    ]
    _, named, *told, note, empty = shown
    assert named.startswith("Ann is ")
    assert told[0].startswith(begins)
    assert cli.TRACE_LINES // 2 <= len(told) <= cli.TRACE_LINES
    # A line with a count replaces turns that look alike.
    left = iter(whole)
    assert all(line in left for line in told if not line.startswith("… "))
    assert (next(left)[: len(next_begins)], empty) == (next_begins, "")
    assert re.match("… [0-9]+ more lines: ", note)


def test_trace_names_the_actors_of_its_channels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert main(["lesson", "3"]) == 0
    told = capsys.readouterr().out.split("── The trace ──\n")[1]
    assert told.startswith("Ann is ChatSession#2, Bob is ChatSession#3, Cid is ")
    assert main(["lesson", "1", "--lang", "zh"]) == 0
    told = capsys.readouterr().out.split("── 跟踪记录 ──\n")[1]
    assert told.startswith("甲是 ChatSession#2\n第一轮之前\n  ChatServer#1 已打开")


def test_coloured_trace_names_the_actors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "is_coloured", lambda _: True)
    assert main(["lesson", "3"]) == 0
    told = capsys.readouterr().out.split("── The trace ──\n")[1]
    assert told.startswith("Ann is ChatSession#2, Bob is ChatSession#3, Cid is ")


def test_the_trace_of_a_lesson_is_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("compat.trace.render.html")
    page = tmp_path / "lesson.html"
    assert main(["lesson", "4", "--lang", "zh", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "半个汉字" in text
    assert "ChatSession" in text
    assert str(page) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["10"], "'10' is no lesson: there are 1 to 9"),
        (["hello"], "'hello' is no lesson: there are 1 to 9"),
        (["2", "--loop", "epoll"], "loop='epoll' is none of auto, select"),
        (["2", "--lang", "fr"], "invalid choice: 'fr'"),
        (
            ["--html", "a.html"],
            "--html a.html needs the number of a lesson: "
            "legacy-chat lesson NUMBER --html a.html",
        ),
        (["--lang", "zh", "--trace", "a"], "--trace a needs the number of a lesson"),
        (["--loop", "poll"], "--loop poll needs the number of a lesson"),
        (["2", "--html="], "argument --html: '' is no file: name one"),
        (["2", "--trace", "-"], "argument --trace: '-' is no file: name one"),
        (["2", "--trace", "a", "--html", "./a"], "are both ./a: name two files"),
    ],
)
def test_invalid_arguments_give_one_line(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["lesson", *argv])
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def test_a_shown_line_that_somebody_has_changed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "inspect.getsourcelines", lambda function: (["def changed():\n"], 1)
    )
    assert main(["lesson", "2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("legacy-chat lesson: lesson 2: legacy_chat/session.py  Chat")


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing" / "lesson.trace"
    assert main(["lesson", "1", "--trace", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"legacy-chat lesson: lesson 1: {path}: No such file or directory\n"


def test_a_device_that_takes_no_trace_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert main(["lesson", "1", "--trace", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("legacy-chat lesson: lesson 1: /dev/full: No space left on device\n")


@pytest.mark.parametrize("argv", [[], ["1"]])
def test_without_a_standard_output_a_lesson_says_so(
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["lesson", *argv]) == 1
    assert capsys.readouterr().err == (
        "legacy-chat lesson: standard output is closed\n"
    )


def test_lesson_without_resource_limits_says_why_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(out_of_descriptors, "resource", None)
    assert main(["lesson", "8"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "legacy-chat lesson: lesson 8: this system has no limit on descriptors that "
        "a program could lower\n"
    )


GO_ON = "[Space or Enter: go on, q: quit] "
ANSWER = "[Space or Enter: the answer, q: quit] "
KEYS = [b" ", b"\r", b"\x04"]


@pytest.mark.parametrize("key", KEYS)
def test_at_a_terminal_the_answer_waits_for_a_key(key: bytes) -> None:
    with at_a_terminal("3", rows=1000) as terminal:
        shown = b"".join(read_until(terminal, ANSWER.encode()))
        assert b"Back in the first kind of room" in shown
        assert b"It was in the same read" not in shown
        # An arrow key and a letter: neither continues the lesson.
        os.write(terminal, b"\x1b[Bx" + key)
        answer = b"".join(read_until(terminal, b"Next: legacy-chat lesson 4"))
        assert answer.startswith(erased(ANSWER))
        assert b"It was in the same read" in answer


@pytest.mark.parametrize(("number", "rows", "columns"), [("1", 24, 80), ("9", 15, 40)])
def test_at_a_terminal_nothing_scrolls_away_unread(
    number: str, rows: int, columns: int
) -> None:
    screens: list[str] = []
    with at_a_terminal(number, rows=rows, columns=columns) as terminal:
        while not screens or screens[-1].endswith("] "):
            if screens:
                os.write(terminal, b" ")
            screens.append(read_screen(terminal).decode())
    told = "".join(screens)
    assert told.count(ANSWER) == 1
    assert told.count(GO_ON) == len(screens) - 2 > 4
    # What is still on the screen of a prompt is not more than it has rows.
    assert max(each.count("\n") for each in screens) < rows
    for prompt in (GO_ON, ANSWER):
        told = told.replace(prompt + erased(prompt).decode(), "")
    whole = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "legacy_chat", "lesson", number],
        capture_output=True,
        check=True,
        env={**os.environ, "COLUMNS": str(columns)},
    ).stdout
    assert without_figures(told.encode()) == without_figures(whole)


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"])
def test_at_a_pause_the_reader_can_leave(key: bytes) -> None:
    with at_a_terminal("1", rows=24) as terminal:
        assert read_screen(terminal).endswith(GO_ON.encode())
        os.write(terminal, key)
        assert read_screen(terminal) == erased(GO_ON)


@pytest.mark.parametrize("end", [b"q", b" ", signal.SIGTERM, signal.SIGHUP])
def test_lesson_restores_the_terminals_settings(end: bytes | signal.Signals) -> None:
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-W", "ignore", "-m", "legacy_chat", "lesson", "3"]
    lesson = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        env={**os.environ, "LINES": "1000", "COLUMNS": "80"},
    )
    b"".join(read_until(ours, b"the answer, q: quit] "))
    assert termios.tcgetattr(theirs) != before
    if isinstance(end, bytes):
        os.write(ours, end)
    else:
        lesson.send_signal(end)
    while lesson.poll() is None:
        # What it still writes has to go somewhere.
        if select.select([ours], [], [], 0.05)[0]:
            os.read(ours, 65536)
    assert lesson.returncode == 0
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_lesson_takes_single_keys_again_after_a_stop() -> None:
    termios = pytest.importorskip("termios")
    with at_a_terminal("1", rows=24) as terminal:
        assert read_screen(terminal).endswith(GO_ON.encode())
        pid = os.tcgetpgrp(terminal)
        shell = termios.tcgetattr(terminal)
        shell[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, shell)
        os.kill(pid, signal.SIGCONT)
        while termios.tcgetattr(terminal)[3] & termios.ICANON:
            pass
        os.write(terminal, b"q")
        assert read_screen(terminal) == erased(GO_ON)


def erased(prompt: str) -> bytes:
    """What erases it."""
    return b"\r" + b" " * len(prompt) + b"\r"


def test_without_pauses_a_terminal_gets_all_at_once() -> None:
    with at_a_terminal("3", "--no-pause", rows=24) as terminal:
        told = b"".join(read_until(terminal, b"Next: legacy-chat lesson 4"))
    assert b"It was in the same read" in told
    assert b"Enter" not in told


@contextlib.contextmanager
def at_a_terminal(*argv: str, rows: int, columns: int = 110) -> Iterator[int]:
    """Run a lesson in a terminal; yield the other side; check the exit status."""
    pty = pytest.importorskip("pty")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(LINES=str(rows), COLUMNS=str(columns), NO_COLOR="1")
        code = "from legacy_chat.cli import main; raise SystemExit(main())"
        os.execv(
            sys.executable,
            [sys.executable, "-W", "ignore", "-c", code, "lesson", *argv],
        )
    try:
        yield terminal
        # Until it closes the terminal, it could not write what is left.
        b"".join(read_until(terminal, b"\0"))
    finally:
        os.close(terminal)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0


def without_figures(told: bytes) -> list[list[str]]:
    """Return the words without numbers, which differ each time."""
    lines = told.decode().splitlines()
    return [re.sub(r"[0-9.,]+ ?(µs|ms)?", "", line).split() for line in lines if line]


def read_until(terminal: int, wanted: bytes) -> Iterator[bytes]:
    """Return what the terminal receives up to that text, or to the end."""
    seen = b""
    while wanted not in seen:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            # Linux says so of the end.
            return
        if not data:
            return
        seen += data
        yield data


def read_screen(terminal: int) -> bytes:
    """Return what the terminal receives up to a prompt, or to the end."""
    seen = b""
    while not seen.endswith((GO_ON.encode(), ANSWER.encode())):
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    return seen


def is_found_out(number: int, loop: str, trace: Path) -> bool:
    """Return whether a claim of that lesson fails, or its scenario."""
    try:
        scenes = play(LESSONS[number - 1], loop, trace)
    except StageError:
        return True
    return not all(holds for scene in scenes for _, holds in scene.claims())


def said_in_lessons() -> Iterator[Text]:
    """Return all paragraphs of all lessons."""
    return (text for lesson in LESSONS for text in texts_of(lesson))


def excerpts_of(lesson: Lesson) -> Iterator[Excerpt]:
    """Return all code that the lesson shows."""
    return (each for step in (*lesson.steps, lesson.answer) for each in step.code)


def texts_of(lesson: Lesson) -> Iterator[Text]:
    """Return all texts of the lesson."""
    yield from (lesson.title, lesson.begins, lesson.question, lesson.ends)
    for step in (*lesson.steps, lesson.answer):
        yield step.text
        yield from (claim.text for claim in step.claims)


def count_descriptors() -> int:
    """Return the number of this process's descriptors, where the system has it."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
