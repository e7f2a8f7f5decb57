"""A small model of the room: the output for a client's bytes; rules K1 to K6, R2 to R4.

For tests that send arbitrary bytes and must predict the output.

Rule: nothing here uses the room's own code. ``bytes.partition`` finds the terminator,
and Python's incremental decoder decodes the characters.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

__all__ = ["Output", "Speaker"]

# Once its session has ended, data of a client after more terminators than this reaches
# no other client.
MOST_TERMINATORS = 100


class Output(NamedTuple):
    """The output that one read causes.

    Attributes:
        echo: bytes that return to the sender.
        broadcast: bytes that each of the others receives.
    """

    echo: bytes
    broadcast: bytes


class Speaker:
    """One client of a room.

    Args:
        name: as the room writes it, without ``用户``.
        terminator: bytes that end its session.

    Attributes:
        left: whether it has sent the terminator.
    """

    def __init__(self, name: str, terminator: bytes = b"out") -> None:
        self.user = "用户" + name
        self.left = False
        self._terminator = terminator
        self._held = b""
        # Terminators after the one that ended its session.
        self._terminators = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def outputs(self, data: bytes) -> Output:
        """Return the output after the room has read *data* in one recv."""
        *messages, rest = (self._held + data).split(self._terminator)
        echo, broadcast = b"", b""
        for message in messages:
            echo += b"" if self.left else message
            broadcast += self._broadcast(message)
            self._terminators += self.left
            broadcast += self._farewell()
        message, self._held = self._hold_back(rest)
        echo += b"" if self.left else message
        return Output(echo, broadcast + self._broadcast(message))

    def _hold_back(self, data: bytes) -> tuple[bytes, bytes]:
        """Split off a tail that may be the beginning of a terminator."""
        for size in range(len(self._terminator) - 1, 0, -1):
            if data.endswith(self._terminator[:size]):
                return data[:-size], data[-size:]
        return data, b""

    def _broadcast(self, message: bytes, final: bool = False) -> bytes:
        if self._terminators > MOST_TERMINATORS:
            return b""
        text = self._decoder.decode(message, final)
        return f"{self.user} 说:{text}".encode() if text else b""

    def _farewell(self) -> bytes:
        if self.left:
            return b""
        self.left = True
        cut = self._broadcast(b"", final=True)
        return cut + f"{self.user} 说:{self.user}退出聊天".encode()
