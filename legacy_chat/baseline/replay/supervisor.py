"""Runs a server under test, and terminates it with all its descendants.

    python -I -S supervisor.py COMMAND [ARGUMENT …]

When standard input closes, the guard terminates the server, also if the caller was
killed. Standard output carries the reason if the command cannot run, and is closed once
it runs. Standard error is the server's output. The exit status is the server's, or 128
plus the number of the signal that killed it.

Rule 1: the server's process group gets SIGTERM, and after GRACE seconds SIGKILL.
Rule 2: no descendant survives the server. On Linux, this includes descendants in
another session, because orphans become children of this process.
Rule 3: if this process is killed, Linux kills the server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

# Seconds between SIGTERM and SIGKILL.
GRACE = 2.0

# Exit status if the command cannot be run.
CANNOT_RUN = 127

# From linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run *command* until it ends or standard input closes; return its status."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            # Safe, because no other thread runs yet.
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
        )
    except (OSError, ValueError) as error:
        sys.stdout.buffer.write(str(error).encode("utf8", "replace"))
        return CANNOT_RUN
    os.close(sys.stdout.fileno())
    ended = threading.Event()
    threading.Thread(
        target=_end_with_caller, args=(server.pid, ended), daemon=True
    ).start()
    status = server.wait()
    ended.set()
    _signal_group(server.pid, signal.SIGKILL)
    while sum(map(_kill, _children())):
        os.wait()
    return status if status >= 0 else 128 - status


def _end_with_caller(group: int, ended: threading.Event) -> None:
    while os.read(0, 1):
        pass
    _signal_group(group, signal.SIGTERM)
    if not ended.wait(GRACE):
        _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, signum: int) -> None:
    # The group is empty, or its processes belong to another user.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


def _kill(pid: int) -> bool:
    """Kill the process; return whether that is possible."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _children() -> Iterator[int]:
    """Yield the children of this process; none on systems other than Linux."""
    own = str(os.getpid())
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        # Not a process, or one that ends during the read.
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # "PID (NAME) STATE PARENT …", where NAME may contain anything.
            fields = file.read().decode("latin1").rpartition(")")[2].split()
            if name.isdecimal() and fields[1] == own:
                yield int(name)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
