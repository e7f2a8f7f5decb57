"""A lock for ``with`` that Ctrl+C cannot leave locked.

From Python 3.14 on, ``with lock:`` is not safe from signals. A handler may raise after
the lock's ``__enter__``, before the block begins; then nothing releases the lock.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

__all__ = ["RLock"]

# A final class for typeshed, not for Python.
_RLock: Any = type(threading.RLock())


class RLock(_RLock):  # type: ignore[misc]
    """A reentrant lock."""

    def __enter__(self) -> None:
        # Python looks for signals after a call of C, not after a call of Python.
        try:
            self.acquire()
        except BaseException:
            # The signal came while this waited for the lock, or when it had it.
            with suppress(RuntimeError):
                self.release()
            raise
