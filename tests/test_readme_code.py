"""READMEs agree with the code: named files, functions, changes and tests exist."""

from __future__ import annotations

import ast
import asyncore
import re
from pathlib import Path

import pytest

import compat
import legacy_chat
from legacy_chat.lessons import LESSONS
from tests.prose import names
from tests.readmes import (
    CODE,
    LINK,
    NAME,
    chinese,
    has_name,
    module,
    section,
    target,
    text_of,
)
from tests.support import ROOT

READ_IT = [
    ("compat/README.md", "Read it in an hour"),
    ("compat/README.zh-CN.md", "Read it in an hour"),
]

# Words that look like names: a letter of a message, asyncore's word for a dict.
WORDS = ("o", "map")

# A test of a known difference, by the beginning of the rest of its name.
DIFFERENCE = re.compile(r"`(\w+)…`")
BEGIN = "test_known_difference_"

ROOM = "legacy_chat/README.md"

TESTS = [name for path in (ROOT / "tests").rglob("test_*.py") for name in names(path)]


@pytest.mark.parametrize(("page", "title"), READ_IT)
def test_files_to_read_define_the_names_listed_for_them(page: str, title: str) -> None:
    read_it = section(page, title)
    files, _ = read_it.tables()
    assert (len(files), len(read_it.items())) == (10, 8)
    for each in [*files, *read_it.items()]:
        links = LINK.findall(each)
        modules = [module(page, link) for link in links]
        paths = re.findall(r"\[`([^`]+)`\]", each)
        for code in CODE.findall(each):
            if code in paths or not NAME.fullmatch(code) or code in compat.LOOPS:
                continue
            if code.startswith("asyncore."):
                assert has_name([asyncore], code.removeprefix("asyncore."))
                continue
            assert has_name(modules, code) or code in WORDS, (code, each)


@pytest.mark.parametrize(("page", "title"), READ_IT)
def test_paths_shown_in_links_are_their_targets(page: str, title: str) -> None:
    for shown, link in re.findall(r"\[`([\w/]+\.py)`\]\(([^)]+)\)", text_of(page)):
        assert target(page, link).resolve().as_posix().endswith(shown)


@pytest.mark.parametrize(("page", "title"), READ_IT)
def test_minutes_of_the_files_to_read_make_an_hour(page: str, title: str) -> None:
    files, _ = section(page, title).tables()
    assert sum(int(row.split("|")[1]) for row in files) == 60


@pytest.mark.parametrize(("page", "title"), READ_IT)
def test_chart_of_a_message_names_functions_that_exist(page: str, title: str) -> None:
    read_it = section(page, title)
    links = [link for link in LINK.findall(read_it.prose) if "test" not in link]
    modules = [module(page, link) for link in links]
    [(language, chart)] = read_it.blocks
    named = re.findall(r'\["([\w.]+)"\]', chart)
    assert language == "mermaid"
    assert len(named) > 8
    assert [each for each in named if not has_name(modules, each)] == []


@pytest.mark.parametrize(("page", "title"), READ_IT)
def test_suggested_changes_and_their_tests_exist(page: str, title: str) -> None:
    _, changes = section(page, title).tables()
    for row in changes:
        _, where, old, new, _, notices, _ = row.split("|")
        [link] = LINK.findall(where)
        [code] = CODE.findall(old)
        assert target(page, link).read_text(encoding="utf-8").count(code) == 1, code
        for change in CODE.findall(new):
            ast.parse(change if not change.startswith("if ") else change + ": pass")
        tests = "".join(
            target(page, each).read_text(encoding="utf-8")
            for each in LINK.findall(notices)
        )
        named = re.findall(r"`(test_\w+)`", notices)
        assert named
        assert [each for each in named if f"def {each}(" not in tests] == []


@pytest.mark.parametrize("page", ["compat/README.md", "compat/README.zh-CN.md"])
def test_rows_of_known_differences_name_their_tests(page: str) -> None:
    tests = [name for name in TESTS if name.startswith(BEGIN)]
    rows = DIFFERENCE.findall(text_of(page))
    assert rows
    for row in rows:
        assert any(name.startswith(BEGIN + row) for name in tests), row
    for name in tests:
        assert any(name.startswith(BEGIN + row) for row in rows), name


@pytest.mark.parametrize(
    "page", ["legacy_chat/README.md", "legacy_chat/README.zh-CN.md"]
)
def test_rows_of_security_guarantees_name_tests_that_exist(page: str) -> None:
    [table] = section(page, "Security").tables()
    for row in table:
        named = re.findall(r"`(test_\w+)`", row.split("|")[3])
        assert named, row
        assert set(named) <= set(TESTS)


def test_lessons_listed_are_those_of_the_package() -> None:
    page = "legacy_chat/lessons/README.md"
    english = [each.lower() for each in section(page, "The nine lessons").items()]
    assert english == [lesson.title.en.lower() for lesson in LESSONS]
    translated = section(chinese(page), "The nine lessons").items()
    assert translated == [
        lesson.title.zh.replace("，还是", "还是") for lesson in LESSONS
    ]


@pytest.mark.parametrize("title", ["Limits and their options", "TLS"])
def test_log_lines_in_tables_consist_of_words_of_the_code(title: str) -> None:
    folders = [Path(str(package.__file__)).parent for package in (compat, legacy_chat)]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    texts = [str(node.value) for node in nodes if isinstance(node, ast.Constant)]
    known = set(re.findall(r"[a-zA-Z]{3,}", "\n".join(texts)))
    [table] = section(ROOM, title).tables()
    lines = [line for row in table for line in CODE.findall(row.split("|")[-2])]
    assert len(lines) > 3
    for line in lines:
        words = set(re.findall(r"(?<!\{)\b[a-zA-Z]{3,}", line))
        assert words <= known, line
