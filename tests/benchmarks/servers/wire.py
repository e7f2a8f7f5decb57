"""Shared by all servers: the listening socket, and the messages of the room.

Rule: standard library only, and little of it.
"""

from __future__ import annotations

import os
import resource
import socket

__all__ = [
    "HOST",
    "READ_SIZE",
    "TERMINATOR",
    "last_message",
    "listen",
    "prefix",
    "print_port",
    "raise_limit",
    "split_last",
    "user",
]

HOST = "127.0.0.1"
BACKLOG = 1024
READ_SIZE = 65536
TERMINATOR = b"out"


def listen(port: int) -> socket.socket:
    """Return a non-blocking listening socket; print its port.

    On Linux, an accepted socket inherits TCP_NODELAY from it.
    """
    raise_limit()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((HOST, port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    print_port(listener.getsockname()[1])
    return listener


def print_port(port: int) -> None:
    """Print the port, and discard all later output of the server."""
    print(f"port {port}", flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def raise_limit() -> None:
    """Raise the limit of descriptors to the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def user(ip: str, port: int) -> bytes:
    """Return the name of the client at that address."""
    return f"用户{ip}{port}".encode()


def prefix(name: bytes) -> bytes:
    """Return the bytes before each message of a user."""
    return name + " 说:".encode()


def last_message(name: bytes) -> bytes:
    """Return the message to the others when a user leaves."""
    return prefix(name) + name + "退出聊天".encode()


def split_last(data: bytes) -> tuple[bytes, bool]:
    """Return a message without ``out``, and whether it ended with that."""
    if data.endswith(TERMINATOR):
        return data[: -len(TERMINATOR)], True
    return data, False
