"""A test's name is unit, condition and outcome, and stands alone."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support import ROOT

FILES = sorted((ROOT / "tests").rglob("test_*.py"))

# Characters of a name, ``test_`` included.
LONGEST = 60

# Words at the beginning of a name that do not name its unit.
NO_UNIT = {
    "however",
    "it",
    "nobody",
    "nothing",
    "so",
    "what",
    "whatever",
    "who",
    "whoever",
}

# A test of a known difference, by the beginning of the rest of its name.
DIFFERENCE = re.compile(r"`(\w+)…`")


def names(path: Path) -> list[str]:
    """Return the names of the test functions of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node.name for node in ast.walk(tree) if isinstance(node, functions)]
    return [name for name in found if name.startswith("test_")]


def test_modules_of_all_folders_have_names() -> None:
    assert sum(len(names(path)) for path in FILES) > 1000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_begin_with_their_unit_and_are_short(path: Path) -> None:
    named = names(path)
    assert [name for name in named if len(name) > LONGEST] == []
    assert [name for name in named if name.split("_")[1] in NO_UNIT] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_are_unique_in_their_module(path: Path) -> None:
    assert [name for name, count in Counter(names(path)).items() if count > 1] == []


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_rows_of_known_differences_name_their_tests(readme: str) -> None:
    begin = "test_known_difference_"
    tests = [name for path in FILES for name in names(path) if name.startswith(begin)]
    rows = DIFFERENCE.findall((ROOT / readme).read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert any(name.startswith(begin + row) for name in tests), row
    for name in tests:
        assert any(name.startswith(begin + row) for row in rows), name
