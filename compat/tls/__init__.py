"""TLS for any dispatcher or async_chat, on any loop.

    >>> class Session(TLS, compat.async_chat):
    ...     def __init__(self, sock):
    ...         super().__init__(sock)
    ...         self.start_tls(context, server_side=True)

``TLSSocket`` (``socket``) replaces the channel's ``socket``. ``Handshake`` is a channel
that takes the place of the waiting channel in the map. ``TLS`` (``mixin``) begins the
handshake and delivers decrypted data.

Rule 1: ``send`` counts bytes only when the kernel has accepted their whole record. So
all that asyncore derives from that count stays right: the original's ``writable``,
``close_when_done``, a limit on the backlog. The channel keeps its cached interest, and
a broadcast group sends its log to it as to a plain channel.
Rule 2: decrypted data is delivered without waiting for another packet, but only while
the channel is ``readable``.
Rule 3: an unfinished handshake costs other channels no turn. The map holds a Handshake;
the loop neither polls nor dispatches to the channel itself, whose pushes wait.
Rule 4: a peer cannot cause a traceback.
Rule 5: from ``start_tls`` on, no byte passes a channel's ``socket`` in plain, in either
direction: before the handshake is over, after it, and after ``close``. Methods that
could bypass TLS are missing.
Rule 6: one thread at a time uses OpenSSL and the unsent records. Another thread gets
BlockingIOError, so its channel queues the data and the loop sends it.
"""

from __future__ import annotations

from compat.tls.engine import CLOSE_NOTIFY, TRUNCATED
from compat.tls.errors import HandshakeError
from compat.tls.handshake import Handshake
from compat.tls.mixin import TLS, over_tls
from compat.tls.socket import TLSSocket

__all__ = [
    "CLOSE_NOTIFY",
    "TLS",
    "TRUNCATED",
    "Handshake",
    "HandshakeError",
    "TLSSocket",
    "over_tls",
]
