"""Every test leaves the process as it found it."""

from __future__ import annotations

import asyncore
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from compat import loops, schedule
from compat.trace.session import Session
from tests.support import ORIGINALS, OURS

# Whoever runs the suite tries other examples each time, and finds something new; the
# gate judges a change by the same ones as the last. How long one takes is no matter.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("gate", settings.get_profile("suite"), derandomize=True)
settings.load_profile("gate" if os.environ.get("CI") else "suite")

# A shell lets what it starts in the background ignore Ctrl+C, and that is inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=OURS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each loop of compat."""
    return str(request.param)


@pytest.fixture(params=[*ORIGINALS, *OURS])
def any_loop(request: pytest.FixtureRequest) -> str:
    """Each loop of compat, and asyncore's own two."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A test that leaves a channel, a trace or a changed module has failed."""
    modules = {name: sys.modules.get(name) for name in ("asyncore", "asynchat")}
    originals = (asyncore.poll, asyncore.poll2, asyncore.loop)
    # Selectors that an earlier test's loop(count=1) has kept are none of this one's,
    # nor are timers that nobody has waited for.
    loops._this_thread._close()
    schedule._registry._schedules.clear()
    yield
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
    assert now == originals
    assert modules == {name: sys.modules.get(name) for name in modules}


@pytest.fixture
def out_of_descriptors() -> Iterator[Callable[[], None]]:
    """A function after whose call this process cannot open anything more."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust() -> None:
        # The lowest free number is the first that must not be given out.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
