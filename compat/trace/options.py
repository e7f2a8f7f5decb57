"""The options of a command that can write a trace: ``--trace``, and its limits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from compat.options import Option
from compat.trace import tracing
from compat.trace.format import DEFAULT_PAYLOAD, DEFAULT_SIZE, MAX_SIZE, MIN_SIZE
from compat.values import byte_count, shown

__all__ = ["TRACE", "TraceOptions", "check_trace", "trace_mistake", "traced"]


class TraceOptions(Protocol):
    """The values of the options in TRACE."""

    trace: str | None
    trace_payload: int | None
    trace_max: int


def trace_mistake(options: TraceOptions) -> str:
    """Return the error in the combination of the options; "" for none."""
    limited = (
        options.trace_payload != DEFAULT_PAYLOAD or options.trace_max != DEFAULT_SIZE
    )
    if options.trace is None and limited:
        return "--trace-payload and --trace-max need --trace FILE"
    return ""


def check_trace(options: TraceOptions) -> None:
    """Raise OSError if the trace cannot be written; change nothing."""
    if options.trace is not None and options.trace != "-":
        # Imported here, because most programs are never traced.
        from compat.trace.record.sink import check_file

        check_file(options.trace)


def traced(
    options: TraceOptions, program: str | None = None
) -> AbstractContextManager[None]:
    """Return a context manager that writes the requested trace, if any.

    Args:
        program: as for compat.tracing.

    Raises:
        OSError: when it is entered: the file cannot be written.
    """
    if options.trace is None:
        return nullcontext()
    return tracing(options.trace, options.trace_payload, options.trace_max, program)


def _payload(text: str) -> int | None:
    if text == "none":
        return None
    size = byte_count(text) if text.isdecimal() else -1
    if not 0 <= size <= MAX_SIZE:
        rule = f"none or a number of bytes from 0 to {MAX_SIZE}"
        raise ValueError(f"must be {rule}, got {shown(text)}")
    return size


def _size(text: str) -> int:
    size = byte_count(text)
    if not MIN_SIZE <= size <= MAX_SIZE:
        rule = f"a number of bytes from {MIN_SIZE} to {MAX_SIZE}, such as 64M"
        raise ValueError(f"must be {rule}, got {shown(text)}")
    return size


TRACE = (
    Option(
        "--trace FILE",
        "record the events of the loop, for python -m compat.trace; -: print them on "
        "standard error while the program runs",
    ),
    Option(
        "--trace-payload BYTES",
        "record only the first bytes of each message; none: only its size; "
        f"0 to {MAX_SIZE}",
        type=_payload,
        default=DEFAULT_PAYLOAD,
    ),
    Option(
        "--trace-max BYTES",
        "end the record, not the program, at this size, in bytes or with K, M or G; "
        f"4K to 1024G (default: {DEFAULT_SIZE >> 20}M)",
        type=_size,
        default=DEFAULT_SIZE,
    ),
)
