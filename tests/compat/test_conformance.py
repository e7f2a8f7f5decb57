"""CPython's own tests end on each of our loops as on the originals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import conformance
from tests.conformance import ORIGINALS, Report, Run, compare, find_tests, main


@pytest.fixture(scope="module")
def report() -> Report:
    """The report of all runs on the Python that runs this suite."""
    tests = find_tests()
    if tests is None:
        pytest.skip(conformance.MISSING)
    return compare(sys.executable, tests)


def ended(**ways: str) -> Run:
    """Return a run with these outcomes."""
    return Run(ways, {test: f"why {test}" for test in ways})


def test_the_originals_pass_their_tests(report: Report) -> None:
    for name in ORIGINALS:
        run = report.runs[name]
        assert run.broken == ""
        assert run.count()["passed"] > 100
        assert run.entered == 0


def test_each_test_ends_on_each_loop_as_on_the_originals(report: Report) -> None:
    assert report.differences() == []


def test_conformance_runs_enter_our_loop(report: Report, loop: str) -> None:
    assert report.runs[loop].entered > 100


def test_one_more_failure_and_one_more_skip_are_differences() -> None:
    original = ended(a="passed", b="skipped: no", c="errors")
    ours = ended(a="failed", b="skipped: no", c="skipped: yes")
    runs = {**dict.fromkeys(ORIGINALS, original), "selectors": ours}
    assert Report("3.11.7", runs).differences() == [
        "Python 3.11.7, selectors: a: failed, on the originals passed\nwhy a",
        "Python 3.11.7, selectors: c: skipped: yes, on the originals errors\nwhy c",
    ]


def test_a_test_that_did_not_run_is_a_difference() -> None:
    runs = {**dict.fromkeys(ORIGINALS, ended(a="passed")), "poll": ended()}
    (found,) = Report("3.12.1", runs).differences()
    assert found == "Python 3.12.1, poll: a: None, on the originals passed"


def test_a_run_that_did_not_end_is_a_difference() -> None:
    runs = {
        **dict.fromkeys(ORIGINALS, ended(a="passed")),
        "select": Run({}, {}, broken="exit status 1"),
    }
    (found,) = Report("3.13.0", runs).differences()
    assert found == "Python 3.13.0, select: exit status 1"


def test_test_with_two_original_outcomes_may_have_either() -> None:
    runs = dict(zip(ORIGINALS, (ended(a="passed"), ended(a="failed")), strict=True))
    runs |= {"select": ended(a="passed"), "poll": ended(a="failed")}
    report = Report("3.14.0", runs)
    assert report.fickle() == ["a"]
    assert report.differences() == []


def test_command_without_python_3_11_prints_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(conformance.VARIABLE, str(tmp_path))
    assert main([]) == 1
    assert capsys.readouterr().err == f"{conformance.MISSING}\n"


def test_interpreter_that_cannot_run_the_tests_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in conformance.TESTS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not on this one')\n")
    monkeypatch.setenv(conformance.VARIABLE, str(tmp_path))
    assert main(["--python", sys.executable]) == 1
    assert "RuntimeError: not on this one" in capsys.readouterr().out
