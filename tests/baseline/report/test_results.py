"""Results for people, for programs, and for a CI server."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from legacy_chat.baseline import Action, Received, Result
from legacy_chat.baseline.model.compare import Mismatch
from legacy_chat.baseline.report.results import (
    as_json,
    lines,
    status,
    summary,
    write_junit,
)

WRONG = Mismatch(
    3, Action("a", "send", b"\0hi"), {"b": Received(b"x")}, {"b": Received(b"\xff")}
)
SAME = Result("k1", "poll", 7, 0.25)
DIFFERENT = Result("k2", "poll", 3, difference=WRONG)
ERROR = Result("k3", error="no server")
SKIPPED = Result("r8", skipped="no ::1")
ALL = [SAME, DIFFERENT, ERROR, SKIPPED]


def test_text_report_shows_all_but_equal_results() -> None:
    assert list(lines(SAME)) == []
    assert next(iter(lines(DIFFERENT))) == 'k2 on poll, step 3: a sends "\\x00hi"'
    assert list(lines(ERROR)) == ["k3: could not be played: no server"]
    assert list(lines(SKIPPED)) == ["r8: skipped: no ::1"]


def test_summary_counts_each_outcome() -> None:
    assert summary(ALL, 2) == (
        "4 conversations: 1 the same, 1 different, 1 could not be played, 1 skipped, "
        "in 2.0 s"
    )


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([SAME], 0),
        ([SAME, SKIPPED], 0),
        ([SAME, DIFFERENT], 1),
        ([DIFFERENT, ERROR], 2),
        ([SKIPPED], 2),
    ],
)
def test_status_follows_from_the_outcomes(results: list[Result], code: int) -> None:
    assert status(results) == code


def test_json_report_has_outcomes_and_differences() -> None:
    read = json.loads(as_json(ALL, 2.0))
    assert read["outcomes"] == dict.fromkeys(
        ("same", "different", "error", "skipped"), 1
    )
    assert read["results"][1]["difference"]["clients"]["b"] == {
        "recorded": {"got": "x", "end": ""},
        "now": {"got": {"base64": "/w=="}, "end": ""},
        "byte": 0,
    }


def test_junit_report_has_counts_and_failures(tmp_path: Path) -> None:
    write_junit(tmp_path / "report.xml", ALL, 2.0)
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert {
        key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")
    } == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {"k1": [], "k2": ["failure"], "k3": ["error"], "r8": ["skipped"]}
    assert '"\\xff"' in (suite.findtext("testcase/failure") or "")
