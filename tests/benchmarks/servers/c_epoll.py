"""The server in C: this process is replaced by the program.

Rule: the program has no file when it runs, so a killed server leaves none behind.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.benchmarks import c_program
from tests.benchmarks.servers import wire

__all__ = ["echo", "room", "room_echo"]

SOURCE = Path(__file__).with_name("epoll.c")


def room(port: int, variant: str) -> None:
    """Serve the room."""
    _serve(port, "room", variant)


def room_echo(port: int, variant: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, "room_echo", variant)


def echo(port: int, variant: str) -> None:
    """Serve the echo protocol."""
    _serve(port, "echo", variant)


def _serve(port: int, protocol: str, variant: str) -> None:
    words = c_program.compiler()
    if words is None:
        raise SystemExit(c_program.NO_COMPILER)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "epoll")
        c_program.build(words, [SOURCE], program)
        executable = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    listener = wire.listen(port).detach()
    os.set_inheritable(listener, True)
    os.execve(executable, ("epoll", protocol, variant, str(listener)), os.environ)
