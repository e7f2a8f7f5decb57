"""Line breaks: Chinese punctuation, code and words stay in one piece."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.trace.render.formatting import width
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.cjk_wrap import fill, fold, side_by_side, wrap_code
from tests.legacy_chat.lessons.support import all_texts, excerpts_of


def test_chinese_breaks_except_before_closing_punctuation() -> None:
    lines = fill("“就绪”只是提示，不是保证。就绪，就绪。", 10)
    assert all(width(line) <= 10 for line in lines)
    assert not any(line[0] in "，。”" for line in lines)
    assert "".join(lines) == "“就绪”只是提示，不是保证。就绪，就绪。"


@pytest.mark.parametrize("columns", range(40, 121, 4))
def test_words_of_lessons_are_never_broken(columns: int) -> None:
    for text in all_texts():
        lines = fill(text.en, columns)
        assert " ".join(lines).split() == text.en.split()
        assert max(map(width, lines)) <= columns


@pytest.mark.parametrize("columns", range(40, 121, 4))
def test_chinese_of_lessons_breaks_neither_code_nor_rules(columns: int) -> None:
    for text in all_texts():
        lines = fill(text.zh, columns)
        assert not any(line[0] in "，。、；：？！）”》」…,.)" for line in lines)
        assert not any(line[-1] in "（“《「(" for line in lines)
        assert re.findall("`[^`]*`", "\n".join(lines)) == re.findall("`[^`]*`", text.zh)
        assert "".join("".join(lines).split()) == "".join(text.zh.split())


def test_full_stop_stays_with_the_code_before_it() -> None:
    assert fill("The `o` stays in `ac_in_buffer`.", 31) == [
        "The `o` stays in",
        "`ac_in_buffer`.",
    ]


def test_quoted_message_is_wrapped_only_if_it_is_too_long() -> None:
    assert list(fold(['  乙：send "用户{甲} 退出聊天"'], 28)) == [
        "  乙：send",
        '      "用户{甲} 退出聊天"',
    ]
    assert list(fold(['  send "用户{甲} 退出聊天"'], 17)) == [
        "  send",
        '      "用户{甲}',
        '      退出聊天"',
    ]


@given(st.text('ab `"（，。“”(.，甲乙', max_size=60), st.integers(2, 30))
def test_any_text_fits_its_columns_and_stays_complete(text: str, columns: int) -> None:
    lines = fill(text, columns)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width(line) <= columns for line in lines)


def test_columns_are_aligned_with_wide_characters() -> None:
    lines = list(side_by_side(["甲说", "Ann"], ["a", "b", "c"], 6))
    assert lines == ["甲说   │ a", "Ann    │ b", "       │ c"]


def test_code_breaks_after_a_comma() -> None:
    assert wrap_code("    first.second(third, fourth)", 26) == [
        "    first.second(third,",
        "            fourth)",
    ]


@pytest.mark.parametrize("columns", range(36, 70))
def test_names_in_code_of_lessons_are_never_broken(columns: int) -> None:
    for lesson in LESSONS:
        for excerpt in excerpts_of(lesson, "select"):
            for _, line in excerpt.lines():
                parts = wrap_code(line, columns)
                assert re.findall(r"\w+", " ".join(parts)) == re.findall(r"\w+", line)
                assert max(map(len, parts)) <= columns
