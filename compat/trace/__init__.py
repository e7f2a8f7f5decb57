"""What a loop does, written down: one JSON object a line, for any asyncore program.

    >>> import compat
    >>> with compat.tracing("room.trace"):
    ...     compat.loop()

``python -m compat --trace FILE SCRIPT`` and ``legacy-chat serve --trace FILE`` do the
same; ``python -m compat.trace VIEW FILE`` shows it. The format of the
file is described in compat.trace.format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from compat.trace.format import LARGEST, PAYLOAD

__all__ = ["tracing"]


@contextmanager
def tracing(
    path: str | os.PathLike[str],
    payload: int | None = PAYLOAD,
    max_bytes: int = LARGEST,
    program: str | None = None,
) -> Iterator[None]:
    """While this lasts, write down what every asyncore loop of the process does.

    Args:
        path: a file, which is written anew when something happens, and is left as it
            was if an exception is raised before; "-" prints text on standard error.
            A new file is readable by its owner alone; one that is there keeps its mode.
        payload: bytes that are kept of what is read, said or sent; None for none, nor
            what exceptions say, for they may repeat it.
        max_bytes: of the file; then the trace ends, and the program goes on untraced.
        program: what the header says that it is; None for the command line.

    A pipe, a FIFO or a terminal never makes the program wait for its reader. What the
    reader has not taken waits, up to 1 MiB; beyond that, lines are dropped and counted,
    the trace says where, and the log says so once. A FIFO may get its reader later. A
    regular file is written as the system takes it: a disk that stalls stalls the
    program.

    Whose loop it is does not matter: compat's, installed or not, or asyncore's own. A
    forked child is not traced. Tracebacks show a line of compat for each call that is
    traced.

    Raises:
        OSError: the file cannot be written, or another program writes a trace to it.
        RuntimeError: something is being traced already.
        TypeError: *payload* or *max_bytes* is no whole number.
        ValueError: *payload* is negative; *max_bytes* is less than 4,096; one of them
            is more than 1024 GiB.
    """
    # Here, for most programs are never traced.
    from compat.trace.record.session import begin

    session = begin(os.fspath(path), payload, max_bytes, program)
    try:
        yield
    except BaseException as error:
        session.end(failed=not isinstance(error, SystemExit))
        raise
    session.end()
