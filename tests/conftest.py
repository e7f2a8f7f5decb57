"""Fixtures of all tests; every test leaves the process as it found it."""

from __future__ import annotations

import asyncore
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from compat._runtime import this_process
from compat.loop import close_kept
from compat.trace.record.session import Session
from tests.support import ORIGINALS, OURS

# By default, each run of the suite tries other examples and may find new faults. The
# gate uses the same examples each time. Examples have no time limit.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("gate", settings.get_profile("suite"), derandomize=True)
settings.load_profile("gate" if os.environ.get("CI") else "suite")

# A shell starts background processes with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=OURS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each loop of compat."""
    return str(request.param)


@pytest.fixture(params=[*ORIGINALS, *OURS])
def any_loop(request: pytest.FixtureRequest) -> str:
    """Each loop of compat, and the two original loops."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a channel, timer, trace, handler or module behind."""
    modules = {name: sys.modules.get(name) for name in ("asyncore", "asynchat")}
    originals = (asyncore.poll, asyncore.poll2, asyncore.loop)
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    # The selectors that loop(count=1) keeps.
    close_kept()
    waiting = [each for each in this_process.schedulers.values() if each.pending]
    this_process.schedulers.clear()
    traced = Session.current
    if traced is not None:
        traced.end()
    left, now = (
        dict(asyncore.socket_map),
        (asyncore.poll, asyncore.poll2, asyncore.loop),
    )
    asyncore.close_all(ignore_all=True)
    assert traced is None
    assert left == {}
    assert waiting == []
    assert now == originals
    assert signal.getsignal(signal.SIGINT) == interrupt
    assert modules == {name: sys.modules.get(name) for name in modules}


@pytest.fixture
def out_of_descriptors() -> Iterator[Callable[[], None]]:
    """Return a function that exhausts the descriptors of this process."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust() -> None:
        # The limit is the lowest free number: the kernel can hand out none.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
