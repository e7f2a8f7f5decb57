"""Record the turns of any asyncore loop, one JSON object a line.

    >>> import compat
    >>> with compat.tracing("room.trace"):
    ...     compat.loop()

``python -m compat --trace FILE SCRIPT`` and ``legacy-chat serve --trace FILE`` do the
same. ``python -m compat.trace VIEW FILE`` shows a trace. compat.trace.format describes
the file.

Rule: the rest of compat imports this module only, and this module imports the recorder
only when a trace begins: most programs are never traced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from compat.trace.format import DEFAULT_PAYLOAD, DEFAULT_SIZE

__all__ = ["tracing"]


@contextmanager
def tracing(
    path: str | os.PathLike[str],
    payload: int | None = DEFAULT_PAYLOAD,
    max_bytes: int = DEFAULT_SIZE,
    program: str | None = None,
) -> Iterator[None]:
    """Context manager: trace every asyncore loop of the process.

    It traces asyncore's own loop as well as compat's, installed or not. A forked child
    is not traced. Tracebacks have one more line of compat for each traced call.

    A pipe, FIFO or terminal never blocks the program. Up to 1 MiB waits for its
    reader, which may open a FIFO later. Further lines are dropped and counted; the
    trace marks the place, and the log reports it once. A stalled disk stalls the
    program.

    Args:
        path: a file, overwritten by the first event, or "-" for text on standard
            error. Only its owner can read a new file; an existing one keeps its mode.
        payload: bytes kept of each read, push and send. None for none, nor messages of
            exceptions, which may quote data.
        max_bytes: size limit of the file. It ends the trace, not the program.
        program: the program's name in the header; None for the command line.

    Raises:
        OSError: the file cannot be written, or another process writes a trace to it.
        RuntimeError: a trace is active already.
        TypeError: *payload* or *max_bytes* is not an integer.
        ValueError: *payload* is negative; *max_bytes* is below 4,096; one of them
            exceeds 1024 GiB.
    """
    from compat.trace.record.session import begin

    session = begin(os.fspath(path), payload, max_bytes, program)
    try:
        yield
    except BaseException as error:
        session.end(failed=not isinstance(error, SystemExit))
        raise
    session.end()
