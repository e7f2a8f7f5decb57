"""Urgent data (``MSG_OOB``), for channels whose protocol has none.

A loop reports an urgent byte in every turn until the byte is received. A channel that
does not receive it keeps a core busy for as long as the peer likes. asyncore's own
``handle_expt`` does not receive it.

Rule 1: every channel class of this project receives and drops urgent data.
Rule 2: a peer cannot cause a traceback.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

__all__ = ["drop_urgent_data"]

logger = logging.getLogger("compat")


def drop_urgent_data(channel: Any) -> None:
    """Receive the urgent byte, and drop it: the ``handle_expt`` of a channel class."""
    sock = channel.socket
    try:
        if hasattr(sock, "drop_urgent_data"):
            # A TLSSocket, whose recv() returns decrypted data only.
            sock.drop_urgent_data()
        else:
            sock.recv(1, socket.MSG_OOB)
    except OSError as error:
        # Another call has received it, or the connection is gone.
        logger.debug("%r: no urgent data to drop: %s", channel, error)
