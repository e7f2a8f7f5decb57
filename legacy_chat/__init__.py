"""The tutorial's chat room, on the original dispatcher and async_chat.

    >>> import asyncore
    >>> from legacy_chat import ChatServer
    >>> s = ChatServer()
    ***server start***
    >>> asyncore.loop()

``compat.loop(loop="selectors")`` runs the same room on another loop.
"""

from __future__ import annotations

from legacy_chat.room import Clients
from legacy_chat.server import DEFAULT_PORT, ChatServer
from legacy_chat.session import ChatSession

__version__ = "0.1.0"

__all__ = ["DEFAULT_PORT", "ChatServer", "ChatSession", "Clients", "__version__"]
