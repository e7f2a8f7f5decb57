"""When a step is over, where no fence proves it: when all connections are quiet.

How long is quiet enough? No fixed time is: a machine that is busy, or a server that is
slow, takes longer. So it is measured in two ways, and both must say so:

- in round trips through another process, the yardstick. It waits for a processor as the
  server does; where that takes long, quiet takes long.
- as a multiple of the longest gap after which this server still had something to say.

Rule 1: a step of which it is known what must come is not over before that has come, or
a much longer quiet. So what is slow is waited for; only what is missing is missed.
Rule 2: never being quiet is an error.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from legacy_chat.baseline.crowd import Crowd
from legacy_chat.baseline.errors import RunError

__all__ = ["Quiet", "Yardstick"]

# Round trips without a byte.
ROUNDS = 10

# Seconds of quiet at least, if the profile does not know better.
LEAST = 0.03

# Times the longest gap that was no end; a gap longer than so many seconds is the
# server's mood, not its habit.
GAPS = 4
LONGEST_GAP = 0.5

# Not bound to the processor of whoever started it.
ECHO = """\
import os
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
        """Ask it, and wait for its answer."""
        asks, answers = self._process.stdin, self._process.stdout
        if asks is None or answers is None or not asks.write(b"?"):
            raise RunError("the yardstick does not listen")
        if not answers.read(1):
            raise RunError("the yardstick has ended: was it killed?")

    def close(self) -> None:
        """End it."""
        with self._process:
            if self._process.stdin is not None:
                self._process.stdin.close()


class Quiet:
    """The quiet of one conversation.

    Args:
        least: seconds of it, at least; 0 for what suits the machine.
        patience: seconds that something is waited for which is known to be missing; a
            busy machine and a slow server get as many times more as for the quiet.
    """

    def __init__(self, crowd: Crowd, least: float, patience: float) -> None:
        self._crowd = crowd
        self._least = least or LEAST
        self._patience = max(1.0, patience / self._least)
        self._longest = 0.0
        self._yardstick = Yardstick()

    def settle(self, complete: Callable[[], bool] | None = None) -> None:
        """Return when it is quiet.

        Args:
            complete: whether all has come that is known to come; None if nothing is.

        Raises:
            RunError: it does not become quiet in the crowd's timeout.
        """
        begin = last = time.monotonic()
        rounds = 0
        while not self._is_over(rounds, time.monotonic() - last, complete):
            came = self._crowd.pump(self._least / ROUNDS)
            self._yardstick.round_trip()
            rounds += 1
            now = time.monotonic()
            if came:
                self._longest = max(self._longest, min(now - last, LONGEST_GAP))
                rounds, last = 0, now
            if now - begin > self._crowd.timeout and came:
                raise RunError(
                    f"not quiet for {self._crowd.timeout:g} s: something comes always"
                )

    def close(self) -> None:
        """End the yardstick."""
        self._yardstick.close()

    def _is_over(
        self, rounds: int, seconds: float, complete: Callable[[], bool] | None
    ) -> bool:
        if rounds < ROUNDS or seconds < self._least:
            return False
        usual = max(self._least, GAPS * self._longest)
        if complete is None:
            return seconds >= usual
        if complete():
            return True
        return rounds >= self._patience * ROUNDS and seconds >= self._patience * usual
