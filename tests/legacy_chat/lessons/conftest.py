"""Lessons that have run, and an English environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.runner import run_lesson
from legacy_chat.lessons.engine.step_run import StepRun


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[StepRun]]:
    """Return a function that runs each lesson once on each loop."""
    done: dict[tuple[int, str], list[StepRun]] = {}
    folder = tmp_path_factory.mktemp("lessons")

    def ran(number: int, loop: str) -> list[StepRun]:
        if (number, loop) not in done:
            trace = folder / f"{number}-{loop}"
            done[number, loop] = run_lesson(LESSONS[number - 1], loop, trace)
        return done[number, loop]

    return ran


@pytest.fixture(autouse=True)
def no_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set English, independent of the environment."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "COMPAT_LOOP"):
        monkeypatch.delenv(name, raising=False)
