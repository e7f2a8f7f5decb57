"""mypy on programs that use asyncore, asynchat and compat.

Rule 1: a program is checked as its author would check it: mypy runs in its own process,
outside the checkout, with the packages where it finds installed ones.
Rule 2: comments in a program mark its mistakes and mypy's names for them; mypy must
report exactly these.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import compat
from tests.support import DEADLINE

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None,
    reason="mypy is not installed; it comes with legacy-chat[lint]",
)

Check = Callable[[str, str], str]

PACKAGES = Path(compat.__file__).parent.parent
MODULES = ("asyncore", "asynchat")

RIGHT = """\
import asynchat
import asyncore
import socket
import sys
from collections import UserDict
from typing import Any

import compat
from legacy_chat import ChatServer, ChatSession


class Door(asyncore.dispatcher):
    def __init__(self, map: dict[int, Any] | None = None) -> None:
        super().__init__(map=map)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind(("127.0.0.1", 0))
        self.listen(5)

    def writable(self) -> bool:
        return False

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        Echo(sock)


class Echo(asyncore.dispatcher_with_send):
    def handle_read(self) -> None:
        self.send(self.recv(8192))


class Lines(asynchat.async_chat):
    ac_in_buffer_size = 4096
    use_encoding = True

    def __init__(self, sock: socket.socket, addr: str) -> None:
        super().__init__(sock)
        self.addr = addr
        self.received: list[bytes] = []
        self.set_terminator(b"\\r\\n")

    def collect_incoming_data(self, data: bytes) -> None:
        self.received.append(data)

    def found_terminator(self) -> None:
        self.push(b"".join(self.received))
        self.push_with_producer(asynchat.simple_producer(b"data", 2))
        self.close_when_done()


class Announcing(compat.async_chat):
    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)
        self.interest_changed()

    def found_terminator(self) -> None:
        self.close_when_done()


class Loud(ChatSession):
    def broadcasting(self, msg: str | bytes) -> None:
        super().broadcasting(self.decode_msg(msg).upper())


class Room(ChatServer):
    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        super().handle_accepted(sock, addr)
        print(len(self.clients), self.port)


channels: dict[int, Any] = {}
room = Room(5, "127.0.0.1", port=0, map=channels, session_class=Loud)
timer: compat.Timer = compat.call_later(0.5, room.close, map=channels)
compat.call_soon_threadsafe(timer.cancel, map=channels)
compat.loop(0.1, map=channels, count=3, loop="selectors")
with compat.install("select"):
    Announcing(socket.socket(), channels)
compat.uninstall()
asyncore.loop(0.1, True, channels, 3)
asyncore.close_all(channels, ignore_all=True)

# For 3.11, mypy prefers its own stubs.
if sys.version_info >= (3, 12):

    class Numbers:
        def more(self) -> bytes | None:
            return None

    class Tuned(asyncore.dispatcher):
        def set_up(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

        def writable(self) -> int:
            return len(self._map) + (self._fileno or 0)

    mapping = UserDict[int, Tuned]()
    Tuned(map=mapping)
    compat.loop(None, map=mapping)
    asyncore.poll(None, mapping)
    asyncore.select = object()
    asyncore.poll3 = asyncore.poll
    asyncore.socket_map = {}
    lines = Lines(socket.socket(), "here")
    lines.push_with_producer(Numbers())
    lines.push(memoryview(b"data"))
    for queued in lines.producer_fifo:
        if queued is not None and not isinstance(queued, bytes | bytearray):
            print(queued[:4] if isinstance(queued, memoryview) else queued.more())
"""

WRONG = """\
import asynchat
import asyncore

import compat
from legacy_chat import ChatSession


class Lines(asynchat.async_chat):
    def collect_incoming_data(self, data: bytes) -> int:  # wrong: override
        self.push("text")  # wrong: arg-type
        self.push_with_producer(object())  # wrong: arg-type
        return len(data)

    def found_terminator(self, data: bytes) -> None:  # wrong: override
        self.set_terminator("out")  # wrong: arg-type


class Session(ChatSession):
    def handle_close(self) -> None:
        self.push(self.user)  # wrong: arg-type
        self.pusch(b"")  # wrong: attr-defined


compat.loop(count="x")  # wrong: arg-type
compat.call_later("x", print)  # wrong: arg-type
asyncore.loop(count="x")  # wrong: arg-type
asyncore.dispatcher(map=[])  # wrong: arg-type
asyncore.dispatcher().listen()  # wrong: call-arg
asyncore.dispatcher().create_socket("inet")  # wrong: arg-type
asyncore.dispatcher_with_send().send("text")  # wrong: arg-type
"""


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Return a function that runs mypy on a program and returns its output."""
    site, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    for package in ("compat", "legacy_chat"):
        without = shutil.ignore_patterns("stubs", "__pycache__")
        shutil.copytree(PACKAGES / package, site / package, ignore=without)
    for module in MODULES:
        shutil.copytree(stubs_of(module), site / f"{module}-stubs")

    def check(program: str, version: str) -> str:
        (work / "program.py").write_text(program, encoding="utf-8")
        options = ("--strict", "--config-file=", "--no-error-summary", "--no-pretty")
        command = ("mypy", *options, "--python-version", version, "program.py")
        return run(work, *command, PYTHONPATH=str(site), MYPYPATH="")

    return check


@pytest.fixture(params=["3.11", "3.12", "3.13", "3.14"])
def version(request: pytest.FixtureRequest) -> str:
    """Each supported version of Python; mypy itself need not run on it."""
    return str(request.param)


def test_program_on_original_and_our_classes_is_strictly_typed(
    check: Check, version: str
) -> None:
    assert check(RIGHT, version) == ""


def test_each_mistake_is_reported_and_nothing_else(check: Check, version: str) -> None:
    said = check(WRONG, version)
    reported = re.findall(r"^program\.py:(\d+): error: .*\[(.+)\]$", said, re.M)
    assert [(int(line), code) for line, code in reported] == marked(WRONG), said


def test_the_stubs_agree_with_the_modules(tmp_path: Path) -> None:
    for module in MODULES:
        shutil.copytree(stubs_of(module), tmp_path / module)
    # By mypy_path: on 3.11, mypy would prefer its own stubs to installed ones.
    said = run(tmp_path, "mypy.stubtest", *MODULES, MYPYPATH=str(tmp_path))
    assert said == "Success: no issues found in 2 modules\n"


def marked(program: str) -> list[tuple[int, str]]:
    lines = enumerate(program.splitlines(), 1)
    marks = ((number, line.partition("  # wrong: ")[2]) for number, line in lines)
    return [(number, code) for number, code in marks if code]


def stubs_of(module: str) -> Path:
    """Return the checkout's stubs or, without a checkout, the installed ones."""
    ours = PACKAGES / "compat" / "stubs" / module
    return ours if ours.exists() else PACKAGES / f"{module}-stubs"


def run(directory: Path, *module_and_arguments: str, **env: str) -> str:
    """Run a module in that folder; return its output with errors."""
    return subprocess.run(
        [sys.executable, "-m", *module_and_arguments],
        cwd=directory,
        # CI switches colours on, which would break the comparison.
        env={**os.environ, "MYPY_FORCE_COLOR": "0", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=DEADLINE * 2,
        check=False,
    ).stdout
