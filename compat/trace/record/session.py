"""One trace, from its first line to its last.

Rule 1: one at a time in a process, for there is one asyncore in it.
Rule 2: when it ends, by whatever, nothing of it is left in the classes.
Rule 3: a forked child is another program: it writes nothing into its parent's file.
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
from compat.trace.record.recorder import Trace
from compat.trace.record.select_proxy import SelectProxy
from compat.trace.record.sink import File, Live, Sink
from compat.trace.record.wrappers import Wrappers
from compat.values import shown

__all__ = ["Session", "begin"]


# Characters of a command line that are kept: python -c may have a whole program in it,
# and the first line has to fit into the smallest trace.
LONGEST = 200


class Session:
    """What is traced at the moment."""

    current: ClassVar[Session | None] = None

    def __init__(
        self, path: str, payload: int | None, max_bytes: int, program: str | None
    ) -> None:
        # First, for it takes longer than all that a small program does.
        header = _header(payload, max_bytes, program)
        self._sink: Sink = (
            Live(max_bytes, self._over)
            if path == "-"
            else File(path, max_bytes, self._over)
        )
        self._trace = Trace(self._sink, payload)
        self._wrappers = Wrappers(self._trace)
        self._instrument = TraceInstrument(self._trace, self._wrappers)
        Session.current = self
        try:
            self._trace.write(header)
            # Or it is over: the disk is full.
            if Session.current is self:
                self._begin()
        except BaseException:
            self.end()
            raise

    def _begin(self) -> None:
        self._wrappers.wrap_classes(asyncore.dispatcher)
        proxy = SelectProxy(asyncore.select, self._trace, self._wrappers)
        self._wrappers.replace(asyncore, "select", proxy)
        instrument.current = self._instrument
        if Session.current is not self:
            # Another thread has ended the trace meanwhile.
            self._over()

    def end(self, failed: bool = False) -> None:
        """Look in no more, and write the last line.

        Args:
            failed: leave the file as it was, if nothing has happened yet.
        """
        self._over()
        if failed and not self._sink.has_begun:
            self._sink.abandon()
            return
        self._trace.flush()
        self._sink.close(self._trace.now())

    def _over(self) -> None:
        self._wrappers.remove()
        if instrument.current is self._instrument:
            instrument.current = None
        if Session.current is self:
            Session.current = None

    def _left_in_child(self) -> None:
        self._over()
        self._sink.abandon()


def begin(
    path: str, payload: int | None, max_bytes: int, program: str | None
) -> Session:
    """See compat.trace.tracing."""
    if payload is not None:
        payload = _whole("payload", payload)
        if payload < 0:
            raise ValueError(
                f"payload={shown(payload)} is negative: None keeps nothing"
            )
    max_bytes = _whole("max_bytes", max_bytes)
    if max_bytes < MIN_SIZE:
        raise ValueError(
            f"max_bytes={shown(max_bytes)} is too few: at least {MIN_SIZE}"
        )
    if Session.current is not None:
        raise RuntimeError("something is being traced already: one trace at a time")
    return Session(path, payload, max_bytes, program)


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


def _whole(name: str, given: int) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name}={shown(given)} is no whole number of bytes") from None
    if number > MAX_SIZE:
        raise ValueError(f"{name} must be <= {MAX_SIZE}, got {shown(given)}")
    return number


def _command_line() -> str:
    path, *args = sys.argv or [""]
    folder, name = os.path.split(path)
    if name == "__main__.py":
        name = f"python -m {os.path.basename(folder)}"
    return f"{name} {shlex.join(args)}".strip()


def _after_fork_in_child() -> None:
    if Session.current is not None:
        Session.current._left_in_child()


at_fork(after_in_child=_after_fork_in_child)
