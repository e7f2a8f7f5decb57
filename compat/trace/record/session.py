"""One trace, from its first line to its last.

Rule 1: a process has one trace at a time, because it has one asyncore.
Rule 2: when a trace ends, for any reason, no class keeps a wrapper.
Rule 3: a forked child writes nothing into its parent's file.
"""

from __future__ import annotations

import asyncore
import json
import operator
import os
import platform
import shlex
import sys
import time
from typing import ClassVar

from compat import instrument
from compat.forks import at_fork
from compat.origin import version_of
from compat.trace.format import MAX_SIZE, MIN_SIZE
from compat.trace.record.instrument import TraceInstrument
from compat.trace.record.live import Live
from compat.trace.record.recorder import Trace
from compat.trace.record.select_proxy import SelectProxy
from compat.trace.record.sink import File, Sink
from compat.trace.record.wrappers import Wrappers
from compat.values import shown

__all__ = ["Session", "begin"]

# Characters of a command line: python -c may have a whole program in it, and the first
# line has to fit into the smallest trace.
LONGEST = 200


class Session:
    """The current trace."""

    current: ClassVar[Session | None] = None

    def __init__(
        self, path: str, payload: int | None, max_bytes: int, program: str | None
    ) -> None:
        # First, because it takes longer than all that a small program does.
        header = _header(payload, max_bytes, program)
        self._sink: Sink
        if path == "-":
            self._sink = Live(max_bytes, self._remove)
        else:
            self._sink = File(path, max_bytes, self._remove)
        self._trace = Trace(self._sink, payload)
        self._wrappers = Wrappers(self._trace)
        self._instrument = TraceInstrument(self._trace, self._wrappers)
        Session.current = self
        try:
            self._trace.write(header)
            # Unless the disk is full.
            if Session.current is self:
                self._observe()
        except BaseException:
            self.end()
            raise

    def end(self, failed: bool = False) -> None:
        """Remove instrument and wrappers, and write the last line.

        Args:
            failed: leave the file unchanged if no event has been written yet.
        """
        self._remove()
        if failed and not self._sink.has_begun:
            self._sink.abandon()
            return
        self._trace.flush()
        self._sink.close(self._trace.now())

    def abandon(self) -> None:
        """Remove instrument and wrappers, and write nothing: for a forked child."""
        self._remove()
        self._sink.abandon()

    def _observe(self) -> None:
        self._wrappers.wrap_classes(asyncore.dispatcher)
        proxy = SelectProxy(asyncore.select, self._trace, self._wrappers)
        self._wrappers.replace(asyncore, "select", proxy)
        instrument.current = self._instrument
        if Session.current is not self:
            # Another thread has ended the trace meanwhile.
            self._remove()

    def _remove(self) -> None:
        self._wrappers.remove()
        if instrument.current is self._instrument:
            instrument.current = None
        if Session.current is self:
            Session.current = None


def begin(
    path: str, payload: int | None, max_bytes: int, program: str | None
) -> Session:
    """See compat.trace.tracing."""
    if payload is not None:
        payload = _checked("payload", payload, 0)
    max_bytes = _checked("max_bytes", max_bytes, MIN_SIZE)
    if Session.current is not None:
        raise RuntimeError("a trace is active already: one trace at a time")
    return Session(path, payload, max_bytes, program)


def _checked(name: str, given: int, least: int) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(given)}") from None
    if not least <= number <= MAX_SIZE:
        rule = f"from {least} to {MAX_SIZE}"
        raise ValueError(f"{name} must be {rule}, got {shown(number)}")
    return number


def _header(payload: int | None, max_bytes: int, program: str | None) -> bytes:
    header = {
        "format": "compat-trace",
        "version": 1,
        "program": (_command_line() if program is None else program)[:LONGEST],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "asyncore": version_of(asyncore),
        "payload": payload,
        "max": max_bytes,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps(header).encode() + b"\n"


def _command_line() -> str:
    path, *args = sys.argv or [""]
    folder, name = os.path.split(path)
    if name == "__main__.py":
        name = f"python -m {os.path.basename(folder)}"
    return f"{name} {shlex.join(args)}".strip()


def _after_fork_in_child() -> None:
    if Session.current is not None:
        Session.current.abandon()


at_fork(after_in_child=_after_fork_in_child)
