"""gevent: a greenlet for what each client says.

Rule: in the room each client has another one for what it is told, so that nobody waits
for one who reads slowly. It writes all that is queued at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.queue import SimpleQueue
from gevent.server import StreamServer

from tests.benchmarks.servers import wire

__all__ = ["echo", "room"]

# Ends the writing.
LAST = None


def room(port: int, variant: str) -> None:
    """The room."""
    _serve(port, _visit)


def echo(port: int, variant: str) -> None:
    """What comes in goes back."""
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


def _visit(sock: Any, address: tuple[str, int]) -> None:
    """Listen to one client until it leaves."""
    user = wire.user(*address)
    voice = wire.voice(user)
    _queues[sock] = queue = SimpleQueue()
    writer = gevent.spawn(_write, sock, queue)
    last = False
    try:
        while not last and (data := sock.recv(wire.READ_SIZE)):
            data, last = wire.split_farewell(data)
            if data:
                queue.put(data)
                _tell(queue, voice + data)
    except OSError:
        pass
    del _queues[sock]
    if last:
        _tell(queue, wire.farewell(user))
    queue.put(LAST)
    writer.join()


def _tell(own: SimpleQueue, text: bytes) -> None:
    for queue in _queues.values():
        if queue is not own:
            queue.put(text)


def _write(sock: Any, queue: SimpleQueue) -> None:
    """Write what is queued until the last of it."""
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
        # The reader will hear of it, too.
        pass
