"""The log: a line for an event, for people or for programs.

Rule 1: an event is a line. Nothing that is logged can begin another one, and control
characters are escapes; the lines of a traceback are indented.
Rule 2: writing it stops nothing; lines that were lost are told of when there is
somebody to tell.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from legacy_chat.escapes import one_line
from legacy_chat.output import PATIENCE, write_line

__all__ = ["FORMATS", "Handler", "JsonFormatter", "TextFormatter", "configure"]

# What every record has; all else is an event's own.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,000 WARNING message``, a traceback indented below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # theirs
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # theirs
        # By "\n" alone: other ends of lines are escaped.
        return "\n".join(
            "    " + one_line(line) for line in super().formatException(ei).split("\n")
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``message``, and what is told.

    An event has its own fields: ``event``, ``client``, ``reason`` and so on; an error
    ``exception``, the traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _USUAL:
                told[name] = value
        if record.exc_info:
            told["exception"] = super().formatException(record.exc_info)
        # ASCII: no character of anybody's is left to be misunderstood.
        return json.dumps(told, default=str)


class Handler(logging.Handler):
    """To standard error, as it is at the moment.

    Attributes:
        lost: lines that could not be written since the last that could.
    """

    lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, and before it how many are missing, or count it as lost."""
        try:
            if self.lost:
                write_line(sys.stderr, self.format(self._about_lost()))
                self.lost = 0
            write_line(sys.stderr, self.format(record), PATIENCE)
        except Exception:
            # Whatever it is, there is nobody left to tell.
            self.lost += 1

    def _about_lost(self) -> logging.LogRecord:
        return logging.LogRecord(
            "legacy_chat",
            logging.WARNING,
            __file__,
            0,
            "%d lines of the log could not be written",
            (self.lost,),
            None,
        )


def configure(level: int, form: str = "text") -> None:
    """Log to standard error, unless the program has set up its own logging.

    Args:
        level: as in logging.
        form: a key of FORMATS.
    """
    handler = Handler()
    handler.setFormatter(FORMATS[form]())
    logging.basicConfig(level=level, handlers=[handler])


FORMATS = {"text": TextFormatter, "json": JsonFormatter}
