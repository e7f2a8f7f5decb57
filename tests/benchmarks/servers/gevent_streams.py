"""gevent: a greenlet that reads each client.

Rule: in the room, a second greenlet writes to each client, so a slow reader delays no
other client. It writes all queued data at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.queue import SimpleQueue
from gevent.server import StreamServer

from tests.benchmarks.servers import wire

__all__ = ["echo", "room", "room_echo"]

# The end of a queue.
LAST = None


def room(port: int, variant: str) -> None:
    """Serve the room."""
    _serve(port, partial(_visit, _broadcast))


def room_echo(port: int, variant: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, partial(_visit, lambda own, text: None))


def echo(port: int, variant: str) -> None:
    """Serve the echo protocol."""
    _serve(port, _echo)


def _serve(port: int, handle: Callable[[Any, Any], None]) -> None:
    StreamServer(wire.listen(port), handle).serve_forever()


def _echo(sock: Any, address: Any) -> None:
    try:
        while data := sock.recv(wire.READ_SIZE):
            sock.sendall(data)
    except OSError:
        pass


_queues: dict[Any, SimpleQueue] = {}


def _visit(
    broadcast: Callable[[SimpleQueue, bytes], None],
    sock: Any,
    address: tuple[str, int],
) -> None:
    """Read one client until it leaves."""
    user = wire.user(*address)
    prefix = wire.prefix(user)
    _queues[sock] = queue = SimpleQueue()
    writer = gevent.spawn(_write, sock, queue)
    last = False
    try:
        while not last and (data := sock.recv(wire.READ_SIZE)):
            data, last = wire.split_last(data)
            if data:
                queue.put(data)
                broadcast(queue, prefix + data)
    except OSError:
        pass
    del _queues[sock]
    if last:
        broadcast(queue, wire.last_message(user))
    queue.put(LAST)
    writer.join()


def _broadcast(own: SimpleQueue, text: bytes) -> None:
    for queue in _queues.values():
        if queue is not own:
            queue.put(text)


def _write(sock: Any, queue: SimpleQueue) -> None:
    """Write queued data up to LAST."""
    get, empty = queue.get, queue.empty
    last = False
    try:
        while not last:
            texts = [get()]
            while not empty():
                texts.append(get())
            if texts[-1] is LAST:
                last = True
                texts.pop()
            sock.sendall(b"".join(texts))
    except OSError:
        # The reading greenlet sees the error, too.
        pass
