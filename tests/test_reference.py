"""The API reference is rendered from the docstrings without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.reference import MODULES
from tests.support import DEADLINE, ROOT

pytest.importorskip("pdoc")


def test_reference_is_rendered_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.reference", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {name.replace(".", "/") + ".html" for name in MODULES} <= pages
