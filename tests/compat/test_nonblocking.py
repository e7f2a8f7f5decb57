"""A write never waits for a reader, and leaves the file's mode unchanged."""

from __future__ import annotations

import errno
import os
import pty
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest

from compat import nonblocking
from compat.nonblocking import is_writable, write_some

# The read end, and the descriptor that is written.
Ends: TypeAlias = tuple[int, int]

LINE = "大家好!\n".encode() * 7


def pair() -> Ends:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


KINDS: dict[str, Callable[[], Ends]] = {
    "pipe": os.pipe,
    "terminal": pty.openpty,
    "socket": pair,
}


@contextmanager
def ends_of(kind: str) -> Iterator[Ends]:
    ends = KINDS[kind]()
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


@pytest.fixture(params=["with the flag", "without it"], autouse=True)
def _flag(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test also as on a system without RWF_NOWAIT."""
    if request.param == "without it":
        monkeypatch.setattr(nonblocking, "_NOWAIT", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_full_file_takes_nothing_and_its_mode_stays(kind: str) -> None:
    with ends_of(kind) as (reader, fd):
        taken = 0
        while (new := write_some(fd, LINE)) == len(LINE):
            taken += new
        assert taken > 1000
        assert write_some(fd, LINE) < len(LINE)
        assert os.get_blocking(fd)
        assert not is_writable(fd) or kind != "pipe"
        os.read(reader, 1 << 16)
        assert is_writable(fd, 20)
        assert write_some(fd, b"x", 20) == 1


def test_closed_reader_is_an_error() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    with open(fd, "wb"), pytest.raises(BrokenPipeError):
        write_some(fd, b"x")


def test_closed_descriptor_is_an_error() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    os.close(fd)
    assert is_writable(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_some(fd, b"x")


def test_reader_that_is_behind_gets_all_of_it() -> None:
    data = bytes(range(256)) * 4096
    got: list[bytes] = []
    with ends_of("pipe") as (reader, fd):

        def reads() -> None:
            while sum(map(len, got)) < len(data):
                got.append(os.read(reader, 1 << 16))

        thread = threading.Thread(target=reads)
        thread.start()
        assert write_some(fd, data, 20) == len(data)
        thread.join()
    assert b"".join(got) == data


def test_stalled_reader_costs_at_most_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def select(
        r: object, w: object, x: object, timeout: float
    ) -> tuple[list[int], ...]:
        asked.append(timeout)
        return [], [], []

    monkeypatch.setattr(nonblocking.select, "select", select)
    with ends_of("pipe") as (_, fd):
        assert write_some(fd, b"x" * (1 << 20), 5.0) < 1 << 20
    assert len(asked) == 1
    assert 0 < asked[0] <= 5.0


def test_where_a_pipe_cannot_be_opened_again_pieces_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nonblocking, "_NOWAIT", 0)
    monkeypatch.setattr(nonblocking, "_opened_again", lambda fd, mode: None)
    with ends_of("pipe") as (reader, fd):
        taken = write_some(fd, b"x" * (1 << 20))
        assert 0 < taken < 1 << 20
        assert os.read(reader, 1 << 20) == b"x" * taken


def test_regular_file_takes_all_of_it(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "wb", buffering=0) as file:
        assert write_some(file.fileno(), LINE * 100_000) == len(LINE) * 100_000


def test_descriptor_above_the_limit_of_select_is_written() -> None:
    with ends_of("pipe") as (reader, fd):
        high = os.dup2(fd, 1500)
        try:
            assert is_writable(high)
            assert write_some(high, b"hello") == 5
            assert os.read(reader, 100) == b"hello"
        finally:
            os.close(high)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_write_with_the_flag_opens_no_descriptor(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nonblocking, "_NOWAIT", getattr(os, "RWF_NOWAIT", 0))
    with ends_of(kind) as (reader, fd):
        try:
            os.pwritev(fd, (b"hel",), -1, nonblocking._NOWAIT or 1 << 30)
        except (OSError, AttributeError):
            pytest.skip("this system cannot write so")
        monkeypatch.delattr(nonblocking, "_writer")
        assert write_some(fd, b"lo") == 2
        assert os.read(reader, 100) == b"hello"


def test_file_that_refuses_the_flag_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int, view: memoryview) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(nonblocking, "_NOWAIT", 8)
    monkeypatch.setattr(nonblocking, "_write_nowait", refuse)
    with ends_of("pipe") as (reader, fd):
        assert write_some(fd, LINE) == len(LINE)
        assert os.read(reader, 1 << 16) == LINE
