"""How far it is: on a terminal, and nowhere else."""

from __future__ import annotations

import pytest

from legacy_chat.baseline.report.progress import Progress


def test_progress_writes_nothing_to_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("checking") as progress:
        for _ in range(1000):
            progress.step()
    assert capsys.readouterr() == ("", "")


def test_progress_line_has_count_rate_and_time_left() -> None:
    progress = Progress("checking")
    progress.total = 3000
    for _ in range(1200):
        progress.step()
    assert progress.line(10.0) == "checking: 1,200 of 3,000 steps, 120/s, 0:15 left"


def test_progress_line_has_the_time_left_of_a_time_limit() -> None:
    progress = Progress("fuzzing", seconds=600)
    progress.step()
    assert progress.line(30.0) == "fuzzing: 1 steps, 0/s, 9:30 left"


def test_progress_is_shown_and_erased_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("legacy_chat.baseline.report.progress.INTERVAL", 0.0)
    with Progress("checking") as progress:
        progress.step()
    shown = capsys.readouterr().err
    assert shown.startswith("\r\x1b[Kchecking: 1 steps")
    assert shown.endswith("\r\x1b[K")
