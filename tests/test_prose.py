"""A test's name is unit, condition and outcome, and stands alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.prose import files, findings, name_findings, names
from tests.support import ROOT

FILES = sorted((ROOT / "tests").rglob("test_*.py"))


def test_modules_of_all_folders_have_names() -> None:
    assert sum(len(names(path)) for path in FILES) > 1000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_begin_with_their_unit_and_are_short(path: Path) -> None:
    assert list(name_findings(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_are_unique_in_their_module(path: Path) -> None:
    assert [name for name, count in Counter(names(path)).items() if count > 1] == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("# Who comes is accepted.", '"Who"'),
        ("x = 'a client that is no member'", '"is no"'),
        ('"""Send what is queued."""', '"what"'),
        ("# Each has a lock of its own.", '"of its own"'),
        ("# The peers hear\n# nothing.", '"hear"'),
        ("f'nobody reads {x}'", '"nobody"'),
    ],
)
def test_banned_phrase_is_found(tmp_path: Path, text: str, finding: str) -> None:
    path = tmp_path / "example.py"
    path.write_text(text + "\n", encoding="utf-8")
    [(line, words)] = findings(path)
    assert line == 1
    assert words.startswith(finding)


@pytest.mark.parametrize(
    "text",
    [
        "# Which client is it? What does it send?",
        '# `who` and "what" are code and quotes.',
        "who = what = 'who'",
        "x = b'who hears what'",
        "# There is no timer, and it is no longer needed.",
    ],
)
def test_code_quotes_and_questions_are_not_findings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "example.py"
    path.write_text(text + "\n", encoding="utf-8")
    assert list(findings(path)) == []


def test_long_sentence_of_a_readme_is_found(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("Short.\n\n" + "word " * 31 + "end.\n", encoding="utf-8")
    [(line, words)] = findings(path)
    assert words.startswith("32 words")
    assert line in (2, 3)


def test_no_file_has_a_finding() -> None:
    found = {path: list(findings(path)) for path in files([ROOT])}
    assert len(found) > len(FILES)
    assert {path: texts for path, texts in found.items() if texts} == {}
