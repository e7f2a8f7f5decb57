"""A process that forks while a loop runs: two processes then, and neither in the way.

Rule 1: the forks are real, in a process that does nothing else, and every child is
reaped by its number.
Rule 2: who serves is told apart by the answer: each has the number of its process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import ROOT, Peer, Process, process

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system does not fork"
)

# A server that echoes lines, with its process's number; "!name" calls do_name first,
# and a child has only the doors that it opens itself.
SERVER = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import asyncore, os, signal, sys, threading
import compat
from compat import schedule

class Server(asyncore.dispatcher):
    def __init__(self):
        asyncore.dispatcher.__init__(self)
        self.create_socket()
        self.bind(("127.0.0.1", 0))
        self.listen(5)
        print("port", os.getpid(), self.socket.getsockname()[1], flush=True)

    def handle_accepted(self, sock, address):
        Session(sock)

class Session(compat.async_chat):
    def __init__(self, sock):
        compat.async_chat.__init__(self, sock)
        self.set_terminator(b"\\n")
        self.line = b""

    def collect_incoming_data(self, data):
        self.line += data

    def found_terminator(self):
        line, self.line = self.line, b""
        if line.startswith(b"!"):
            line = str(globals()["do_" + line[1:].decode()]()).encode()
        if self.connected:
            self.push(b"%d says %s\\n" % (os.getpid(), line))

def fork():
    \"\"\"A child that has let go of everything, and serves at another door.\"\"\"
    global child
    child = os.fork()
    if not child:
        for channel in list(asyncore.socket_map.values()):
            let_go(channel)
        Server()
    return child

def let_go(channel):
    channel.close()

do_fork = fork

def do_exit():
    os._exit(7)

def do_reap():
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def run():
    compat.loop(3600, loop=sys.argv[1])
"""

START = """
Server()
run()
"""

# How a program may turn its channels.
RUNS = {
    "loop": "",
    "count": """
def run():
    while asyncore.socket_map:
        compat.loop(3600, count=1, loop=sys.argv[1])
""",
    "installed": """
def run():
    compat.install(sys.argv[1])
    asyncore.loop(3600)
""",
    "poll": """
def run():
    compat.install(sys.argv[1])
    while asyncore.socket_map:
        asyncore.poll(3600)
""",
}


class Server:
    """The process under test, the child that it has forked, and a peer of each."""

    def __init__(self, program: Process) -> None:
        self.program = program
        self.peer = self.visit(program.pid)

    def visit(self, pid: int) -> Peer:
        port = self.program.wait_for(rf"^port {pid} (\d+)$")[1]
        return Peer(("127.0.0.1", int(port)))

    def ask(self, line: str, peer: Peer | None = None) -> str:
        """Send a line; return what is said in answer."""
        peer = peer or self.peer
        peer.got = b""
        peer.send(f"{line}\n")
        return peer.wait_for("\n").decode().rstrip("\n")

    def fork(self) -> int:
        """Let it fork; return the child's number."""
        return int(self.ask("!fork").partition(" says ")[2])

    def reap(self, child: int) -> None:
        peer = self.visit(child)
        peer.send("!exit\n")
        peer.wait_for_end()
        assert self.ask("!reap") == f"{self.program.pid} says 7"


@contextmanager
def server(loop: str, more: str = "") -> Iterator[Server]:
    source = SERVER + more + START
    with process(sys.executable, "-c", source, loop, cwd=ROOT) as program:
        yield Server(program)
    assert program.err == []


def assert_both_serve(parent: Server, child: int) -> None:
    """The parent its old client and a new one, the child clients of its own."""
    pid = parent.program.pid
    theirs = [parent.visit(child), parent.visit(child)]
    ours = [parent.peer, parent.visit(pid)]
    for word in ("one", "two"):
        for peer in theirs:
            assert parent.ask(word, peer) == f"{child} says {word}"
        for peer in ours:
            assert parent.ask(word, peer) == f"{pid} says {word}"


@pytest.mark.parametrize("run", RUNS)
def test_parent_and_child_go_on_serving(run: str, loop: str) -> None:
    with server(loop, RUNS[run]) as parent:
        child = parent.fork()
        assert_both_serve(parent, child)
        parent.reap(child)
        assert parent.ask("alone") == f"{parent.program.pid} says alone"
