"""The tutorial's client: one thread reads the keyboard, another one the socket.

The module keeps the tutorial's names and printed lines for readers of the tutorial;
``legacy-chat connect`` is the client to use. Repaired: the port is the server's, each
line is sent whole, and the client ends. After the server has closed, it ends at the
next typed line, because nothing can interrupt ``input()``.
"""

from __future__ import annotations

import contextlib
import socket
import threading

__all__ = ["input_line", "ip", "loop", "port", "read_line"]

port = 19528
ip = "127.0.0.1"


def input_line(ss: socket.socket) -> None:
    """Send each typed line without its newline, until the input ends."""
    # The end of the input or of the connection; read_line ends then, too.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            ss.sendall(input("input:").encode("utf8"))
    with contextlib.suppress(OSError):
        ss.shutdown(socket.SHUT_WR)


def read_line(ss: socket.socket) -> None:
    """Print the server's data, as bytes, until the server closes."""
    with contextlib.suppress(ConnectionError):
        while msg := ss.recv(1024):
            print("revice from", msg, flush=True)
    # The next send fails, which ends input_line.
    with contextlib.suppress(OSError):
        ss.shutdown(socket.SHUT_RDWR)


def loop() -> None:
    """Connect to ``ip`` and ``port``; send and print until the server closes.

    Raises:
        OSError: no server listens there.
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
