"""The reference: the tutorial's server, unmodified, on the original modules.

    python -m tests.original ../shared/tutorial/server.py [PORT]

Rule 1: script and modules run unmodified. Only their address is changed, below them, in
``socket``: the script's fixed address becomes a loopback port, a free one by default.
Rule 2: the process that runs the script imports none of our code but this file.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support import Process

__all__ = ["COMMAND", "MISSING", "SCRIPT", "original_room"]

# Environment variable: the script's path, if it is not beside the checkout.
VARIABLE = "LEGACY_CHAT_TUTORIAL"

ROOT = Path(__file__).resolve().parent.parent
BESIDE_US = ROOT.parent / "shared" / "tutorial" / "server.py"
SCRIPT = Path(os.environ.get(VARIABLE) or BESIDE_US).absolute()

# The reason why the original cannot run here; empty if it can.
MISSING = (
    ""
    if SCRIPT.is_file()
    else f"the original is missing: {SCRIPT} is not a file; name the tutorial's "
    f"server.py in the environment variable {VARIABLE}"
)

# The command that starts the original, for legacy-chat baseline.
COMMAND = shlex.join(
    ["{python}", "-u", "-P", str(Path(__file__).resolve()), str(SCRIPT), "{port}"]
)

# The address that the script listens on.
FIXED = ("0.0.0.0", 19528)


@contextmanager
def original_room() -> Iterator[tuple[Process, tuple[str, int]]]:
    """Run the original in its own process; yield the process and its address."""
    # Not above: rule 2.
    from tests.support import process

    command = (sys.executable, "-u", "-m", "tests.original", str(SCRIPT))
    with process(*command, cwd=ROOT) as server:
        port = server.wait_for(r"port (\d+)", err=True)[1]
        server.wait_for(r"\*\*\*server start\*\*\*")
        yield server, ("127.0.0.1", int(port))


def main(path: str, port: str = "0") -> None:
    """Run the script at *path*; print its port to standard error."""
    # The deprecation is why this project exists; hide it in every run.
    warnings.filterwarnings(
        "ignore", r"The asyn(core|chat) module is deprecated", DeprecationWarning
    )
    bind = socket.socket.bind

    def bind_elsewhere(self: socket.socket, address: Any) -> None:
        if address != FIXED:
            return bind(self, address)
        bind(self, ("127.0.0.1", int(port)))
        print("port", self.getsockname()[1], file=sys.stderr, flush=True)
        return None

    socket.socket.bind = bind_elsewhere  # type: ignore[assignment, method-assign]
    with contextlib.suppress(KeyboardInterrupt):
        runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
