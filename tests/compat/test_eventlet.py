"""A process that eventlet has patched: an installed loop turns beside green threads.

Rule 1: eventlet patches a whole process, so each test runs its own.
Rule 2: a loop that blocked the thread would block its own client, a green thread. The
loop's timeout is longer than any test.
Rule 3: eventlet takes ``select.poll`` away, so that poll can only be installed before.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.support import ROOT, process

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("eventlet") is None, reason="eventlet is not installed"
)

PATCH = """
import warnings
warnings.simplefilter("ignore")
import eventlet
eventlet.monkey_patch()
"""

INSTALL = """
import warnings
warnings.simplefilter("ignore")
import asynchat, asyncore, socket, sys
if sys.argv[1] != "original":
    import compat
    compat.install(sys.argv[1])
"""

PROGRAM = """
class Echo(asynchat.async_chat):
    def __init__(self, sock):
        super().__init__(sock)
        self.set_terminator(b"\\n")

    def collect_incoming_data(self, data):
        self.push(data)

    def found_terminator(self):
        self.push(b"\\n")

    def handle_close(self):
        self.close()
        server.close()

class Server(asyncore.dispatcher):
    def handle_accepted(self, sock, addr):
        Echo(sock)

server = Server()
server.create_socket()
server.bind(("127.0.0.1", 0))
server.listen(5)

def client():
    sock = socket.create_connection(server.socket.getsockname())
    sock.sendall(b"hello\\n")
    got = b""
    while not got.endswith(b"\\n"):
        got += sock.recv(100)
    print(got)
    sock.close()

eventlet.spawn(client)
asyncore.loop(3600, use_poll=sys.argv[2] == "True")
print("over")
""".replace("\\\\", "\\")


FIRST, SECOND = PATCH + INSTALL, INSTALL + PATCH


@pytest.mark.parametrize("use_poll", [False, True])
@pytest.mark.parametrize(
    ("name", "begin"),
    [
        *((name, FIRST) for name in ("original", "select", "selectors")),
        *((name, SECOND) for name in ("original", "select", "poll", "selectors")),
    ],
    ids=lambda value: {FIRST: "1st", SECOND: "2nd"}.get(value, value),
)
def test_installed_loop_serves_a_green_thread(
    name: str, use_poll: bool, begin: str
) -> None:
    source = begin + PROGRAM
    with process(sys.executable, "-c", source, name, str(use_poll), cwd=ROOT) as it:
        status = it.wait()
    assert (status, it.err, it.out) == (0, [], ["b'hello\\n'", "over"])
