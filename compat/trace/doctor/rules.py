"""The doctor's rules, in the order in which they report."""

from __future__ import annotations

from compat.trace.doctor.busy_loops import (
    BusyWriter,
    IgnoredEnd,
    SpinningListener,
    UnreadInput,
    UnreadUrgentData,
)
from compat.trace.doctor.errors import EscapedErrors, SwallowedErrors
from compat.trace.doctor.limits import FullTrace, Gaps, SelectLimit
from compat.trace.doctor.queues import GrowingBacklog, SlowReaders, WritesAfterClose
from compat.trace.doctor.rule import Rule
from compat.trace.doctor.slow_code import SlowCallbacks, SlowInterest

__all__ = ["RULES"]

RULES: tuple[type[Rule], ...] = (
    EscapedErrors,
    SpinningListener,
    IgnoredEnd,
    UnreadInput,
    BusyWriter,
    UnreadUrgentData,
    SlowCallbacks,
    WritesAfterClose,
    GrowingBacklog,
    SlowReaders,
    SelectLimit,
    SwallowedErrors,
    SlowInterest,
    FullTrace,
    Gaps,
)
