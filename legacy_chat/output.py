"""The room's output: the tutorial's printed lines, and the log.

Rule 1: the room does not wait for a reader. A full pipe, or a terminal stopped with
Ctrl-S, delays the room by PATIENCE seconds, once; the line is then dropped.
Rule 2: no failure of a stream ends the room: a closed reader, a full disk, an encoding
without Chinese. The handler counts lost lines of the log and reports their number with
the next line that can be written.
Rule 3: one event is one line of the log. Logged data cannot begin another line, and
control characters are escaped; the lines of a traceback are indented.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from compat.characters import one_line
from compat.console import PATIENCE, write_line

__all__ = [
    "FORMATS",
    "Handler",
    "JsonFormatter",
    "TextFormatter",
    "configure",
    "log_error",
    "log_event",
    "print_line",
]

logger = logging.getLogger("legacy_chat")

# The attributes of every record; all others are the event's own fields.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def log_event(event: str, level: int, text: str, *args: object, **fields: Any) -> None:
    """Log a line; *event* and *fields* are more fields of the JSON form."""
    logger.log(level, text, *args, extra={"event": event, **fields})


def log_error(text: str, *args: object, **fields: Any) -> None:
    """Log an event with the traceback of the current exception."""
    logger.exception(text, *args, extra={"event": "error", **fields})


class _LinePrinter:
    """Prints the tutorial's lines at once, also into a pipe; or drops them.

    The log reports the first of consecutive lines that cannot be printed.
    """

    # The last line could not be printed.
    failed = False

    def __call__(self, line: str) -> None:
        if sys.stdout is None:
            return
        try:
            write_line(sys.stdout, line, 0.0 if self.failed else PATIENCE)
        except (OSError, ValueError) as error:
            if not self.failed:
                logger.warning("could not print a line: %s; the room continues", error)
            self.failed = True
        else:
            self.failed = False


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
        time = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        fields |= {k: v for k, v in vars(record).items() if k not in _USUAL}
        if record.exc_info:
            fields["exception"] = super().formatException(record.exc_info)
        # json.dumps() escapes everything that is not ASCII.
        return json.dumps(fields, default=str)


class Handler(logging.Handler):
    """Writes to the current ``sys.stderr``, in the caller's thread.

    A QueueListener would lose the lines of a forked child, which has no thread to write
    them, and would wait at exit for a reader that has stopped.

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
            # The log is the last place to report an error of any kind.
            self.lost += 1

    def _about_lost(self) -> logging.LogRecord:
        text = "%d lines of the log could not be written"
        record = {"msg": text, "args": (self.lost,), "levelname": "WARNING"}
        return logging.makeLogRecord(record)


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

print_line = _LinePrinter()
