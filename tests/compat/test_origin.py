"""``python -m compat --which`` names the owner of the imported ``compat``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import compat
from compat.origin import origin_of_compat

FILE = "compat/__init__.py"


def which(folder: Path) -> str:
    """Return the line about compat when it is imported from *folder*."""
    done = subprocess.run(
        [sys.executable, "-m", "compat", "--which"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    (line,) = (each for each in done.stdout.splitlines() if each[:7] == "compat:")
    return line.removeprefix("compat:").strip()


def install(folder: Path, name: str, version: str, *files: str) -> None:
    """Write a distribution's metadata as pip does: its name, and its files."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{each},,\n" for each in files))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Make a folder of installed packages with our compat."""
    ignored = shutil.ignore_patterns("__pycache__", "stubs")
    ours = Path(str(compat.__file__)).parent
    shutil.copytree(ours, tmp_path / "compat", ignore=ignored)
    return tmp_path


def test_which_names_the_distribution_that_owns_compat(site: Path) -> None:
    install(site, "legacy-chat", "9.9", "legacy_chat/__init__.py", FILE)
    install(site, "other", "1.0", "other.py", "notcompat/__init__.py", f"x/{FILE}")
    assert which(site) == f"legacy-chat 9.9, {site / FILE}"


def test_which_reports_a_compat_that_was_overwritten(site: Path) -> None:
    install(site, "legacy-chat", "9.9", FILE)
    install(site, "a-compat", "2.0", FILE)
    (site / FILE).write_text("theirs = True\n")
    assert which(site) == (
        f"a-compat 2.0 and legacy-chat 9.9, {site / FILE} "
        "(one has overwritten the other)"
    )


def test_origin_reports_a_compat_that_was_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The rest of it is a namespace package.
    monkeypatch.setattr(compat, "__file__", None)
    assert origin_of_compat() == (
        "compat/__init__.py is missing: reinstall legacy-chat"
    )


def test_which_reports_a_compat_of_no_distribution(site: Path) -> None:
    assert which(site) == f"no installed distribution, {site / FILE}"
