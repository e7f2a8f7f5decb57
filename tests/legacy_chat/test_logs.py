"""The log, and its lines about data of others."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat import nonblocking
from legacy_chat import room as room_module
from legacy_chat.logging import output
from legacy_chat.logging.escapes import one_line, parse_bytes, visible
from legacy_chat.logging.logs import Handler, JsonFormatter, TextFormatter
from legacy_chat.logging.output import settle, write_line
from legacy_chat.room import say
from tests.support import Peer, process, room

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


def test_the_lines_of_a_traceback_are_indented() -> None:
    text = TextFormatter().format(record("it failed", error=ValueError(FORGED)))
    first, *rest = text.split("\n")
    assert first.endswith("WARNING it failed")
    assert rest
    for line in rest:
        assert line.startswith("    ")
        assert line.isprintable()


def test_json_is_one_object_a_line_with_the_events_fields() -> None:
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
def test_a_client_cannot_forge_a_line_of_the_servers_log(form: str) -> None:
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


def test_a_line_is_not_written_where_it_would_have_to_wait() -> None:
    reading, writing = os.pipe()
    with (
        open(reading, "rb", 0) as reader,
        open(writing, "w", encoding="utf8") as stream,
    ):
        with pytest.raises(BlockingIOError, match="nobody reads it"):
            write_line(stream, "大家好!" * 50_000)
        reader.read(1 << 16)
        write_line(stream, "x" * 20_000)


def test_stalled_output_is_waited_for_once_until_it_is_read(
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
        while not room_module._printed.failed:
            say("x" * 1000)
        assert 0 < asked[-1] <= output.PATIENCE
        asked.clear()
        say("lost")
        reader.read(1 << 20)
        say("again")
        say("and again")
        assert asked == [0.0, 0.0, output.PATIENCE]
        assert reader.read(1 << 20).splitlines() == [b"again", b"and again"]


def test_unwritable_output_at_exit_keeps_status_0() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    script = (
        "import sys; from legacy_chat.logging.output import settle\n"
        "sys.stdout = open('/dev/full', 'w')\n"
        "sys.stdout.write('left')\n"
        "settle()\n"
        "sys.stdout.close()\n"
    )
    with process(sys.executable, "-c", script) as python:
        assert python.wait() == 0
        assert python.err == []


def test_settle_keeps_the_output_of_a_working_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print("hi!", end="")
    settle()
    assert capsys.readouterr().out == "hi!"


# Escapes.


UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


@given(st.text())
def test_escapes_leave_no_invisible_characters(text: str) -> None:
    for each in (one_line(text), *re.split("[\n\t]", visible(text))):
        left = {c for c in each if unicodedata.category(c) in UNSEEN}
        assert left <= {"\u200c", "\u200d"}
    assert "\n" not in one_line(text)
    assert visible(text.replace("\\", "")).count("\n") == text.count("\n")


def test_characters_between_letters_are_seen_or_escapes() -> None:
    fillers = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u3164\ufe0f\uffa0\U000e0100"
    every = [*map(chr, range(sys.maxunicode + 1))]
    hidden = [each for each in every if unicodedata.category(each) in UNSEEN]
    assert one_line("a".join([*hidden, *fillers])).isascii()
    seen = "a".join(each for each in every if unicodedata.category(each)[0] in "NPSZL")
    seen = re.sub("[\u2028\u2029\u115f\u1160\u3164\uffa0]", "", seen)
    assert one_line(seen) == seen


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0647\u200d",
        "\u0915\u094d\u200d\u0937 \u0915\u094d\u200c\u0937",
        "\u1820\u180b",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f469\U0001f3fd\u200d\U0001f680",
        "1\ufe0f\u20e3 \u2764\ufe0e \u845b\U000e0100",
        "\u3000\u00a0\u202f",
    ],
)
def test_text_keeps_the_joiners_and_selectors_it_needs(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200db\ufe0f", r"a\u200db\ufe0f"),
        ("\u200d \u200c", r"\u200d \u200c"),
        ("\U0001f642\ufe0f\ufe00", "\U0001f642\ufe0f" + r"\ufe00"),
        ("\u0915\u200d\u200d", "\u0915\u200d" + r"\u200d"),
        ("\u4f60\u200d", "\u4f60" + r"\u200d"),
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4" + r"\U000e0067\U000e007f"),
        ("\u200b\ufeff\xad\u206a\ufff9", r"\u200b\ufeff\xad\u206a\ufff9"),
    ],
)
def test_joiners_and_selectors_elsewhere_are_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("out", b"out"),
        (r"/quit\r\n", b"/quit\r\n"),
        (r"\x00\xff\0\t\\", b"\x00\xff\0\t\\"),
        (r"\\n", b"\\n"),
        ("再见", "再见".encode()),
        (os.fsdecode(b"\xff\xfe"), b"\xff\xfe"),
    ],
)
def test_bytes_are_written_with_a_few_escapes(text: str, data: bytes) -> None:
    assert parse_bytes(text) == data


@pytest.mark.parametrize(
    "text", ["", "\\", r"\q", r"\x", r"\x1", r"\xgg", r"\u4f60", r"\N{DIGIT ONE}"]
)
def test_any_other_escape_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nothing is given|is none of"):
        parse_bytes(text)


@given(st.binary(min_size=1))
def test_every_terminator_can_be_written(data: bytes) -> None:
    assert parse_bytes("".join(f"\\x{byte:02x}" for byte in data)) == data
