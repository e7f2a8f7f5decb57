"""The room's printed lines, and its log with quoted data."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from typing import Any

import pytest

from compat import nonblocking
from legacy_chat import output
from legacy_chat.output import Handler, JsonFormatter, TextFormatter, print_line
from tests.support import Peer, room

FORGED = "you\n2026-01-01 00:00:00,000 WARNING forged \x1b[2J\u2028\r"


def record(message: str, *args: Any, error: BaseException | None = None) -> Any:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("x", logging.WARNING, "x.py", 1, message, args, info)


# One event, one line.


def test_logged_text_begins_no_other_line() -> None:
    text = TextFormatter().format(record("%s: hello", FORGED))
    assert text.isprintable()
    assert text.endswith(
        r"WARNING you\x0a2026-01-01 00:00:00,000 WARNING forged "
        r"\x1b[2J\u2028\x0d: hello"
    )


def test_traceback_lines_are_indented() -> None:
    text = TextFormatter().format(record("it failed", error=ValueError(FORGED)))
    first, *rest = text.split("\n")
    assert first.endswith("WARNING it failed")
    assert rest
    for line in rest:
        assert line.startswith("    ")
        assert line.isprintable()


def test_json_log_has_one_object_per_line() -> None:
    event = record("%s: closed", FORGED, error=ValueError(FORGED))
    event.reason = "slow"
    event.client = FORGED
    text = JsonFormatter().format(event)
    assert "\n" not in text
    assert text.isascii()
    told = json.loads(text)
    assert told["message"] == f"{FORGED}: closed"
    assert told["client"] == FORGED
    assert told["reason"] == "slow"
    assert told["level"] == "WARNING"
    assert FORGED in told["exception"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told["time"])
    assert set(told) == {"time", "level", "message", "exception", "client", "reason"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_client_cannot_forge_a_log_line(form: str) -> None:
    with room("auto", "-v", "--log-format", form, "--max-clients", "1") as (
        server,
        address,
    ):
        a = Peer(address)
        a.send(FORGED + "%s %d {0} {user.__class__} \\x00.")
        a.wait_for("\\x00.")
        assert Peer(address).wait_for_end()
        a.send("out")
        a.wait_for_end()
        server.wait_for("closed: out", err=True)
        for line in server.err:
            if form == "json":
                assert json.loads(line)["message"]
            else:
                assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ", line)
            assert "forged" not in line


# A line is written at once, or not at all.


class Broken(io.StringIO):
    """A stream that fails while *fails* is set."""

    fails = True

    def write(self, text: str) -> int:
        if self.fails:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_lost_lines_are_reported_once_the_log_works_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Broken()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record("one"))
    handler.handle(record("two"))
    assert handler.lost == 2
    stream.fails = False
    handler.handle(record("three"))
    handler.handle(record("four"))
    assert stream.getvalue().splitlines() == [
        "2 lines of the log could not be written",
        "three",
        "four",
    ]


def test_unformattable_record_is_counted_as_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = Handler()
    handler.handle(record("%d", "no number"))
    assert handler.lost == 1
    assert capsys.readouterr().err == ""


def test_stalled_output_delays_the_room_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    takes = nonblocking.select.select

    def select(*args: Any) -> Any:
        asked.append(args[3])
        return takes(*args[:3], 0)

    monkeypatch.setattr(nonblocking.select, "select", select)
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as reader, open(writing, "w", encoding="utf8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        while not print_line.failed:
            print_line("x" * 1000)
        assert 0 < asked[-1] <= output.PATIENCE
        asked.clear()
        print_line("lost")
        reader.read(1 << 20)
        print_line("again")
        print_line("and again")
        assert asked == [0.0, 0.0, output.PATIENCE]
        assert reader.read(1 << 20).splitlines() == [b"again", b"and again"]
