"""``legacy-chat lesson``: the list, the options, the errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import compat
from compat.trace.reader import Reader, read_trace
from compat.trace.render.formatting import width
from compat.trace.render.messages import LANGUAGES
from compat.trace.render.text import lines
from legacy_chat.cli import main
from legacy_chat.lessons import LESSONS, cli, out_of_descriptors
from legacy_chat.lessons.engine.lesson import Claim, Lesson, Step, Text
from legacy_chat.lessons.engine.phrases import PHRASES
from legacy_chat.lessons.engine.render import MAX_TRACE


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
    assert cli.LIST.in_language(lang) in capsys.readouterr().out
    assert main(["lesson", "--lang", "en"]) == 0
    assert cli.LIST.en in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "environment", "loop", "other"),
    [
        ([], "", "select", "selectors"),
        (["--loop", "selectors"], "", "selectors", "select"),
        (["--loop", "auto"], "", compat.choose("auto").name, None),
        ([], "poll", "poll", "select"),
    ],
)
def test_descriptor_lesson_runs_on_select_by_default(
    arguments: list[str],
    environment: str,
    loop: str,
    other: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COMPAT_LOOP", environment)
    assert main(["lesson", "6", *arguments]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"on the loop {loop} " in out
    assert ("closes a channel that did nothing wrong" in out) == (loop != "selectors")
    if other:
        assert f"gives another result: legacy-chat lesson 6 --loop {other} " in out


@pytest.mark.parametrize("lang", LANGUAGES)
def test_list_has_every_lesson(lang: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lesson", "--lang", lang]) == 0
    out = capsys.readouterr().out
    for number, lesson in enumerate(LESSONS, 1):
        assert f"  {number}  {lesson.title.in_language(lang)}\n" in out


@pytest.mark.parametrize("lang", LANGUAGES)
def test_lesson_ends_with_trace_question_and_answer(
    lang: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "lesson.trace"
    argv = ["lesson", "2", "--lang", lang, "--loop", "poll", "--trace", str(trace)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    words = ("trace", "question", "answer", "summary")
    at = [out.index(f"── {PHRASES[word].in_language(lang)} ──") for word in words]
    assert at == sorted(at)
    assert "ChatSession#2.handle_read()" in out[at[0] : at[1]]
    assert ("有通道就绪" if lang == "zh" else "ready to read") in out[at[0] : at[1]]
    assert "hellou" not in out[: at[1]]
    assert any(turn.loop == "poll" for turn in read_trace(trace))


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("columns", [40, 60, 100])
def test_output_fits_the_terminal(
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
    trace = tmp_path / "lesson.trace"
    assert main(["lesson", str(number), "--trace", str(trace)]) == 0
    out = capsys.readouterr().out
    shown = out[out.index("── The trace") : out.index("── Question")].splitlines()
    reader = Reader()
    whole = [
        line.rstrip()
        for turn in read_trace(trace, reader)
        for line in lines(turn, reader, columns=110)
    ]
    _, named, *traced, note, empty = shown
    assert named.startswith("Ann is ")
    assert traced[0].startswith(begins)
    assert MAX_TRACE // 2 <= len(traced) <= MAX_TRACE
    # A line with a count replaces turns that look alike.
    left = iter(whole)
    assert all(line in left for line in traced if not line.startswith("… "))
    assert (next(left)[: len(next_begins)], empty) == (next_begins, "")
    assert re.match("… [0-9]+ more lines: ", note)


def test_trace_names_the_peers_of_its_channels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert main(["lesson", "3"]) == 0
    traced = capsys.readouterr().out.split("── The trace ──\n")[1]
    assert traced.startswith("Ann is ChatSession#2, Bob is ChatSession#3, Cid is ")
    assert main(["lesson", "1", "--lang", "zh"]) == 0
    traced = capsys.readouterr().out.split("── 跟踪记录 ──\n")[1]
    assert traced.startswith("甲是 ChatSession#2\n第一轮之前\n  ChatServer#1 已打开")


def test_coloured_trace_names_the_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "is_coloured", lambda _: True)
    assert main(["lesson", "3"]) == 0
    traced = capsys.readouterr().out.split("── The trace ──\n")[1]
    assert traced.startswith("Ann is ChatSession#2, Bob is ChatSession#3, Cid is ")


def test_html_option_writes_the_trace_as_a_page(
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
    ("argv", "message"),
    [
        (["10"], "NUMBER must be 1 to 9, got '10'"),
        (["hello"], "NUMBER must be 1 to 9, got 'hello'"),
        (["2", "--loop", "epoll"], "loop='epoll' is none of auto, select"),
        (["2", "--lang", "fr"], "invalid choice: 'fr'"),
        (
            ["--html", "a.html"],
            "--html a.html needs a lesson: legacy-chat lesson NUMBER --html a.html",
        ),
        (["--lang", "zh", "--trace", "a"], "--trace a needs a lesson"),
        (["--loop", "poll"], "--loop poll needs a lesson"),
        (["2", "--html="], "argument --html: FILE must be the name of a file, got ''"),
        (
            ["2", "--trace", "-"],
            "FILE must be the name of a file, got '-'",
        ),
        (
            ["2", "--trace", "a", "--html", "./a"],
            "--html and --trace must be two files, got ./a",
        ),
    ],
)
def test_invalid_arguments_give_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["lesson", *argv])
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_changed_code_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "inspect.getsourcelines", lambda function: (["def changed():\n"], 1)
    )
    assert main(["lesson", "2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("legacy-chat lesson: lesson 2: legacy_chat/session.py  Chat")


def test_file_that_cannot_be_opened_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing" / "lesson.trace"
    assert main(["lesson", "1", "--trace", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"legacy-chat lesson: lesson 1: {path}: No such file or directory\n"


def test_full_device_is_an_error_of_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert main(["lesson", "1", "--trace", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("legacy-chat lesson: lesson 1: /dev/full: No space left on device\n")


@pytest.mark.parametrize("argv", [[], ["1"]])
def test_closed_standard_output_is_an_error(
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["lesson", *argv]) == 1
    assert capsys.readouterr().err.endswith(": standard output is closed\n")


def test_lesson_8_without_resource_limits_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(out_of_descriptors, "resource", None)
    assert main(["lesson", "8"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "legacy-chat lesson: lesson 8: this system has no limit on descriptors\n"
    )


def test_false_claim_is_reported_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Claim("Pigs fly.", "猪会飞。", lambda run: False)
    step = Step(
        "A step.", "一步。", lambda harness: harness.open_room() and None, wrong
    )
    text = Text("A text.", "文字。")
    lesson = Lesson(text, text, step, question=text, answer=step, summary=text)
    monkeypatch.setattr(cli, "LESSONS", (lesson,))
    assert main(["lesson", "1"]) == 1
    out, err = capsys.readouterr()
    assert "✗ NOT TRUE HERE: Pigs fly." in out
    assert err.splitlines() == [
        "legacy-chat lesson: lesson 1: it is wrong here, please report it: Pigs fly."
    ]
