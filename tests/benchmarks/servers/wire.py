"""What all servers share: a socket that listens, and the words of the room.

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
    "announce",
    "farewell",
    "listen",
    "raise_limit",
    "split_farewell",
    "user",
    "voice",
]

HOST = "127.0.0.1"
BACKLOG = 1024
READ_SIZE = 65536
TERMINATOR = b"out"


def listen(port: int) -> socket.socket:
    """A socket that listens and does not block, announced.

    On Linux a client's socket has TCP_NODELAY from the one that accepted it.
    """
    raise_limit()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((HOST, port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    announce(listener.getsockname()[1])
    return listener


def announce(port: int) -> None:
    """Say which port it is. Nobody hears what a server prints after that."""
    print(f"port {port}", flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def raise_limit() -> None:
    """Take as many descriptors as one may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def user(ip: str, port: int) -> bytes:
    """The name of the client there."""
    return f"用户{ip}{port}".encode()


def voice(name: bytes) -> bytes:
    """What stands before all that the user says."""
    return name + " 说:".encode()


def farewell(name: bytes) -> bytes:
    """What the others hear when the user leaves."""
    return voice(name) + name + "退出聊天".encode()


def split_farewell(data: bytes) -> tuple[bytes, bool]:
    """What was said, and was it the last?"""
    if data.endswith(TERMINATOR):
        return data[: -len(TERMINATOR)], True
    return data, False
