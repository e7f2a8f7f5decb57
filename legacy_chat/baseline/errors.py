"""What can go wrong around a conversation, as opposed to in it.

Rule: a difference between two servers is no error, and an error is never "the same".
"""

from __future__ import annotations

__all__ = [
    "LAST_WORDS",
    "FormatError",
    "NeverQuietError",
    "ReferenceFailedError",
    "RunError",
]

# Before each line, in the message of an error, that a server has printed which failed.
LAST_WORDS = "\n  | "


class RunError(Exception):
    """A conversation could not be played to its end: nothing is known of the server."""


class NeverQuietError(RunError):
    """Data kept arriving, so a step had no end."""

    def __init__(self, quiet: float, timeout: float) -> None:
        super().__init__(
            f"the server was never quiet for {quiet:g} s within {timeout:g} s"
        )


class ReferenceFailedError(RunError):
    """It is the reference that a conversation could not be played to."""


class FormatError(ValueError):
    """A file is not what it should be; the message says which, where, and why."""
