"""Quiescence: the evidence that a step is over, where no barrier proves it.

A recording does not know the answer: a step is over after some seconds without data. A
check knows it: a step is over when all the recorded data has arrived and a short poll
has found nothing more. So a check waits only for missing data.

A busy machine or a slow server needs longer than any fixed time. So each wait has two
measures, and both must be reached:

- seconds, at least a multiple of the longest gap after which this server still sent
  data.
- round trips through another process, the load probe. The probe waits for a processor
  as the server does, so the wait is longer on a busy machine.

Rule: a server that is never quiet is an error.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from legacy_chat.baseline.model.errors import NeverQuietError, ReplayError
from legacy_chat.baseline.replay.client_pool import ClientPool

__all__ = ["LAST_POLL", "QUIET", "LoadProbe", "Quiescence"]

# Seconds without data after which a step is over, where no answer is expected.
QUIET = 3.0

# Seconds to poll for more, when all the expected data has arrived.
LAST_POLL = 0.03

# Minimum round trips without data before a wait may end.
ROUNDS = 10

# Maximum seconds of one round, so that a request to stop is noticed.
LONGEST_ROUND = 0.1

# Missing data is given up after at least GAPS times the longest gap between data. At
# most LONGEST_GAP seconds of a gap count, because longer ones are exceptions.
GAPS = 4
LONGEST_GAP = 0.5

# Not bound to the processor of its parent, and silent if the parent was killed.
ECHO = """\
import os, signal
if hasattr(signal, "SIGPIPE"):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
while byte := os.read(0, 1):
    os.write(1, byte)
"""


class LoadProbe:
    """An echo process, whose round trips measure the load of the machine."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ECHO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # So that the terminal's Ctrl-C does not reach it.
            start_new_session=True,
        )
        self.round_trip()

    def round_trip(self) -> None:
        """Send a byte, and wait for its echo."""
        output, echo = self._process.stdin, self._process.stdout
        try:
            if output and echo and output.write(b"?") and echo.read(1):
                return
        except OSError as error:
            raise ReplayError(f"the load probe has ended: {error}") from error
        raise ReplayError("the load probe has ended: was it killed?")

    def close(self) -> None:
        """Terminate the process."""
        with self._process:
            if self._process.stdin is not None:
                self._process.stdin.close()


class Quiescence:
    """Detects the quiet of one conversation; starts a load probe if it has none."""

    def __init__(
        self,
        pool: ClientPool,
        probe: LoadProbe | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._probe = probe
        self._clock = clock
        self._longest_gap = 0.0

    def settle(self, seconds: float) -> None:
        """Return after *seconds* without data."""
        self._wait(seconds, lambda: False, seconds)

    def wait_for(
        self, complete: Callable[[], bool], patience: float = LAST_POLL
    ) -> None:
        """Return when *complete* is true and LAST_POLL seconds bring no more data.

        Missing data is given up after *patience* seconds without data.
        """
        patience = max(LAST_POLL, min(patience, self._pool.timeout))
        self._wait(LAST_POLL, complete, patience)

    def close(self) -> None:
        """Terminate the load probe."""
        if self._probe is not None:
            self._probe.close()

    def _wait(self, poll: float, complete: Callable[[], bool], patience: float) -> None:
        probe = self._probe = self._probe or LoadProbe()
        begin = last = self._clock()
        rounds = 0
        # The result of complete() for the data so far; None after new data.
        done: bool | None = None
        while True:
            came = self._pool.pump(min(poll / ROUNDS, LONGEST_ROUND))
            probe.round_trip()
            now = self._clock()
            rounds += 1
            if came:
                self._longest_gap = max(self._longest_gap, min(now - last, LONGEST_GAP))
                rounds, last, done = 0, now, None
                if now - begin > self._pool.timeout + poll:
                    raise NeverQuietError(
                        f"the server was never quiet for {poll:g} s within "
                        f"{self._pool.timeout:g} s"
                    )
            if rounds < ROUNDS or now - last < poll:
                continue
            if done is None:
                done = complete()
            if done or (
                rounds >= ROUNDS * patience / poll
                and now - last >= max(patience, GAPS * self._longest_gap)
            ):
                return
