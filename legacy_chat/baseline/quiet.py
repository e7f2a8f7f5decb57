"""When a step is over, where no fence proves it.

A recording does not know what will come: a step is over after seconds without a byte.
A check knows: a step is over when everything that was recorded has come, and a short
look has found nothing more. So it waits only for what is missing.

A busy machine or a slow server needs longer than any fixed time. So each wait is
measured in two ways, and both must say that it is over:

- in seconds, and at least as a multiple of the longest gap after which this server
  still had something to send.
- in round trips through another process, the yardstick. It waits for a processor as the
  server does; where that takes long, quiet takes long.

Rule: a server that is never quiet is an error.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from legacy_chat.baseline.crowd import Crowd
from legacy_chat.baseline.errors import NeverQuietError, RunError

__all__ = ["LOOK", "QUIET", "Quiet", "Yardstick"]

# Seconds without a byte after which a step is over, where nothing is known to come.
QUIET = 3.0

# Seconds of the look for more, when all has come that is known to come.
LOOK = 0.03

# Round trips during a look.
ROUNDS = 10

# Seconds of one round at most, so that whoever stops a wait is noticed.
LONGEST_ROUND = 0.1

# Times the longest gap that was no end; a gap longer than so many seconds is the
# server's mood, not its habit.
GAPS = 4
LONGEST_GAP = 0.5

# Not bound to the processor of whoever started it, and silent if that was killed.
ECHO = """\
import os, signal
if hasattr(signal, "SIGPIPE"):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
while byte := os.read(0, 1):
    os.write(1, byte)
"""


class Yardstick:
    """A process that answers: so long a machine takes for anything."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ECHO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # The terminal's Ctrl-C is not for it.
            start_new_session=True,
        )
        self.round_trip()

    def round_trip(self) -> None:
        """Ask it, and wait for its answer.

        Raises:
            RunError: it has ended.
        """
        asks, answers = self._process.stdin, self._process.stdout
        try:
            if asks and answers and asks.write(b"?") and answers.read(1):
                return
        except OSError as error:
            raise RunError(f"the yardstick process has ended: {error}") from error
        raise RunError("the yardstick process has ended: was it killed?")

    def close(self) -> None:
        """End it."""
        with self._process:
            if self._process.stdin is not None:
                self._process.stdin.close()


class Quiet:
    """The quiet of one conversation.

    Args:
        yardstick: a process to measure with; None to start one.
        clock: returns seconds.
    """

    def __init__(
        self,
        crowd: Crowd,
        yardstick: Yardstick | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crowd = crowd
        self._yardstick = yardstick or Yardstick()
        self._clock = clock
        self._longest = 0.0

    def settle(self, seconds: float) -> None:
        """Return after *seconds* without a byte.

        Raises:
            NeverQuietError: that does not happen within the crowd's timeout.
        """
        self._wait(seconds, lambda: False, seconds)

    def wait_for(self, complete: Callable[[], bool], patience: float = LOOK) -> None:
        """Return when *complete* holds and a look finds no more.

        Args:
            patience: seconds without a byte after which what is missing is given up.

        Raises:
            NeverQuietError: data keeps arriving for the crowd's timeout.
        """
        self._wait(LOOK, complete, max(LOOK, min(patience, self._crowd.timeout)))

    def close(self) -> None:
        """End the yardstick."""
        self._yardstick.close()

    def _wait(self, look: float, complete: Callable[[], bool], patience: float) -> None:
        begin = last = self._clock()
        rounds = 0
        # Asked once after the last byte, because the answer needs all that has come.
        done: bool | None = None
        while True:
            came = self._crowd.pump(min(look / ROUNDS, LONGEST_ROUND))
            self._yardstick.round_trip()
            now = self._clock()
            rounds += 1
            if came:
                self._longest = max(self._longest, min(now - last, LONGEST_GAP))
                rounds, last, done = 0, now, None
                if now - begin > self._crowd.timeout + look:
                    raise NeverQuietError(look, self._crowd.timeout)
            if rounds < ROUNDS or now - last < look:
                continue
            if done is None:
                done = complete()
            if done or (
                rounds >= ROUNDS * patience / look
                and now - last >= max(patience, GAPS * self._longest)
            ):
                return
