"""The tutorial's client: two threads, one that reads the keyboard, one the socket.

It is kept for those who know it, with the tutorial's names and printed lines;
``legacy-chat connect`` is the one to use. Repaired: the port is the server's, what is
typed is sent whole, and it ends when the server has closed.
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
    # The end of the input, or of the connection, which read_line sees as well.
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


def loop() -> None:
    """Connect to ``ip`` and ``port``, and talk until the server closes.

    Raises:
        OSError: nobody listens there.
    """
    with socket.create_connection((ip, port)) as ss:
        # A daemon: nothing ends an input() that waits for a line.
        threading.Thread(target=input_line, args=(ss,), daemon=True).start()
        reader = threading.Thread(target=read_line, args=(ss,))
        reader.start()
        reader.join()


if __name__ == "__main__":
    loop()
