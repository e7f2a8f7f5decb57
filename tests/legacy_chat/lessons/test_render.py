"""A rendered lesson: it fits the columns, and code stands beside its events."""

from __future__ import annotations

import re
from typing import Any

import pytest

from compat.trace.render.formatting import width
from compat.trace.render.messages import LANGUAGES
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine import phrases
from legacy_chat.lessons.engine.render import Renderer
from tests.legacy_chat.lessons.support import NUMBERS, steps_of


@pytest.fixture
def rendered(ran: Any) -> Any:
    """Return a function that renders a step of a lesson, by its index."""

    def rendered(number: int, at: int, loop: str, lang: str, columns: int) -> list[str]:
        step, run = steps_of(LESSONS[number - 1])[at], ran(number, loop)[at]
        return list(Renderer(lang, columns).step(step, run))

    return rendered


def test_phrases_have_the_same_blanks_in_all_languages() -> None:
    for texts in (phrases.PHRASES, phrases.NOTES, phrases.NAMES):
        for text in texts.values():
            blanks = [sorted(re.findall(r"{\w+", each)) for each in text]
            assert all(each.strip() for each in text)
            assert blanks[0] == blanks[1]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("columns", [40, 53, 60, 80, 120, 200])
@pytest.mark.parametrize("number", NUMBERS)
def test_lesson_fits_into_the_columns(
    number: int, columns: int, lang: str, ran: Any, rendered: Any
) -> None:
    lesson, renderer = LESSONS[number - 1], Renderer(lang, columns)
    lines = list(renderer.head(number, lesson, "select"))
    for at, step in enumerate(steps_of(lesson)):
        lines += [
            *renderer.number(at + 1),
            *rendered(number, at, "select", lang, columns),
        ]
        packed = "".join("".join(lines).split())
        for claim in step.claims("select"):
            assert "".join(getattr(claim, lang).split()) in packed
    assert max(map(width, lines)) <= columns


def test_events_are_shown_beside_the_code_that_caused_them(
    loop: str, rendered: Any
) -> None:
    lines = [" ".join(line.split()) for line in rendered(2, 0, loop, "en", 110)]
    assert 'Ann sends "hello"' in " ".join(lines)
    (call,) = [line for line in lines if line.startswith("collect_incoming_data")]
    begin = 'collect_incoming_data "hell" │ compat/'
    assert re.match(rf"{re.escape(begin)}\w+\.py LinearReader\.", call)
    assert 'Bob receives "用户{Ann} 说:hell"' in " ".join(lines)


def test_handle_error_is_called_for_an_exception_and_raises_none(rendered: Any) -> None:
    lines = rendered(4, 0, "select", "en", 80)
    assert "  Ann: handle_error for UnicodeDecodeError" in lines
    assert any(
        line.startswith("    collect_incoming_data ")
        and line.endswith(" raises UnicodeDecodeError")
        for line in lines
    )


def test_log_lines_have_the_names_of_the_lesson(rendered: Any) -> None:
    en, zh = (rendered(4, 0, "select", lang, 80) for lang in ("en", "zh"))
    assert "log: 用户{Ann}: closing after an error" in en
    assert "日志：用户{甲}: closing after an error" in zh


def test_step_does_not_show_the_setup_of_the_next_step(rendered: Any) -> None:
    first, second = (rendered(8, at, "select", "en", 80) for at in (0, 1))
    assert "ChatServer" not in "".join(first)
    assert "ChatServer" in "".join(second)


def test_peers_are_listed_with_commas_and_a_conjunction(rendered: Any) -> None:
    assert "(Cid, Dan and Eve in the room)" in rendered(9, -1, "select", "en", 80)
    assert "（聊天室里有丙、丁、戊）" in rendered(9, -1, "select", "zh", 80)


@pytest.mark.parametrize("columns", [80, 116])
@pytest.mark.parametrize("number", NUMBERS)
def test_code_beside_or_below_its_events_is_complete(
    number: int, columns: int, rendered: Any
) -> None:
    for at, step in enumerate(steps_of(LESSONS[number - 1])):
        lines = rendered(number, at, "select", "en", columns)
        for excerpt in step.code("select"):
            for line_number, line in excerpt.lines():
                shown = f"{line_number or '':>4}  {line}".rstrip()
                assert any(each.endswith(shown) for each in lines), shown


@pytest.mark.parametrize("at", [0, 2])
def test_turns_that_look_alike_are_counted(at: int, rendered: Any) -> None:
    text = "\n".join(rendered(5, at, "select", "en", 80))
    (counted, *_) = re.findall(r"… (\d+) more turns like it …", text)
    assert int(counted) > 1
    turns = re.split(r"(?m)^turn \d+: ", text)[1:]
    shapes = [re.sub(r"[\d,]+", "0", each) for each in turns]
    assert len(set(shapes)) == len(shapes)


def test_turn_that_first_shows_an_interest_is_shown(rendered: Any) -> None:
    text = "\n".join(rendered(5, 2, "select", "en", 80))
    assert "  interest of Bob: read+write" in text


def test_lesson_shows_the_code_of_the_waiter_that_serves(rendered: Any) -> None:
    first, second = ("\n".join(rendered(9, at, "select", "en", 80)) for at in (0, 1))
    assert "EagerWaiter" in first
    assert "EagerWaiter" not in second
    assert re.search("ac_[a-z_]+ = False", first)
    assert re.search("ac_[a-z_]+ = True", second)
    assert not re.search("ac_[a-z_]+ = False", second)
