"""The log: one line for each event, as text or as JSON.

Rule 1: one event is one line. Logged data cannot begin another line, and control
characters are escaped; the lines of a traceback are indented.
Rule 2: a failing log stops nothing. The handler counts lost lines and reports their
number with the next line that can be written.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from legacy_chat.logging.escapes import one_line
from legacy_chat.logging.output import PATIENCE, write_line

__all__ = ["FORMATS", "Handler", "JsonFormatter", "TextFormatter", "configure"]

# The attributes of every record; all others are the event's own fields.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,000 WARNING message``, with an indented traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # theirs
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # theirs
        # Split at "\n" only: other line separators are escaped.
        return "\n".join(
            "    " + one_line(line) for line in super().formatException(ei).split("\n")
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``message``, and more fields.

    An event adds its own fields: ``event``, ``client``, ``reason`` and so on. An error
    adds ``exception``, the traceback.
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
        # json.dumps() escapes everything that is not ASCII.
        return json.dumps(told, default=str)


class Handler(logging.Handler):
    """Writes to the current ``sys.stderr``.

    Attributes:
        lost: lines that were lost since the last one that was written.
    """

    lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, after the number of lost lines; or count it as lost."""
        try:
            if self.lost:
                write_line(sys.stderr, self.format(self._about_lost()))
                self.lost = 0
            write_line(sys.stderr, self.format(record), PATIENCE)
        except Exception:
            # The log is the last place to report an error, whatever its kind.
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
        level: a level of the logging module.
        form: a key of FORMATS.
    """
    handler = Handler()
    handler.setFormatter(FORMATS[form]())
    logging.basicConfig(level=level, handlers=[handler])


FORMATS = {"text": TextFormatter, "json": JsonFormatter}
