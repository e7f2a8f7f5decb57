"""The identity of open files, independent of their descriptors."""

from __future__ import annotations

import os
from typing import TypeAlias

__all__ = ["PRIVATE", "OpenFile", "file_behind"]

# The mode of a new file that holds users' messages.
PRIVATE = 0o600

OpenFile: TypeAlias = tuple[int, int] | None


def file_behind(fd: int) -> OpenFile:
    """Return the identity of a descriptor's file; None if closed or unknown."""
    try:
        status = os.fstat(fd)
    except OSError:
        # Closed; or a socket on Windows, where sockets are not files.
        return None
    return status.st_dev, status.st_ino
