"""The transcript's file: JSON Lines in UTF-8, one event a line, made for a diff.

    {"format": "legacy-chat-transcript", "version": 1, "title": "K2: held back"}
    {"at": 1, "client": "a", "do": "open"}
    {"at": 2, "client": "a", "do": "send", "data": "hello"}
    {"at": 2, "client": "a", "got": "hell"}

A line with "do" begins a step. The lines with "got" after it have the data of the step,
all of a client's data in one line. A scenario is the same file without "got"; its "at"
is optional.

Rule 1: data that is not UTF-8 is written as ``{"base64": …}``; so is a text that equals
``eof``, ``reset`` or ``refused``, because those denote the end of a connection.
Rule 2: invisible characters are written as escapes.
Rule 3: writing and reading a transcript are exact inverses.
Rule 4: at most one step is in memory, however long the file.
Rule 5: ``{a}`` stands for a bound value (see names.py). The same text in real data is
written ``{{}a}``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from compat.characters import is_printable
from compat.replacing import PRIVATE
from compat.values import shown
from legacy_chat.baseline.model import fields
from legacy_chat.baseline.model.errors import OUTPUT_PREFIX, FormatError
from legacy_chat.baseline.model.output import opened
from legacy_chat.baseline.model.segments import read_cut
from legacy_chat.baseline.model.transcript import (
    Action,
    Answers,
    Received,
    Step,
    Transcript,
    TranscriptHeader,
)

__all__ = ["load", "load_scenario", "parse", "save", "unparse", "visible_json"]

# An example for errors and help texts.
SCENARIO = (
    '{"format": "legacy-chat-transcript", "version": 1, "title": "a greeting"}',
    '{"client": "a", "do": "open"}',
    '{"client": "b", "do": "open"}',
    r'{"client": "a", "do": "send", "data": "hello\r\n"}',
    '{"client": "a", "do": "half-close"}',
)

FORMAT = {"format": "legacy-chat-transcript", "version": 1}

# The actions of a client, and whether each can send data.
ACTIONS = {"open": False, "send": True, "drop": True, "reset": True, "half-close": True}

# Maximum bytes of a line: a file without line ends must not fill the memory.
LONGEST_LINE = 1 << 27

_read_header = fields.table_of(TranscriptHeader)
_read_do = fields.one_of(*ACTIONS)

# A line's place, for errors, and its JSON object.
Event = tuple[str, dict[str, Any]]


def load(path: Path) -> Transcript:
    """Return the transcript or scenario at *path*; ``-`` is standard input.

    A file that is not regular can be read only once, so all of it is kept in memory.

    Raises:
        FormatError: the header is invalid. A later line raises it when it is reached.
        OSError: the file cannot be read.
    """
    if str(path) == "-":
        return _standard_input(sys.stdin)
    with path.open("rb") as file:
        lines = _lines(file, str(path))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return _whole(lines, str(path))
        header = _header(_events(lines, str(path)), str(path))
    return Transcript(header, _Steps(path))


def load_scenario(path: Path) -> Transcript:
    """Return the scenario at *path*; an error has an example.

    The whole file is read, so that an error in it does not interrupt a recording.
    """
    try:
        scenario = load(path)
        for _ in scenario.steps:
            pass
    except FormatError as error:
        example = "".join(OUTPUT_PREFIX + line for line in SCENARIO)
        raise FormatError(
            f"{error}; a scenario has a header and one line for each action:{example}"
        ) from error
    return scenario


def parse(text: str | bytes, name: str = "transcript") -> Transcript:
    """Return the transcript in *text*, all of it in memory; see load()."""
    data = text.encode("utf8", "surrogatepass") if isinstance(text, str) else text
    return _whole(data.split(b"\n"), name)


def save(path: Path, transcript: Transcript) -> int:
    """Write *transcript*, step by step; return the number of steps.

    An existing file is replaced only after the last step; ``-`` is standard output.
    Only the owner can read a new file, because it holds private conversations.

    Raises:
        OSError: the file cannot be written.
    """
    texts = _texts(transcript)
    with opened(path, PRIVATE) as write:
        write(next(texts))
        return sum(write(lines) is None for lines in texts)


def unparse(transcript: Transcript) -> str:
    """Return the lines of a transcript as text."""
    return "".join(_texts(transcript))


def visible_json(text: str) -> str:
    """Return the same JSON with invisible characters escaped, except newlines."""
    if is_printable(text):
        return text
    return "".join(
        each if is_printable(each) or each == "\n" else json.dumps(each)[1:-1]
        for each in text
    )


class _Steps:
    """The steps of a file; each iteration reads the file again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Step]:
        name = str(self._path)
        with self._path.open("rb") as file:
            events = _events(_lines(file, name), name)
            next(events, None)
            yield from _steps(events)


@lru_cache(1)
def _standard_input(stream: TextIO | None) -> Transcript:
    """Return the transcript on *stream*, cached because it can be read only once."""
    if stream is None:
        raise OSError("standard input is closed")
    return _whole(_lines(stream.buffer, "standard input"), "standard input")


def _whole(lines: Iterable[bytes], name: str) -> Transcript:
    events = _events(lines, name)
    return Transcript(_header(events, name), list(_steps(events)))


def _lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        if len(line) == LONGEST_LINE:
            raise FormatError(
                f"{name}, line {number}: a line must be shorter than "
                f"{LONGEST_LINE >> 20} MiB"
            )
        yield line


def _events(lines: Iterable[bytes], name: str) -> Iterator[Event]:
    for number, line in enumerate(lines, 1):
        if line.strip() or number == 1:
            with _located(where := f"{name}, line {number}"):
                event = _parsed(line)
            yield where, event


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line.decode() if line.strip() else "{}")
    except UnicodeDecodeError as error:
        excerpt = line[error.start : error.start + 4]
        reason = f"{error.reason} at byte {error.start}"
        raise ValueError(f"not UTF-8: {reason}: {excerpt!r}") from None
    except (ValueError, RecursionError) as error:
        # Also a number of thousands of digits, or too deeply nested lists.
        reason = getattr(error, "msg", str(error))
        raise ValueError(f"not JSON: {reason}: {shown(line.decode())}") from None
    if not isinstance(event, dict):
        raise ValueError(f"a line must be a JSON object, got {shown(event)}")
    return event


def _header(events: Iterator[Event], name: str) -> TranscriptHeader:
    where, event = next(events, (name, {}))
    if not all(_equal(event.get(key), value) for key, value in FORMAT.items()):
        begin = json.dumps(FORMAT)[1:-1]
        raise FormatError(
            f"{name}: not a transcript of this version: its first line must begin with "
            f"{{{begin}, got {shown(json.dumps(event))}"
        )
    known = {each.name for each in dataclasses.fields(TranscriptHeader)}
    with _located(where):
        return _read_header({key: event[key] for key in event if key in known}, "")


def _steps(events: Iterator[Event]) -> Iterator[Step]:
    at, step = 0, None
    for where, event in events:
        if "do" in event:
            if step is not None:
                yield step
            with _located(where):
                at, step = at + 1, Step(_action(event), {})
        if step is None or not _equal(event.get("at", at), at):
            said = f', and "at" is {shown(event["at"])}' if "at" in event else ""
            raise FormatError(f"{where}: step {at} is not over, or has not begun{said}")
        with _located(where):
            if "got" in event:
                _add_received(step.answers, event)
            elif "do" not in event:
                raise ValueError('neither "do" nor "got" is in it')
    if step is not None:
        yield step


def _equal(value: object, wanted: object) -> bool:
    return value == wanted and type(value) is type(wanted)


def _action(event: dict[str, Any]) -> Action:
    client = _client(event)
    do: str = _read_do(event["do"], "do")
    data = fields.data(event.get("data", ""), "data")
    if data and not ACTIONS[do]:
        raise ValueError(f"data must be empty with {do!r}")
    return Action(client, do, data, read_cut(event.get("cut", ""), "cut"))


def _add_received(answers: Answers, event: dict[str, Any]) -> None:
    client, got = _client(event), event["got"]
    data, end = answers.get(client, Received())
    if isinstance(got, str) and got in fields.ENDS:
        answers[client] = Received(data, got)
    else:
        answers[client] = Received(data + fields.data(got, "got"), end)


def _client(event: dict[str, Any]) -> str:
    client: str = fields.text(event.get("client", ""), "client")
    if not fields.data(client, "client"):
        raise ValueError("client must be the name of a client, got ''")
    return client


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Raise FormatError with the place for a ValueError in this block."""
    try:
        yield
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from None


def _texts(transcript: Transcript) -> Iterator[str]:
    """Yield the header's line, then the lines of each step as one text."""
    header = dataclasses.asdict(transcript.header)
    known = {key: value for key, value in header.items() if value or key == "title"}
    yield _line({**FORMAT, **known})
    for at, step in enumerate(transcript.steps, 1):
        yield "".join(map(_line, _step_events(at, step)))


def _step_events(at: int, step: Step) -> Iterator[dict[str, Any]]:
    action, answers = step
    event: dict[str, Any] = {"at": at, "client": action.client, "do": action.do}
    if action.data:
        event["data"] = fields.json_data(action.data)
    if action.cut:
        event["cut"] = action.cut
    yield event
    for client, (data, end) in answers.items():
        if data:
            yield {"at": at, "client": client, "got": fields.json_data(data)}
        if end:
            yield {"at": at, "client": client, "got": end}


def _line(event: dict[str, Any]) -> str:
    return visible_json(json.dumps(event, ensure_ascii=False)) + "\n"
