"""What the command lines say about a trace: ``--trace``, and what belongs to it."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from compat.trace import tracing
from compat.trace.format import DEFAULT_PAYLOAD, DEFAULT_SIZE, MAX_SIZE, MIN_SIZE
from compat.values import shown

__all__ = ["TraceOptions", "add_options", "check_trace", "trace_mistake", "traced"]

# Digits of that; Python refuses to read thousands of them.
DIGITS = len(str(MAX_SIZE))

UNITS = {"K": 10, "M": 20, "G": 30}


class TraceOptions(Protocol):
    """What was given."""

    trace: str | None
    trace_payload: int | None
    trace_max: int


def add_options(parser: argparse._ActionsContainer) -> None:
    """Let a parser take them."""
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write down what the loop does, for python -m compat.trace; "
        "-: print it on standard error while the program runs",
    )
    parser.add_argument(
        "--trace-payload",
        type=_payload,
        default=DEFAULT_PAYLOAD,
        metavar="BYTES",
        help="that are kept of what is read, said or sent; none: only how many there "
        f"were; 0 to {MAX_SIZE} (default: %(default)s)",
    )
    parser.add_argument(
        "--trace-max",
        type=_size,
        default=DEFAULT_SIZE,
        metavar="BYTES",
        help="of trace, or with K, M or G behind it, after which the program goes on "
        f"without; 4K to 1024G (default: {DEFAULT_SIZE >> 20}M)",
    )


def trace_mistake(given: TraceOptions) -> str:
    """What is wrong with the options together; "" if nothing is."""
    limited = given.trace_payload != DEFAULT_PAYLOAD or given.trace_max != DEFAULT_SIZE
    if given.trace is None and limited:
        return "--trace-payload and --trace-max say how --trace FILE is to be written"
    return ""


def check_trace(given: TraceOptions) -> None:
    """Find out whether it can be written, before there is something to write.

    Raises:
        OSError: it cannot.
    """
    if given.trace is not None and given.trace != "-":
        # Here, for most programs are never traced.
        from compat.trace.record.sink import check_file

        check_file(given.trace)


def traced(
    given: TraceOptions, program: str | None = None
) -> AbstractContextManager[None]:
    """Trace what follows, if that is asked for.

    Args:
        program: as for compat.tracing.

    Raises:
        OSError: when it is entered: the file cannot be written.
    """
    if given.trace is None:
        return nullcontext()
    return tracing(given.trace, given.trace_payload, given.trace_max, program)


def _payload(text: str) -> int | None:
    if text == "none":
        return None
    size = _whole_number(text)
    if not 0 <= size <= MAX_SIZE:
        raise argparse.ArgumentTypeError(
            f"must be none or a number of bytes from 0 to {MAX_SIZE}, got {shown(text)}"
        )
    return size


def _size(text: str) -> int:
    number, unit = text, 0
    if text[-1:].upper() in UNITS:
        number, unit = text[:-1], UNITS[text[-1].upper()]
    size = _whole_number(number) << unit
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise argparse.ArgumentTypeError(
            f"must be a number of bytes from {MIN_SIZE} to {MAX_SIZE}, such as 64M, "
            f"got {shown(text)}"
        )
    return size


def _whole_number(text: str) -> int:
    """Return the number; -1 for what is none, or is longer than any that is allowed."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= DIGITS
    return int(text) if is_number else -1
