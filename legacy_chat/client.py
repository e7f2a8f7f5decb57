"""The tutorial's client: two threads, one that reads the keyboard, one the socket.

It is kept for those who know it, with the tutorial's names and printed lines;
``legacy-chat connect`` is the one to use. Repaired: the port is the server's, what is
typed is sent whole, and it ends. When the server has gone, that is with the next line:
nothing can interrupt ``input()``.
"""

from __future__ import annotations

import contextlib
import socket
import threading

__all__ = ["input_line", "ip", "loop", "port", "read_line"]

port = 19528
ip = "127.0.0.1"


def input_line(ss: socket.socket) -> None:
    """Send each line that is typed, without its end, until there are no more."""
    # The end of the input, or of the connection: read_line says no more then, either.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            ss.sendall(input("input:").encode("utf8"))
    with contextlib.suppress(OSError):
        ss.shutdown(socket.SHUT_WR)


def read_line(ss: socket.socket) -> None:
    """Print what the server sends, as bytes, until it closes."""
    with contextlib.suppress(ConnectionError):
        while msg := ss.recv(1024):
            print("revice from", msg, flush=True)
    # Now sending fails, which ends input_line.
    with contextlib.suppress(OSError):
        ss.shutdown(socket.SHUT_RDWR)


def loop() -> None:
    """Connect to ``ip`` and ``port``, and talk until the server closes.

    Raises:
        OSError: nobody listens there.
    """
    with socket.create_connection((ip, port)) as ss:
        threads = [
            threading.Thread(target=target, args=(ss,))
            for target in (input_line, read_line)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    loop()
