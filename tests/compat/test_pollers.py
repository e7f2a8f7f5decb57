"""Default selectors other than epoll: channels get the same events.

Rule: one of this system's selectors, changed in the tested detail, stands in for the
selector of another system.
"""

from __future__ import annotations

import asyncore
import errno
import os
import selectors
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compat
from compat.pollers import LONGEST_WAIT
from tests.compat.test_loop import Probe


class Apart(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Report reading and writing separately, as kqueue does."""

    def select(self, timeout: float | None = None) -> Any:
        return [
            (key, event)
            for key, events in super().select(timeout)
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE)
            if events & event
        ]


class Choosy(selectors.SelectSelector):
    """Refuse terminals and the like with EINVAL, as kqueue does on macOS.

    Never report the end of a regular file.
    """

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        mode = os.fstat(fileobj).st_mode
        if stat.S_ISCHR(mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        assert not stat.S_ISREG(mode)
        return super().register(fileobj, events, data)


OTHERS = [
    getattr(selectors, name)
    for name in ("SelectSelector", "PollSelector", "DevpollSelector", "KqueueSelector")
    if hasattr(selectors, name)
]


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return a function that replaces the default selector."""
    return lambda kind: monkeypatch.setattr(selectors, "DefaultSelector", kind)


@pytest.fixture(params=[Apart, *OTHERS])
def other(request: pytest.FixtureRequest, default: Callable[[Any], None]) -> Any:
    """Each possible default selector."""
    default(request.param)
    return request.param


class File(asyncore.file_dispatcher):  # type: ignore[misc, name-defined]
    """A channel that reads to the end of a file."""

    def __init__(self, path: Any) -> None:
        fd = os.open(path, os.O_RDONLY)
        super().__init__(fd)
        # The channel has a duplicate.
        os.close(fd)
        self.got: list[bytes] = []

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.got.append(self.recv(4096))
        if not self.got[-1]:
            self.close()


def test_channel_ready_for_both_events_is_called_for_both(other: Any) -> None:
    probe = Probe()
    written: list[bool] = []
    probe.__dict__.update(
        writable=lambda: not written, handle_write=lambda: written.append(True)
    )
    probe.peer.sendall(b"hi")
    compat.loop(count=1, loop="selectors")
    assert (probe.read, written) == ([b"hi"], [True])
    probe.close()


@pytest.mark.parametrize("has_cached_interest", [False, True])
def test_socket_closed_without_its_channel_ends_in_handle_close(
    other: Any, has_cached_interest: bool
) -> None:
    class Closed(compat.async_chat if has_cached_interest else asyncore.dispatcher):  # type: ignore[misc]
        def handle_close(self) -> None:
            closed.append(self)
            raise asyncore.ExitNow

        if not has_cached_interest:
            writable = staticmethod(lambda: False)

    closed: list[Any] = []
    probe, behind = Probe(), Probe()
    behind.del_channel()
    channel = Closed(behind.socket)
    probe.__dict__.update(handle_read=lambda: (probe.recv(9), channel.socket.close()))
    probe.peer.sendall(b"close it")
    with pytest.raises(asyncore.ExitNow):
        compat.loop(loop="selectors")
    assert closed == [channel]
    channel.close()
    behind.peer.close()
    probe.close()


@pytest.mark.parametrize("kind", [Choosy, *OTHERS])
def test_a_file_is_read_to_its_end(
    kind: Any, default: Callable[[Any], None], tmp_path: Path
) -> None:
    default(kind)
    path = tmp_path / "file"
    path.write_bytes(b"all of it")
    file = File(path)
    compat.loop(loop="selectors")
    assert file.got == [b"all of it", b""]


def test_file_that_the_selector_refuses_is_always_ready(
    default: Callable[[Any], None],
) -> None:
    default(Choosy)
    null = File(os.devnull)
    compat.loop(loop="selectors")
    assert null.got == [b""]


def test_a_selector_waits_a_day_at_most(default: Callable[[Any], None]) -> None:
    class Noted(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().select(0)

    waits: list[float | None] = []
    default(Noted)
    probe = Probe()
    compat.loop(365 * 86_400.0, count=1, loop="selectors")
    assert waits == [LONGEST_WAIT]
    probe.close()
