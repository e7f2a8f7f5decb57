"""The working directory of the baseline's tests."""

from __future__ import annotations

import pytest

from tests.support import ROOT


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the folder from which tests.baseline can be imported."""
    monkeypatch.chdir(ROOT)
