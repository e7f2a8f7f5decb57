"""Mutated transcripts, scenarios and profiles: no traceback, no wrong status."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from legacy_chat.baseline import FormatError
from legacy_chat.baseline.cli import PROGRAM, main
from legacy_chat.baseline.fuzz.generator import Generator
from legacy_chat.baseline.model.names import Names
from legacy_chat.baseline.model.profile import read_profile
from tests.baseline.test_wrong_input import NASTY, STEERS

LINES = [
    {
        "format": "legacy-chat-transcript",
        "version": 1,
        "title": "t",
        "recorded_from": "r",
        "profile": "lines",
        "framing": "stream",
        "cut": "at 1",
        "host": "127.0.0.1",
        "witness": False,
        "quiet": 0.1,
    },
    {"at": 1, "client": "a", "do": "open"},
    {"at": 2, "client": "b", "do": "open"},
    {"at": 3, "client": "a", "do": "send", "data": "hello", "cut": "every byte"},
    {"at": 3, "client": "a", "got": "hell"},
    {"at": 3, "client": "b", "got": {"base64": "/w=="}},
    {"at": 3, "client": "a", "got": "eof"},
    {"at": 4, "client": "b", "do": "drop", "data": {"base64": "AAE="}},
]
PROFILE = """\
name = "mine"
framing = "stream"
leave = "QUIT"
quiet = 0.01
patience = 0.1
server = "false {port}"
[barrier]
send = "barrier {n}"
receive = ["{witness}: barrier {n}"]
rounds = 1
rounds_at_close = 2
hello = "hi"
welcome = "hi"
[[volatile]]
name = "id"
pattern = "id=(?P<value>[0-9a-f]+)"
bind = "address"
address = "{ip}:{port}"
[fuzz]
clients = 2
steps = 3
longest = 10
restart_after = 1
words = ["a", {base64 = "/w=="}]
never = ["b"]
[fuzz.actions]
open = 1
send = 2
[fuzz.messages]
words = 1
"""

# Texts with a meaning for a part of the program, and texts that no part expects.
TEXTS = [
    *("", "-", ".", "..", "/", "/dev/null", "./mine.toml", "plain", "tutorial", "mine"),
    *("open", "send", "eof", "reset", "refused", "witness", "server", "{a}", "{{}"),
    *("every byte", "at 0", "at 99999999999999999999", "random 1", "segment", "::1"),
    *("999.1.1.1", "a..b", "x" * 300, NASTY, "\ud800", "\udcff", "(", "(?i)a", "a{,9}"),
    *("%s {port} '", "{n}", "{witness}", "`$(", "</td>", "%%", "end"),
]
NUMBERS = [0, -1, 1, 1.5, 1e308, float("nan"), float("inf"), 10**30, True, False, None]
LEAVES = st.sampled_from([*TEXTS, *NUMBERS]) | st.text() | st.integers() | st.floats()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["base64", "at", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = sorted({key for line in LINES for key in line})

# Texts that are inserted into a valid text.
RAW = st.sampled_from(
    [
        *("", "\n", "\r", "{", "}", "[", "]", '"', "'", "\\", ",", ":", "=", "#", "\0"),
        *("\ufeff", "9" * 5000, "[" * 3000, '{"a":' * 3000, "a." * 2000, "\\ud800"),
        *(
            "inf",
            "nan",
            "-0",
            "0x" + "f" * 6000,
            "1979-05-27",
            '"""',
            "[[fuzz]]",
            "null",
        ),
    ]
)


@st.composite
def transcripts(draw: st.DrawFn) -> bytes:
    """Draw a transcript with some fields, lines or bytes exchanged."""
    lines: list[Any] = [dict(line) for line in LINES]
    for _ in range(draw(st.integers(0, 3))):
        endpoint = draw(st.integers(0, len(lines) - 1))
        if draw(st.integers(0, 5)) and isinstance(lines[endpoint], dict):
            lines[endpoint][draw(st.sampled_from(KEYS))] = draw(VALUES)
        else:
            lines[endpoint] = draw(VALUES | st.sampled_from(LINES).map(dict))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return draw(damaged(text))


@st.composite
def profiles(draw: st.DrawFn) -> bytes:
    """Draw a profile with some values or bytes exchanged."""
    lines = PROFILE.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 3))):
        endpoint = draw(st.integers(0, len(lines) - 1))
        key = lines[endpoint].partition(" = ")[0]
        lines[endpoint] = draw(
            st.builds(lambda value, key=key: f"{key} = {_toml(value)}\n", VALUES)
            | st.sampled_from(["", *lines])
        )
    return draw(damaged("".join(lines)))


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """Draw the text unchanged, or with insertions, deletions, invalid UTF-8."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + draw(RAW | st.text(max_size=5)) + text[stop:]
    data = text.encode("utf8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        endpoint = draw(st.integers(0, len(data)))
        data = data[:endpoint] + draw(st.binary(max_size=4)) + data[endpoint:]
    return data


def _toml(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{key} = {_toml(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


@pytest.fixture(scope="module")
def nowhere() -> Iterator[str]:
    """Yield an address without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


def run(*argv: str) -> int:
    """Run the command; its output must not control a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(argv)
    assert not STEERS.search(out.getvalue() + err.getvalue())
    # A warning, the reason of status 2, or an example behind it; never a traceback.
    lines = err.getvalue().split("\n")[:-1]
    assert all(line.startswith((f"{PROGRAM}: ", "  | ")) for line in lines), lines
    assert status == 2 or not lines or argv[0] == "record"
    return status


def show_and_diff(folder: Path, data: bytes) -> None:
    """Run the commands that only read files."""
    path, sound = folder / "talk.jsonl", folder / "sound.jsonl"
    path.write_bytes(data)
    sound.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    shown = {run("show", str(path), *form) for form in FORMS}
    assert len(shown) == 1
    assert shown <= {0, 2}
    assert run("diff", str(path), str(sound)) in (0, 1, 2)
    assert run("diff", str(path), str(path)) == shown.pop()


FORMS = ([], ["--lines"], ["--width", "30"], ["--html"], ["--mermaid"])


def play(folder: Path, transcript: bytes, profile: bytes, nowhere: str) -> None:
    """Run the commands that connect to a server, which does not exist."""
    path, mine = folder / "talk.jsonl", folder / "mine.toml"
    path.write_bytes(transcript)
    mine.write_bytes(profile)
    recorded = folder / "recorded.jsonl"
    server = ["--connect", nowhere, "--timeout", "0.2"]
    for profiled in ([], ["--profile", str(mine)]):
        junit = ["--junit", str(folder / "report.xml")]
        assert run("check", str(path), *server, *profiled, *junit) in (0, 1, 2)
        if run("record", str(path), *server, *profiled, "-o", str(recorded)) == 0:
            assert run("show", str(recorded)) == 0
        pair = [*server, "--reference", "false {port}", "-o", str(recorded)]
        assert run("minimise", str(path), *pair, *profiled) == 2
    assert (
        sorted(each.name for each in folder.iterdir() if each.suffix == ".part") == []
    )


SHORT = settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SHORT
@given(transcripts())
def test_mutated_transcript_is_shown_or_an_error(tmp_path: Path, data: bytes) -> None:
    show_and_diff(tmp_path, data)


@SHORT
@given(transcripts(), profiles())
def test_mutated_transcript_and_profile_are_played_or_an_error(
    tmp_path: Path, nowhere: str, transcript: bytes, profile: bytes
) -> None:
    play(tmp_path, transcript, profile, nowhere)


@SHORT
@given(profiles())
def test_mutated_profile_makes_conversations_or_an_error(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    try:
        profile = read_profile(path)
    except FormatError:
        return
    few = replace(profile, fuzz=replace(profile.fuzz, steps=30, longest=100))
    assert len(list(Generator(few, 7, 0))) == 30
    names = Names(profile.volatile)
    names.bind_client("a", "127.0.0.1", 1)
    assert (
        names.to_values(names.to_names(b"{a} id=7 127.0.0.1:1"))
        == b"{a} id=7 127.0.0.1:1"
    )
