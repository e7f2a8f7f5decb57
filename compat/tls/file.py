"""The methods of a socket that follow from ``recv`` and ``send``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["FileMethods"]


class FileMethods:
    """Base class of a socket; it defines ``fileno``, ``recv`` and ``send``."""

    if TYPE_CHECKING:

        def fileno(self) -> int: ...
        def recv(self, size: int, flags: int = 0) -> bytes: ...
        def send(self, data: ReadableBuffer, flags: int = 0) -> int: ...

    def recv_into(
        self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0
    ) -> int:
        """Like ``recv``, but into *buffer*; return the number of bytes.

        Args:
            nbytes: maximum number of bytes; 0 and None mean the size of the buffer.

        Raises:
            TypeError: *buffer* is read-only.
            OSError: and ValueError: as from ``recv``.
        """
        with memoryview(buffer).cast("B") as view:
            if view.readonly:
                raise TypeError("buffer must be writable, got a read-only one")
            data = self.recv(min(nbytes or len(view), len(view)), flags)
            view[: len(data)] = data
        return len(data)

    def read(self, size: int = 1024, buffer: WriteableBuffer | None = None) -> Any:
        """Like ``recv``; with a *buffer*, like ``recv_into``."""
        if buffer is None:
            return self.recv(size)
        return self.recv_into(buffer, size)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Encrypt and send all of *data*.

        Raises:
            BlockingIOError: the kernel has not accepted all of *data*. The accepted
                amount is unknown, as with any non-blocking socket.
            OSError: and ValueError: as from ``send``.
        """
        with memoryview(data).cast("B") as rest:
            sent = self.send(rest, flags)
            while sent < len(rest):
                sent += self.send(rest[sent:])

    def write(self, data: ReadableBuffer) -> int:
        """Like ``send``."""
        return self.send(data)

    def makefile(
        self,
        mode: str = "r",
        buffering: int = -1,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return a file object that encrypts and decrypts.

        As with a non-blocking pipe, its methods return None or raise BlockingIOError
        instead of blocking. Closing the file leaves the socket open.

        Raises:
            ValueError: *mode* has letters other than r, w and b; or *buffering* is 0
                for a text file.
        """
        if not set(mode) <= set("rwb"):
            raise ValueError(f"mode must be of r, w and b, got {mode!r}")
        raw = _RawFile(self, mode)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("buffering must not be 0 for text, got 0")
            return raw
        size = buffering if buffering > 0 else io.DEFAULT_BUFFER_SIZE
        file: Any
        if not raw.writable():
            file = io.BufferedReader(raw, size)
        elif not raw.readable():
            file = io.BufferedWriter(raw, size)
        else:
            file = io.BufferedRWPair(raw, raw, size)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding, errors, newline)


class _RawFile(io.RawIOBase):
    """The unbuffered file. It returns None where a socket raises BlockingIOError."""

    def __init__(self, sock: FileMethods, mode: str) -> None:
        self._sock = sock
        self._mode = mode

    def readable(self) -> bool:
        return "r" in self._mode or "w" not in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def fileno(self) -> int:
        return self._sock.fileno()

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data: ReadableBuffer, /) -> int | None:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return None
