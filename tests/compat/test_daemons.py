"""A process closes descriptors that it does not know, as a daemon does.

Ours are among them. The program then owns files under their numbers: we neither write
to them, nor read from them, nor close them, and go on with new descriptors.

Rule: each program runs in its own process and reaps every child.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.support import ROOT, process

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system does not fork"
)

PROGRAM = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import asyncore, os, signal, socket, sys, threading
import compat

here, there = socket.socketpair()
kept = []

def close_all_others():
    for fd in range(3, 100):
        if fd not in (here.fileno(), there.fileno()):
            try:
                os.close(fd)
            except OSError:
                pass

def nothing():
    "The numbers stay free."

def files():
    kept.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(20))

def sockets():
    for _ in range(10):
        kept.extend(socket.socketpair())

def untouched():
    "Is each opened file still open, and still empty?"
    for each in kept:
        if isinstance(each, int):
            os.fstat(each)
        else:
            each.setblocking(False)
            try:
                return f"a stray {each.recv(9)!r}"
            except BlockingIOError:
                pass
    return "untouched"

class Channel(asyncore.dispatcher):
    def writable(self):
        return False

    def handle_read(self):
        globals()[self.recv(99).decode()]()

    def handle_error(self):
        raise

def in_a_child(act):
    "Fork; the parent ends as the child has ended."
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    act()

end = asyncore.close_all

def run(count=None, timeout=3600):
    compat.loop(timeout, loop=sys.argv[1], count=count)

def reopen():
    close_all_others()
    globals()[sys.argv[2]]()

def wake_from_a_thread():
    compat.call_soon_threadsafe(nothing)
    # Once the loop seems to be idle, as seen from this thread.
    compat.call_later(0.01, threading.Thread(
        target=compat.call_soon_threadsafe, args=(end,)).start)

Channel(here)
"""

OPENED = ("nothing", "files", "sockets")


def assert_runs(source: str, *argv: str) -> None:
    """Run the program; it must report its files untouched, and print nothing else."""
    source = PROGRAM + source + "print(untouched())\n"
    with process(sys.executable, "-c", source, *argv, cwd=ROOT) as program:
        assert (program.wait(), program.out, program.err) == (0, ["untouched"], [])


def test_signal_in_a_child_writes_to_none_of_its_sockets(loop: str) -> None:
    source = """
low = [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]

def fork():
    # Two numbers below all of ours are free now.
    for fd in low:
        os.close(fd)
    in_a_child(sockets)
    os.kill(os.getpid(), signal.SIGUSR1)

there.send(b"fork")
with compat.on_signals([signal.SIGUSR1], lambda signum: end()):
    run()
"""
    assert_runs(source, loop)


@pytest.mark.parametrize("opened", OPENED)
def test_daemon_may_run_its_loop_before_it_closes_everything(
    loop: str, opened: str
) -> None:
    source = """
run(count=1, timeout=0)
in_a_child(reopen)
there.send(b"wake_from_a_thread")
run()
"""
    assert_runs(source, loop, opened)


# A selector is kept too, and nothing distinguishes it from another one.
@pytest.mark.parametrize("without_selector", ["select", "poll"])
@pytest.mark.parametrize("opened", OPENED)
def test_daemon_that_does_not_fork_may_close_everything(
    without_selector: str, opened: str
) -> None:
    source = """
run(count=1, timeout=0)
reopen()
there.send(b"wake_from_a_thread")
run()
"""
    assert_runs(source, without_selector, opened)


@pytest.mark.parametrize("opened", OPENED)
def test_child_forked_in_a_handler_may_close_other_descriptors(
    loop: str, opened: str
) -> None:
    source = """
def fork():
    in_a_child(reopen)
    there.send(b"wake_from_a_thread")

there.send(b"fork")
run()
"""
    assert_runs(source, loop, opened)


@pytest.mark.parametrize("opened", OPENED)
def test_signal_before_the_childs_next_turn_is_written_nowhere(
    loop: str, opened: str
) -> None:
    source = """
def fork():
    in_a_child(reopen)
    os.kill(os.getpid(), signal.SIGUSR1)

there.send(b"fork")
with compat.on_signals([signal.SIGUSR1], lambda signum: end()):
    run()
assert signal.set_wakeup_fd(-1) == -1
"""
    assert_runs(source, loop, opened)


@pytest.mark.parametrize("opened", OPENED)
def test_signal_ends_the_wait_of_a_child_that_closed_everything(
    loop: str, opened: str
) -> None:
    source = """
def fork():
    in_a_child(reopen)
    compat.call_soon_threadsafe(nothing)
    # Not in this turn, however long it takes.
    compat.call_later(0, compat.call_later, 0.01, os.kill, os.getpid(), signal.SIGUSR1)

there.send(b"fork")
with compat.on_signals([signal.SIGUSR1], lambda signum: end()):
    run()
assert signal.set_wakeup_fd(-1) == -1
"""
    assert_runs(source, loop, opened)


def test_a_daemon_may_close_everything_after_its_last_turn(loop: str) -> None:
    source = """
run(count=1, timeout=0)
in_a_child(reopen)
from compat.loop import close_kept
close_kept()
"""
    assert_runs(source, loop, "files")
