"""A file is written whole or not at all, through its links, and keeps its mode."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from pathlib import Path

import pytest

from compat.replacing import PRIVATE, SHARED, replacing
from tests.support import is_interrupted

needs_full = pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="this system has no /dev/full"
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, text: str = "new") -> None:
    with replacing(str(path), PRIVATE) as add:
        add(text)


def test_file_is_replaced_at_the_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(str(path)) as add:
        add("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# The garbage collector closes a file whose open() was interrupted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("old", ["old", None])
def test_interrupt_at_any_moment_leaves_no_other_file(
    tmp_path: Path, old: str | None
) -> None:
    path = tmp_path / "file"
    if old:
        path.write_text(old)
    for moment in itertools.count(1):
        was_interrupted = is_interrupted(moment, lambda: write(path))
        assert set(tmp_path.iterdir()) <= {path}
        if not was_interrupted:
            break
        assert not path.exists() or path.read_text() in (old, "new")
    assert moment > 20


def interrupted(path: Path) -> None:
    with replacing(str(path)) as add:
        add("new")
        raise KeyboardInterrupt


@pytest.mark.parametrize("wanted", [PRIVATE, SHARED])
def test_new_file_has_the_requested_mode(tmp_path: Path, wanted: int) -> None:
    umask = os.umask(0o022)
    try:
        with replacing(str(tmp_path / "file"), wanted):
            pass
    finally:
        os.umask(umask)
    assert mode(tmp_path / "file") == wanted & ~0o022


@pytest.mark.parametrize("old", [0o644, 0o600, 0o666, 0o755])
def test_existing_file_keeps_its_mode(tmp_path: Path, old: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(old)
    write(path)
    assert (path.read_text(), mode(path)) == ("new", old)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root")
def test_existing_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 1234, 5678)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_mount_point_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: str) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "file"
    path.write_text("old")
    write(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_link_stays_and_its_target_is_replaced(tmp_path: Path, exists: bool) -> None:
    target, link, first = (tmp_path / each for each in ("target", "link", "first"))
    if exists:
        target.write_text("old")
    link.symlink_to("target")
    first.symlink_to(link)
    write(first)
    assert first.is_symlink()
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 3


def test_link_to_itself_is_an_error(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("link")
    with pytest.raises(OSError, match="symbolic links") as caught:
        write(link)
    assert caught.value.filename == str(link)


@needs_full
@pytest.mark.parametrize("linked", [True, False])
def test_device_is_written_and_stays(tmp_path: Path, linked: bool) -> None:
    path = Path("/dev/full")
    if linked:
        path = tmp_path / "link"
        path.symlink_to("/dev/full")
    before = os.stat("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert os.path.samestat(os.stat("/dev/full"), before)
    assert not list(Path("/dev").glob(".*.part"))


def test_fifo_is_written_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(fifo.read_text()))
    reader.start()
    write(fifo)
    reader.join()
    assert said == ["new"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc")
def test_file_without_a_name_is_written_directly(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+") as file:
        file.write("something old")
        file.flush()
        os.unlink(file.name)
        write(Path(f"/proc/self/fd/{file.fileno()}"))
        file.seek(0)
        assert file.read() == "new"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [("missing/file", "No such file"), ("file/x", "Not a dir"), (".", "Is a dir")],
)
def test_path_that_cannot_be_written_is_an_error(
    tmp_path: Path, name: str, why: str
) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=why) as caught:
        write(tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(
    not hasattr(os, "setresuid") or os.geteuid() != 0, reason="needs another user"
)
@pytest.mark.parametrize("locked", ["file", "folder"])
def test_unwritable_target_is_an_error(tmp_path: Path, locked: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o777)
    path = folder / "file"
    path.write_text("old")
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/") and each.stat().st_uid == 0 and "pytest" in str(each):
            each.chmod(0o755)
    folder.chmod(0o555 if locked == "folder" else 0o777)
    path.chmod(0o444 if locked == "file" else 0o666)
    os.setresuid(-1, 65534, 0)
    try:
        with pytest.raises(PermissionError) as caught:
            write(path)
    finally:
        os.setresuid(-1, 0, 0)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(folder.iterdir()) == [path]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="Linux alone has it")
def test_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "file"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write(path, "x" * (1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
