"""Only the owner of a new file can read the payloads in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat.trace.record.sink import File
from legacy_chat.cli import main as legacy_chat
from tests.compat.trace.synthetic import hello
from tests.compat.trace.test_cli import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def trace_to(path: Path) -> None:
    sink = File(str(path), 1 << 20, lambda: None)
    sink.write(b'{"format":"compat-trace","version":1}\n', 0)
    sink.close(1)


@pytest.fixture(autouse=True)
def _permissive_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_new_trace_is_its_owners_alone(tmp_path: Path) -> None:
    trace_to(tmp_path / "new")
    assert mode_of(tmp_path / "new") == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o600])
def test_trace_that_is_there_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("a longer text that was there before" * 9)
    path.chmod(mode)
    before = path.stat().st_ino
    trace_to(path)
    assert (mode_of(path), path.stat().st_ino) == (mode, before)
    assert "before" not in path.read_text()


def test_symlink_still_points_to_the_trace(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    trace_to(link)
    assert link.is_symlink()
    assert mode_of(tmp_path / "target") == 0o600


def test_device_stays_a_device() -> None:
    before = os.stat("/dev/null")
    trace_to(Path("/dev/null"))
    after = os.stat("/dev/null")
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("view", ["html", "perfetto", "mermaid"])
def test_view_is_written_for_its_owner_alone(view: str, tmp_path: Path) -> None:
    trace = hello().save(tmp_path / "room.trace")
    assert run(view, trace, "-o", tmp_path / "new") == 0
    assert mode_of(tmp_path / "new") == 0o600


def test_lesson_is_written_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, trace = tmp_path / "page.html", tmp_path / "lesson.trace"
    options = ("--html", str(page), "--trace", str(trace))
    assert legacy_chat(["lesson", "2", *options]) == 0
    assert [mode_of(page), mode_of(trace)] == [0o600, 0o600]
    assert "hell" in capsys.readouterr().out
