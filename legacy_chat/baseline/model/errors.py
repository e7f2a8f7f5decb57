"""Errors that keep a conversation from being played or read.

Rule: a difference between two servers is not an error, and an error never counts as
"the same".
"""

from __future__ import annotations

__all__ = [
    "OUTPUT_PREFIX",
    "FormatError",
    "NeverQuietError",
    "ReferenceFailedError",
    "ReplayError",
]

# In an error's message, the prefix of each output line of a server that failed.
OUTPUT_PREFIX = "\n  | "


class ReplayError(Exception):
    """A conversation was not played to its end: the server's answer is unknown.

    All that connects to a server raises this error: the server cannot be started or
    reached, it hangs, or it sends without end.
    """


class NeverQuietError(ReplayError):
    """Data kept arriving, so that a step did not end."""


class ReferenceFailedError(ReplayError):
    """A conversation could not be played to the reference server."""


class FormatError(ValueError):
    """A file is invalid; the message has its name, the place and the reason."""
