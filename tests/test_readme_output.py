"""READMEs show the output that the programs print today."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from compat.trace import doctor
from compat.trace.model import Turn
from compat.trace.reader import Reader, read_trace
from compat.trace.render.mermaid import diagram
from compat.trace.render.text import lines
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.runner import run_lesson
from tests.readmes import section

LESSON = section("legacy_chat/lessons/README.md", "Lesson 2")
DIAGNOSIS = section("compat/trace/README.md", "A diagnosis")


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Turn], Any, Reader]:
    """Return turns 3 and 4 of lesson 2, its peers' ports, and the reader."""
    trace = tmp_path_factory.mktemp("readme") / "hello.trace"
    first, *_ = run_lesson(LESSONS[1], "selectors", trace)
    reader = Reader()
    turns = [turn for turn in read_trace(trace, reader) if turn.number in (3, 4)]
    return turns, first.ports, reader


def test_diagram_is_drawn_from_the_lesson(
    hello: tuple[list[Turn], Any, Reader],
) -> None:
    turns, ports, reader = hello
    drawn = re.sub(r", waited [\d.]+ \w+", "", diagram(turns, reader))
    for name, port in ports.items():
        peer = name.title()
        drawn = drawn.replace(f"用户127.0.0.1{port}", f"用户#123;{peer}#125;")
        drawn = drawn.replace(f"127.0.0.1:{port}", peer)
    drawn = re.sub(r"^.*: (BroadcastGroup\.)?push\(.*\n", "", drawn, flags=re.MULTILINE)
    assert drawn == LESSON.blocks[0][1]


def test_text_is_printed_from_the_lesson(
    hello: tuple[list[Turn], Any, Reader],
) -> None:
    turns, _, reader = hello
    printed = "\n".join(lines(turns[0], reader))
    assert _without_varying_parts(LESSON.blocks[1][1]) == _without_varying_parts(
        printed
    )


def _without_varying_parts(text: str) -> list[str]:
    """Return the lines without times, ports and padding, which differ in each run."""
    text = re.sub(r"用户127\.0\.0\.1\d+", "用户", text)
    # A slow machine prints other units, too.
    text = re.sub(r"[\d.]+ (s|µs|ms)\b", "TIME", text)
    text = re.sub(r"\.py:\d+", ".py", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_doctor_still_gives_the_advice_shown() -> None:
    [(_, shown)] = DIAGNOSIS.blocks
    advice = re.findall(r"^   do: (.*)$", shown, re.MULTILINE)
    sources = Path(str(doctor.__file__)).parent.glob("*.py")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    known = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert advice
    assert set(advice) <= known
