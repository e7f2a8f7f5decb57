"""Errors that keep a conversation from being played or read.

Rule: a difference between two servers is not an error, and an error is never "the
same".
"""

from __future__ import annotations

__all__ = [
    "LAST_WORDS",
    "FormatError",
    "NeverQuietError",
    "ReferenceFailedError",
    "RunError",
]

# In an error's message, the prefix of each output line of a server that failed.
LAST_WORDS = "\n  | "


class RunError(Exception):
    """A conversation that was not played to its end: the server's answer is unknown."""


class NeverQuietError(RunError):
    """Data kept arriving, so that a step did not end."""

    def __init__(self, quiet: float, timeout: float) -> None:
        super().__init__(
            f"the server was never quiet for {quiet:g} s within {timeout:g} s"
        )


class ReferenceFailedError(RunError):
    """A conversation that could not be played to the reference server."""


class FormatError(ValueError):
    """An invalid file; the message has its name, the place and the reason."""
