"""Write the output files of the command lines: whole, or not at all.

Rule 1: a regular file is replaced only once all of it is written. After an error the
old file is unchanged, and no other file is left behind.
Rule 2: a symbolic link stays; its target is replaced.
Rule 3: a device, a FIFO or a pipe is written directly, because it cannot be replaced.
A mount point, or another user's file in a sticky folder, is overwritten at the end.
Rule 4: an existing file keeps its mode, and its owner if the system allows that.
Rule 5: every error names the requested file.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from compat.console import writing
from compat.files import PRIVATE

__all__ = ["PRIVATE", "SHARED", "replacing"]

# The mode of a new file that is not PRIVATE; the umask still applies.
SHARED = 0o666


@contextmanager
def replacing(path: str, mode: int = SHARED) -> Iterator[Callable[[str], None]]:
    """Context manager: yield a function that writes text to *path*, as UTF-8.

    Args:
        mode: the mode of a new file.

    Raises:
        OSError: the file cannot be opened, written or replaced.
    """
    output = _Output(path, mode)
    try:
        output.open()
        yield output.write
        output.finish()
    except BaseException:
        output.abandon()
        raise


class _Output:
    """The output file: a new one beside the old one, or the file itself."""

    _file: IO[bytes]

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = mode
        self._target = os.path.realpath(path)
        self._part = ""
        self._old: os.stat_result | None = None
        self._files = ExitStack()

    def open(self) -> None:
        """Open the file, and the new file that will replace it."""
        with writing(self._path):
            # Open even a file that will be replaced: without write permission, the
            # error comes now, not after a recording of an hour.
            with suppress(FileNotFoundError):
                self._open(self._path, "wb", _open_existing)
                self._old = os.fstat(self._file.fileno())
            if self._old is None or self._is_replaceable(self._old):
                self._begin_part()

    def write(self, text: str) -> None:
        with writing(self._path):
            self._file.write(text.encode())

    def finish(self) -> None:
        """Flush, and replace the old file."""
        with writing(self._path):
            self._files.close()
            if self._part:
                self._adopt()
                self._replace()

    def abandon(self) -> None:
        """Discard the new file; the old one stays unchanged."""
        # Closing flushes, which fails again on a full disk. The caller already has the
        # first error.
        with suppress(OSError):
            self._files.close()
        if self._part:
            # An interrupt may come before the file exists, or after its renaming.
            with suppress(FileNotFoundError):
                os.unlink(self._part)

    def _open(self, path: str, how: str, opener: Callable[[str, int], int]) -> None:
        file = open(path, how, opener=opener)  # noqa: SIM115
        self._file = self._files.enter_context(file)

    def _begin_part(self) -> None:
        self._files.close()
        mode = self._mode if self._old is None else PRIVATE
        folder = os.path.dirname(self._target)
        self._part = os.path.join(folder, f".{secrets.token_hex(8)}.part")
        self._open(self._part, "xb", lambda name, flags: os.open(name, flags, mode))

    def _is_replaceable(self, old: os.stat_result) -> bool:
        if not stat.S_ISREG(old.st_mode):
            return False
        target = self._target
        if os.path.exists(target) and os.path.samestat(old, os.stat(target)):
            return True
        # /dev/stdout may be a deleted file.
        self._file.truncate()
        return False

    def _replace(self) -> None:
        try:
            os.replace(self._part, self._target)
        except OSError:
            if self._old is None:
                raise
            shutil.copyfile(self._part, self._target)
            os.unlink(self._part)

    def _adopt(self) -> None:
        """Give the new file the owner and the mode of the old one."""
        if self._old is None:
            return
        with suppress(PermissionError):
            if hasattr(os, "chown"):
                os.chown(self._part, self._old.st_uid, self._old.st_gid)
        os.chmod(self._part, stat.S_IMODE(self._old.st_mode))


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))
