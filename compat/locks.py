"""A lock for ``with`` that Ctrl+C cannot leave locked.

Rule: no loop stands in the block itself, only in a function that the block calls.
Python runs signal handlers at the jump back of a loop, which the exception table of its
code does not cover: a handler that raises there leaves the block without its end.

From Python 3.14 on, ``with lock:`` is not safe from signals. A handler may raise after
the lock's ``__enter__``, before the block begins; then nothing releases the lock.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

__all__ = ["RLock"]

if TYPE_CHECKING or sys.version_info < (3, 14):
    from threading import RLock
else:
    # Costs a Python call per "with", so only for the versions that need it.
    class RLock(type(threading.RLock())):
        """A reentrant lock."""

        def __enter__(self) -> None:
            # Python checks for signals after a C call, not after a Python call.
            try:
                self.acquire()
            except BaseException:
                # The signal came before or after this thread got the lock.
                with suppress(RuntimeError):
                    self.release()
                raise
