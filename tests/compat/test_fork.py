"""A process forks while a loop runs: parent and child do not disturb each other.

Rule 1: the forks are real, in a process that does nothing else and leads a group. Every
child is reaped by its process id; if the test fails, the group is killed.
Rule 2: each answer has the id of the process that sent it.
Rule 3: two threads never use one session at the same time; a handler waits for the
other thread.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import ROOT, Peer, Process, process

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system does not fork"
)

# A server that echoes lines with its process id; "!name" calls do_name first. A child
# has only the listeners that it opens itself.
SERVER = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import asyncore, os, signal, socket, sys, threading
import compat
from compat.wakeup import Waker

def report(*words):
    \"\"\"Write a whole line at once: parent and child share the pipe.\"\"\"
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

class Server(asyncore.dispatcher):
    def __init__(self, door="port", map=None):
        asyncore.dispatcher.__init__(self, map=map)
        self.create_socket()
        self.bind(("127.0.0.1", 0))
        self.listen(5)
        report(door, os.getpid(), self.socket.getsockname()[1])

    def handle_accepted(self, sock, address):
        Session(sock, self._map)

class Session(compat.async_chat):
    def __init__(self, sock, map):
        compat.async_chat.__init__(self, sock, map)
        # Or a second answer waits 40 ms, for the acknowledgement of the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.set_terminator(b"\\n")
        self.line = b""
        self.process = os.getpid()

    def collect_incoming_data(self, data):
        self.line += data

    def found_terminator(self):
        line, self.line = self.line, b""
        if line.startswith(b"!"):
            line = str(globals()["do_" + line[1:].decode()](self)).encode()
        if self.connected and self.process == os.getpid():
            self.push(b"%d answers %s\\n" % (os.getpid(), line))

children = []
kept = []

def fork(map=asyncore.socket_map):
    \"\"\"A child that has let go of everything, and serves at another door.\"\"\"
    child = os.fork()
    if child:
        children.append(child)
        return child
    # Objects without a reference would be closed as well.
    kept[:] = map.values()
    for channel in kept:
        let_go(channel)
    serve(map)
    return 0

def let_go(channel):
    channel.close()

def serve(map):
    \"\"\"When the handler returns, in the loop that the parent has begun.\"\"\"
    Server(map=map)

def do_fork(session):
    return fork(session._map)

def do_exit(session):
    os._exit(7)

def do_reap(session):
    report("reaping", children[-1])
    status = os.waitpid(children[-1], 0)[1]
    children.pop()
    return os.waitstatus_to_exitcode(status)

def run():
    compat.loop(3600, loop=sys.argv[1])
"""

START = """
Server()
try:
    run()
except BaseException:
    sys.excepthook(*sys.exc_info())
os._exit(1)
"""

# Ways in which a program may run its channels.
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
    "from the handler": """
def serve(map):
    Server()
    run()
    os._exit(1)
""",
}

# Ways in which a child may drop a channel that the parent keeps.
LET_GO = {
    "close": "channel.close()",
    "del_channel": "channel.del_channel()",
    "its own copy": "channel.del_channel(); channel.socket.close()",
    "copy first": "channel.socket.close(); channel.close()",
    "the map": "channel._map.clear()",
}

# A child that drops a single channel of the parent's, and has its own map.
LET_GO_OF_ONE = """
def let_go(channel):
    if channel.{which}:
        {how}

def serve(map):
    own = {{}}
    Server(map=own)
    compat.loop(3600, map=own, loop=sys.argv[1])
    os._exit(1)
"""

KEEP_OPEN = """
def let_go(channel):
    channel.del_channel()
"""

CLOSE = """
def do_close(session):
    session.close()
    report("closed")
"""

# Count the wake-ups that this process has read, and its parent before the fork.
THREADS = """
wakes = []

def take(waker, handle=Waker.handle_read_event):
    wakes.append(waker)
    handle(waker)

Waker.handle_read_event = take

def do_wakes(session):
    return len(wakes)

def in_a_thread(call, *args, map=asyncore.socket_map):
    \"\"\"When the turn is over, and the loop waits or is about to.\"\"\"
    def after_the_turn():
        over.wait()
        call(*args)

    over = threading.Event()
    threading.Thread(target=after_the_turn).start()
    compat.call_later(0, over.set, map=map)

def do_soon(session):
    in_a_thread(compat.call_soon_threadsafe, session.push, b"soon\\n")

def do_leave(session):
    in_a_thread(session.close_when_done)

def do_push(session):
    \"\"\"More than is sent at once: the rest is the loop's to write.\"\"\"
    thread = threading.Thread(target=session.push, args=(b"much" * 50_000,))
    thread.start()
    thread.join()
"""

# Schedules a callback, then forks.
PENDING = """
def called():
    report("called", os.getpid())

def do_schedule_and_fork(session):
    global timer
    timer = compat.{call}
    return fork()

def do_cancel(session):
    timer.cancel()

def do_pending(session):
    return timer.pending
"""

# At the fork, a number below those of its waker is free.
SIGNALS = """
spare = os.open(os.devnull, os.O_RDONLY)

def fork(fork=fork):
    os.close(spare)
    return fork()

def do_fork(session):
    return fork()

def called(signum=0):
    report("called", os.getpid())

def on_fork_signal(*args):
    if not fork():
        compat.call_soon_threadsafe(called)

signal.signal(signal.SIGUSR2, on_fork_signal)

def do_fork_in_the_wait(session):
    in_a_thread(os.kill, os.getpid(), signal.SIGUSR2)

def run():
    with compat.on_signals([signal.SIGUSR1], called):
        compat.loop(3600, loop=sys.argv[1])
"""

# At the fork, no descriptor can be opened any more.
FULL = """
import resource

def fork_full(fork=os.fork):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        return fork()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

os.fork = fork_full
"""

# A second loop: its own thread, map and listener.
BESIDE = """
beside = {}
Server("beside", beside)

def run_beside():
    compat.loop(3600, map=beside, loop=sys.argv[1])

threading.Thread(target=run_beside, daemon=True).start()

def do_is_running(session):
    return compat.is_running(beside)
"""

# A child that runs, in its only thread, the map that the other thread ran.
TAKE_OVER = """
def serve(map):
    listener, session, *others = beside.values()
    session.handle_close = lambda: report("closes", os.getpid())
    in_a_thread(session.close_when_done, map=beside)
    Server(map=beside)
    run_beside()
    os._exit(1)
"""


class Server:
    """The process under test, its forked child, and a peer of each."""

    def __init__(self, program: Process) -> None:
        self.program = program
        self.peer = self.visit(program.pid)

    def visit(self, pid: int, door: str = "port") -> Peer:
        port = self.program.wait_for(rf"^{door} {pid} (\d+)$")[1]
        return Peer(("127.0.0.1", int(port)))

    def request(self, line: str, peer: Peer | None = None) -> str:
        """Send a line; return the answer."""
        peer = peer or self.peer
        peer.got = b""
        peer.send(f"{line}\n")
        return peer.wait_for("\n").decode().rstrip("\n")

    def answer(self, line: str, peer: Peer | None = None) -> str:
        """Send a line that the parent must answer; return its answer."""
        pid, _, answer = self.request(line, peer).partition(" answers ")
        assert int(pid) == self.program.pid
        return answer

    def fork(self, how: str = "!fork", peer: Peer | None = None) -> int:
        """Make the process fork; return the child's process id."""
        return int(self.answer(how, peer))

    def reap(self, child: int, peer: Peer | None = None) -> None:
        """End the child; until then it must receive none of the parent's data."""
        ours, theirs = peer or self.peer, self.visit(child)
        ours.got = b""
        ours.send("!reap\n")
        self.program.wait_for(f"^reaping {child}$")
        # The parent's loop does not run now. A child that still listened would receive
        # this before the second of its lines at the latest.
        ours.send("mine\n")
        for word in ("one", "two"):
            assert self.request(word, theirs) == f"{child} answers {word}"
        theirs.send("!exit\n")
        theirs.wait_for_end()
        pid = self.program.pid
        answers = b"%d answers 7\n%d answers mine\n" % (pid, pid)
        assert ours.wait_for("mine\n") == answers


@contextmanager
def server(loop: str, more: str = "") -> Iterator[Server]:
    source = SERVER + more + START
    argv = (sys.executable, "-c", source, loop)
    with process(*argv, cwd=ROOT, start_new_session=True) as program:
        try:
            yield Server(program)
        finally:
            # SIGKILL needs no handler: another signal that arrives right before the
            # wait does not end it, unless the loop handles signals.
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
    assert program.err == []


def assert_serves(parent: Server, door: str = "port", peer: Peer | None = None) -> None:
    """Check that the parent serves an old and a new client."""
    assert parent.answer("old", peer) == "old"
    assert parent.answer("new", parent.visit(parent.program.pid, door)) == "new"


def assert_both_serve(parent: Server, child: int) -> None:
    """Check that the parent serves an old and a new client, and the child its own."""
    pid = parent.program.pid
    theirs = [parent.visit(child), parent.visit(child)]
    ours = [parent.peer, parent.visit(pid)]
    for word in ("one", "two"):
        for peer in theirs:
            assert parent.request(word, peer) == f"{child} answers {word}"
        for peer in ours:
            assert parent.request(word, peer) == f"{pid} answers {word}"


@pytest.mark.parametrize("run", RUNS)
def test_parent_and_child_go_on_serving(run: str, loop: str) -> None:
    with server(loop, RUNS[run]) as parent:
        child = parent.fork()
        assert_both_serve(parent, child)
        parent.reap(child)
        assert_serves(parent)


# Channels that a child drops.


@pytest.mark.parametrize("how", LET_GO)
def test_channel_dropped_by_a_child_stays_open_in_the_parent(
    how: str, loop: str
) -> None:
    with server(loop, f"def let_go(channel): {LET_GO[how]}\n") as parent:
        child = parent.fork()
        assert_both_serve(parent, child)
        parent.reap(child)
        assert_serves(parent)


@pytest.mark.parametrize("how", LET_GO)
@pytest.mark.parametrize("which", ["accepting", "connected"])
def test_child_that_drops_one_channel_disturbs_no_other(
    which: str, how: str, loop: str
) -> None:
    more = LET_GO_OF_ONE.format(which=which, how=LET_GO[how])
    with server(loop, more) as parent:
        child = parent.fork()
        assert parent.request("hi", parent.visit(child)) == f"{child} answers hi"
        assert_serves(parent)
        parent.reap(child)
        assert_serves(parent)


def test_data_for_a_closed_session_reaches_no_new_session(loop: str) -> None:
    """A session closed in the parent stays open in the child, and reports in both."""
    with server(loop, KEEP_OPEN + CLOSE) as parent:
        old = parent.visit(parent.program.pid)
        assert parent.answer("hi", old) == "hi"
        child = parent.fork()
        old.send("!close\n")
        parent.program.wait_for("^closed$")
        # The new session has the closed session's number now.
        new = parent.visit(parent.program.pid)
        assert parent.answer("new", new) == "new"
        old.send("which process is it?\n")
        for word in ("one", "two"):
            assert parent.answer(word, new) == word
        parent.reap(child)
        assert old.wait_for_end() == b"%d answers hi\n" % parent.program.pid
        assert_serves(parent, peer=new)


# Callbacks from another thread.


@pytest.mark.parametrize("who", ["child", "parent"])
def test_another_thread_wakes_the_loop_of_its_own_process(who: str, loop: str) -> None:
    with server(loop, THREADS) as parent:
        pid, child = parent.program.pid, parent.fork()
        ours, theirs = (pid, child) if who == "parent" else (child, pid)
        peer = parent.visit(ours)
        assert parent.request("!push", peer) == "much" * 50_000 + f"{ours} answers None"
        parent.request("!soon", peer)
        peer.wait_for("soon\n")
        parent.request("!leave", peer)
        peer.wait_for_end()
        assert parent.request("!wakes", parent.visit(ours)) != f"{ours} answers 0"
        # The turn of the first of two lines read all available data.
        other = parent.visit(theirs)
        assert parent.request("one", other) == f"{theirs} answers one"
        assert parent.request("!wakes", other) == f"{theirs} answers 0"
        parent.reap(child)


def test_child_without_free_descriptors_has_its_own_waker(loop: str) -> None:
    with server(loop, THREADS + FULL) as parent:
        child = parent.fork()
        theirs = parent.visit(child)
        parent.request("!soon", theirs)
        theirs.wait_for("soon\n")
        assert parent.answer("one") == "one"
        assert parent.answer("!wakes") == "0"
        parent.reap(child)


def test_a_child_forked_in_the_wait_is_woken(loop: str) -> None:
    """A signal handler forks: select() goes on waiting for its old numbers."""
    with server(loop, KEEP_OPEN + THREADS + SIGNALS) as parent:
        parent.answer("!fork_in_the_wait")
        child = int(parent.program.wait_for(r"^called (\d+)$")[1])
        assert_both_serve(parent, child)
        parent.reap(child)


def test_signal_to_a_child_reaches_only_the_child(loop: str) -> None:
    """Python writes signals to a number, which must be the waker's, not a session's."""
    with server(loop, KEEP_OPEN + SIGNALS) as parent:
        child = parent.fork()
        theirs = [parent.visit(child) for _ in range(3)]
        for peer in theirs:
            assert parent.request("hi", peer) == f"{child} answers hi"
        os.kill(child, signal.SIGUSR1)
        parent.program.wait_for(f"^called {child}$")
        for peer in theirs:
            assert parent.request("ho", peer) == f"{child} answers ho"
        parent.reap(child)
        assert f"called {parent.program.pid}" not in parent.program.out


# Other threads that run loops.


@pytest.mark.parametrize("forker", ["port", "beside"])
def test_fork_while_another_thread_runs_a_loop(forker: str, loop: str) -> None:
    """The child has the forking thread's loop; the parent goes on with both."""
    with server(loop, BESIDE) as parent:
        pid = parent.program.pid
        peers = {door: parent.visit(pid, door) for door in ("port", "beside")}
        for peer in peers.values():
            assert parent.answer("before", peer) == "before"
        child = parent.fork(peer=peers[forker])
        theirs = parent.visit(child)
        for door, peer in peers.items():
            assert parent.request("theirs", theirs) == f"{child} answers theirs"
            assert_serves(parent, door, peer)
        parent.reap(child, peers[forker])
        for door, peer in peers.items():
            assert_serves(parent, door, peer)


def test_thread_lost_in_a_fork_runs_no_loop_in_the_child(loop: str) -> None:
    with server(loop, BESIDE) as parent:
        assert parent.answer("hi", parent.visit(parent.program.pid, "beside")) == "hi"
        child = parent.fork()
        answer = parent.request("!is_running", parent.visit(child))
        assert answer == f"{child} answers False"
        assert parent.answer("!is_running") == "True"
        parent.reap(child)


def test_child_runs_the_map_of_another_thread_of_its_parent(loop: str) -> None:
    """And a channel's announcement wakes it, not the loop that is gone."""
    with server(loop, BESIDE + THREADS + TAKE_OVER) as parent:
        peer = parent.visit(parent.program.pid, "beside")
        assert parent.answer("hi", peer) == "hi"
        # The thread must be done with the first session when the other one forks.
        assert_serves(parent, "beside", parent.visit(parent.program.pid, "beside"))
        child = parent.fork()
        parent.program.wait_for(f"^closes {child}$")
        parent.reap(child)
        assert_serves(parent, "beside", peer)


# Callbacks that are pending at the fork.


@pytest.mark.parametrize(
    "call",
    [
        "call_later(0, called)",
        "call_later(0.001, called)",
        "call_soon_threadsafe(called)",
    ],
)
def test_callback_pending_at_a_fork_runs_once_per_process(call: str, loop: str) -> None:
    with server(loop, PENDING.format(call=call)) as parent:
        child = parent.fork("!schedule_and_fork")
        both = [f"called {pid}" for pid in (parent.program.pid, child)]
        for line in both:
            parent.program.wait_for(f"^{line}$")
        parent.reap(child)
        out = parent.program.out
        assert sorted(both) == sorted(line for line in out if line.startswith("called"))


@pytest.mark.parametrize("who", ["child", "parent"])
def test_timer_cancelled_in_one_process_runs_in_the_other(who: str, loop: str) -> None:
    with server(loop, PENDING.format(call="call_later(3600, called)")) as parent:
        pid, child = parent.program.pid, parent.fork("!schedule_and_fork")
        ours, theirs = (pid, child) if who == "parent" else (child, pid)
        parent.request("!cancel", parent.visit(ours))
        for pid, pending in ((ours, False), (theirs, True)):
            answer = parent.request("!pending", parent.visit(pid))
            assert answer == f"{pid} answers {pending}"
        parent.reap(child)
