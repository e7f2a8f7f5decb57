"""In a process that gevent has patched, the room serves greenlets.

Rule 1: gevent patches a whole process, so each test runs its own process.
Rule 2: a loop that blocked the thread would block its own clients: they are greenlets
of the same thread, and the loop's timeout is longer than any test.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.support import ROOT, process

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

PATCH = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import gevent.monkey
gevent.monkey.patch_all()
"""

IMPORT = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import asyncore, gc, selectors, socket, sys
import compat
from legacy_chat import ChatServer
"""

# A message does not end in a letter with which "out" begins.
CLIENT = """
import gevent, gevent.event, gevent.selectors

def send_and_receive(sock, message, *words, got=b""):
    sock.sendall(message)
    while not all(word in got for word in words):
        got += sock.recv(4096)
    return got

def leave(sock):
    sock.sendall(b"out")
    while sock.recv(4096):
        pass
    sock.close()
"""

ROOM = f"""
{CLIENT}
room = ChatServer(host="127.0.0.1", port=0)
all_are_in = gevent.event.Event()

def client(number):
    sock = socket.create_connection(room.socket.getsockname())
    got = send_and_receive(sock, b"hi", b"hi")
    if len(room.clients) == 3:
        all_are_in.set()
    all_are_in.wait()
    send_and_receive(sock, b"<%d>" % number, b"<0>", b"<1>", b"<2>", got=got)
    leave(sock)

def report(clients):
    gevent.joinall(clients, raise_error=True)
    kinds = {{type(each) for each in gc.get_objects()}}
    print("gevent's selector:", gevent.selectors.GeventSelector in kinds)
    compat.call_soon_threadsafe(room.close)

gevent.spawn(report, [gevent.spawn(client, number) for number in range(3)])
compat.loop(3600, loop=sys.argv[1])
"""

TWO_ROOMS = f"""
{CLIENT}
def client(room, map):
    sock = socket.create_connection(room.socket.getsockname())
    send_and_receive(sock, b"hi", b"hi")
    leave(sock)
    compat.call_soon_threadsafe(room.close, map=map)

def serve(map):
    room = ChatServer(host="127.0.0.1", port=0, map=map)
    gevent.spawn(client, room, map)
    compat.loop(3600, map=map, loop=sys.argv[1])

both = [gevent.spawn(serve, {{}}) for _ in range(2)]
gevent.joinall(both, raise_error=True)
"""


@pytest.mark.parametrize("begin", [PATCH + IMPORT, IMPORT + PATCH], ids=["1st", "2nd"])
def test_the_room_serves_greenlets_of_its_own_thread(begin: str, loop: str) -> None:
    said = run(begin + ROOM, loop)
    assert said.count("accept close") == 3
    assert f"gevent's selector: {loop == 'selectors'}" in said


@pytest.mark.parametrize("begin", [PATCH + IMPORT, IMPORT + PATCH], ids=["1st", "2nd"])
def test_two_greenlets_turn_a_room_each(begin: str, loop: str) -> None:
    assert run(begin + TWO_ROOMS, loop).count("accept close") == 2


def run(source: str, loop: str) -> list[str]:
    """Run a program, which must exit with status 0; return its output."""
    with process(sys.executable, "-c", source, loop, cwd=ROOT) as program:
        status = program.wait()
    assert (status, program.err) == (0, [])
    return program.out
