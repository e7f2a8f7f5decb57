"""A transcript round-trips, and an invalid one is an error with place and reason."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legacy_chat.baseline import (
    Action,
    FormatError,
    Received,
    Step,
    Transcript,
    TranscriptHeader,
    load,
    parse,
    save,
    unparse,
)
from legacy_chat.baseline.model import format

HEAD = '{"format": "legacy-chat-transcript", "version": 1, "title": "t"}\n'
NAMES = st.sampled_from(["a", "b", "ä"])
SAYING = st.sampled_from(["send", "drop", "half-close"])
ACTIONS = st.builds(Action, NAMES, SAYING, st.binary(), st.sampled_from(["", "at 1"]))
GOT = st.builds(Received, st.binary(), st.sampled_from(["", "eof", "reset", "refused"]))
STEPS = st.builds(Step, ACTIONS, st.dictionaries(NAMES, GOT.filter(any)))


def one(action: Action, **answers: Received) -> Transcript:
    return Transcript(TranscriptHeader("t"), [Step(action, answers)])


@given(st.lists(STEPS))
def test_transcript_round_trips_through_its_text(steps: list[Step]) -> None:
    transcript = Transcript(
        TranscriptHeader("t", framing="stream", witness=True), steps
    )
    text = unparse(transcript)
    assert parse(text) == transcript
    assert all(line.isprintable() for line in text.rstrip("\n").split("\n"))


@pytest.mark.parametrize("data", [b"eof", b"reset", b"refused", b"\xff\xfe", b"\x00"])
@pytest.mark.parametrize("end", ["", "eof", "reset", "refused"])
def test_data_that_spells_an_end_is_not_an_end(data: bytes, end: str) -> None:
    transcript = one(Action("a", "send", data), a=Received(data, end))
    assert parse(unparse(transcript)) == transcript


def test_utf8_data_is_written_as_text() -> None:
    text = unparse(
        one(Action("a", "send", b"hello"), b=Received("用户{a} 说:hell".encode()))
    )
    assert text == HEAD + (
        '{"at": 1, "client": "a", "do": "send", "data": "hello"}\n'
        '{"at": 1, "client": "b", "got": "用户{a} 说:hell"}\n'
    )


def test_scenario_needs_no_step_numbers() -> None:
    scenario = parse(
        f'{HEAD}\n{{"client": "a", "do": "open"}}\n{{"client": "a", "do": "drop"}}\n'
    )
    assert [step.action.do for step in scenario.steps] == ["open", "drop"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"at": 2, "client": "a", "do": "open"}', "line 2: step 1"),
        ('{"at": 1, "client": "a", "got": "early"}', "line 2: step 0"),
        (
            '{"client": "a", "do": "shout"}',
            "do must be one of open, send, .*, got 'shout'",
        ),
        (
            '{"client": "a", "do": "open", "data": "x"}',
            "data must be empty with 'open'",
        ),
        ('{"do": "open"}', "client must be the name"),
        ('{"client": "a", "do": "send", "data": 5}', "data must be a text or"),
        ('{"client": "a"}', "step 0 is not over"),
        ("[1]", "must be a JSON object, got"),
        ("{", "line 2: not JSON"),
        ('{"at": true, "client": "a", "do": "open"}', '"at" is True'),
        ('{"at": 1.0, "client": "a", "do": "open"}', '"at" is 1.0'),
        ('{"client": [], "do": "open"}', "client must be a text, got"),
        ('{"client": "\\ud800", "do": "open"}', "half of a surrogate pair"),
        ('{"client": "a", "do": ["open"]}', "do must be one of open, send"),
        ('{"client": "a", "do": "send", "data": "\\udcff"}', "half of a surrogate"),
        (
            '{"client": "a", "do": "send", "data": {"base64": "?"}}',
            "data must be base64",
        ),
        ('{"client": "a", "do": "send", "cut": {}}', "cut must be one of"),
        ('{"client": "a", "do": "send", "cut": "in half"}', "got 'in half'"),
        ('{"at": ' + 5000 * "9" + "}", "line 2: not JSON: Exceeds"),
        (100_000 * "[", "line 2: not JSON"),
        (5000 * "x", "line 2: not JSON.{1,200}$"),
    ],
)
def test_invalid_line_is_an_error_with_its_number(line: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse(f"{HEAD}{line}\n", "talk.jsonl")


@pytest.mark.parametrize("text", ["", "hello\n", HEAD.replace("1", "2")])
def test_another_format_is_an_error(text: str) -> None:
    with pytest.raises(FormatError, match=r"not a transcript of this version|not JSON"):
        parse(text)


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ('"title": 5', "title must be a text, got 5"),
        ('"witness": "no"', "witness must be true or false, got 'no'"),
        ('"host": "a\\u0000b"', "host must be an address or a name"),
        ('"host": "--tls-cert"', "host must be an address or a name"),
        ('"host": null', "host must be an address or a name, got None"),
        ('"cut": "in half"', "cut must be one of .* got 'in half'"),
        ('"framing": "packet"', "framing must be one of segment, stream"),
        ('"version": true', "not a transcript of this version"),
    ],
)
def test_wrong_header_field_is_an_error(field: str, why: str) -> None:
    text = HEAD.replace('"title": "t"', field)
    with pytest.raises(FormatError, match=f"talk.*{why}"):
        parse(text, "talk.jsonl")


def test_line_that_is_not_utf8_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(HEAD.encode() + b'{"client": "\xff"}\n')
    with pytest.raises(FormatError, match=r"talk\.jsonl, line 2: not UTF-8.*ff"):
        list(load(path).steps)


def test_file_without_lines_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(format, "LONGEST_LINE", 1 << 16)
    with pytest.raises(FormatError, match="line 1: a line must be shorter"):
        load(Path("/dev/zero"))


def test_pipe_is_read_once_and_as_a_whole(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = f'{HEAD}{{"client": "a", "do": "open"}}\n'
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    steps = load(pipe).steps
    writer.join()
    assert list(steps) == list(steps) == [Step(Action("a", "open"), {})]


def test_a_file_is_read_step_by_step_and_again(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(f'{HEAD}{{"client": "a", "do": "open"}}\n{{"wrong": 1}}\n', "utf8")
    steps = load(path).steps
    for _ in range(2):
        with pytest.raises(FormatError, match="line 3"):
            list(steps)


def test_aborted_recording_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text("old contents", "utf8")

    def steps() -> object:
        yield Step(Action("a", "open"), {})
        raise OSError("the server has gone")

    with pytest.raises(OSError, match="gone"):
        save(path, Transcript(TranscriptHeader("t"), steps()))  # type: ignore[arg-type]
    assert path.read_text("utf8") == "old contents"
    assert list(tmp_path.iterdir()) == [path]
