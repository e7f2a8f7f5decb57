"""What tells open files apart, whatever their numbers are."""

from __future__ import annotations

import os
from typing import TypeAlias

__all__ = ["PRIVATE", "OpenFile", "file_behind"]

# The mode of a new file that holds what people have said.
PRIVATE = 0o600

OpenFile: TypeAlias = tuple[int, int] | None


def file_behind(fd: int) -> OpenFile:
    """The open file behind a descriptor; None if it is closed, or not to be told."""
    try:
        status = os.fstat(fd)
    except OSError:
        # Closed; or this is Windows, where sockets are no files.
        return None
    return status.st_dev, status.st_ino
