"""The transcript: clients' actions and the data they received, one event a line.

    {"format": "legacy-chat-transcript", "version": 1, "title": "K2: held back"}
    {"at": 1, "client": "a", "do": "open"}
    {"at": 2, "client": "a", "do": "send", "data": "hello"}
    {"at": 2, "client": "a", "got": "hell"}

JSON Lines in UTF-8, made for a diff. A line with "do" begins a step. The lines with
"got" after it have the data of the step, all of a client's data in one line. A scenario
is the same file without "got"; its "at" is optional.

Rule 1: data that is not UTF-8 is written as ``{"base64": …}``; so is a text that equals
``eof``, ``reset`` or ``refused``, because those denote the end of a connection.
Rule 2: invisible characters are written as escapes.
Rule 3: writing and reading a transcript are exact inverses.
Rule 4: at most one step is in memory, however long the file.
Rule 5: ``{a}`` stands for a bound value (see names.py). The same text in real data is
written ``{{}a}``.

Beyond the design: the header's "profile" (how the data is interpreted), "framing",
"host" (the address for the clients, not the server's usual one) and "witness" (the data
of the witness is included); an action's "cut"; the ends "reset" and "refused".
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from compat.characters import is_printable
from compat.console import writing
from compat.replacing import PRIVATE, replacing
from legacy_chat.baseline.model.cuts import EXAMPLES, is_cut
from legacy_chat.baseline.model.errors import FormatError

__all__ = [
    "ENDS",
    "FRAMINGS",
    "LONGEST_QUIET",
    "STDOUT",
    "Action",
    "Answers",
    "Received",
    "Step",
    "Transcript",
    "TranscriptHeader",
    "data_of",
    "load",
    "named",
    "parse",
    "save",
    "standard_output",
    "text_of",
    "unparse",
    "visible_json",
]

# The name of standard output in errors.
STDOUT = "standard output"

FORMAT = {"format": "legacy-chat-transcript", "version": 1}

# How a connection ends: with EOF, with a reset, or refused before it was made.
ENDS = ("eof", "reset", "refused")

# The actions of a client, and whether each can send data.
DEEDS = {"open": False, "send": True, "drop": True, "reset": True, "half-close": True}

# Whether the cut of a message into segments matters: yes, or no.
FRAMINGS = ("segment", "stream")

# An address or a name. It replaces {host} in a command, and must not be an option.
HOST = re.compile(r"[\w:][\w.:%-]*")

# Maximum bytes of a line: a file without line ends must not fill the memory.
LONGEST_LINE = 1 << 27

# Characters of a wrong value that an error shows.
SHOWN = 60


# The maximum of quiet, in seconds.
LONGEST_QUIET = 3600.0

# The rule for a value of the header, by its type.
RULES = {
    str: "a text",
    bool: "true or false",
    float: f"seconds, from 0 to {LONGEST_QUIET:g}",
}


class Action(NamedTuple):
    """The action of a client in a step.

    Attributes:
        do: "open", "send"; "drop" closes the socket, "reset" closes it with a reset,
            "half-close" still receives.
        data: the data to send; with a drop or a half-close, it is sent right before,
            without a wait in between.
        cut: the cut of the data into segments, see cuts.py; "" for one segment.
    """

    client: str
    do: str
    data: bytes = b""
    cut: str = ""


class Received(NamedTuple):
    """The data that one client received in a step, and the end of its connection.

    Attributes:
        end: one of ENDS; "" while the connection is open.
    """

    data: bytes = b""
    end: str = ""


# The data of a step, by client. A client that received nothing is not in it.
Answers = dict[str, Received]


class Step(NamedTuple):
    """An action, and the data that it caused, by client in the order of arrival."""

    action: Action
    answers: Answers


class TranscriptHeader(NamedTuple):
    """The properties of a whole transcript.

    Attributes:
        profile: the name of the profile of the recording.
        framing: "segment": the same bytes in other segments are another conversation;
            "stream": the cut must not matter. "" for the profile's framing.
        cut: the cut of every send without its own.
        host: the address that the clients connect to, if not the server's own.
        witness: whether the data of the barrier's witness is included.
        quiet: seconds without data that ended a step; 0 if a barrier did.
    """

    title: str = ""
    recorded_from: str = ""
    profile: str = ""
    framing: str = ""
    cut: str = ""
    host: str = ""
    witness: bool = False
    quiet: float = 0.0


class Transcript(NamedTuple):
    """A header and the steps.

    Attributes:
        steps: for a file, each iteration reads them again.
    """

    header: TranscriptHeader
    steps: Iterable[Step]


def load(path: Path) -> Transcript:
    """Return the transcript or scenario at *path*; ``-`` is standard input.

    A file that is not regular can be read only once, so all of it is kept in memory.

    Raises:
        FormatError: the header is invalid. A later line raises it when it is reached.
        OSError: the file cannot be read.
    """
    if str(path) == "-":
        return _standard_input(sys.stdin)
    name = str(path)
    with path.open("rb") as file:
        lines = _lines(file, name)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return _whole(lines, name)
        header = _header(next(_texts(lines, name), ""), name)
    return Transcript(header, _Steps(path))


def parse(text: str | bytes, name: str = "transcript") -> Transcript:
    """Return the transcript in *text*, all of it in memory.

    Raises:
        FormatError: *text* is not a transcript; the message names the line.
    """
    data = text.encode("utf8", "surrogatepass") if isinstance(text, str) else text
    return _whole(data.split(b"\n"), name)


def save(path: Path, transcript: Transcript) -> int:
    """Write *transcript*, step by step; return the number of steps.

    An existing file is replaced only after the last step; ``-`` is standard output.
    Only the owner can read a new file, because it holds private conversations.

    Raises:
        OSError: the file cannot be written.
    """
    if str(path) == "-":
        return _write(_print_to(standard_output()), transcript)
    with replacing(str(path), PRIVATE) as write:
        return _write(write, transcript)


def unparse(transcript: Transcript) -> str:
    """Return the lines of a transcript as text."""
    return "".join(_all_lines(transcript))


def text_of(data: bytes) -> str | dict[str, str]:
    """Return the JSON value for *data*: a text, or ``{"base64": …}``."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    if text in ENDS:
        return {"base64": base64.b64encode(data).decode()}
    return text


def data_of(value: Any) -> bytes:
    """Return the bytes for a JSON value.

    Raises:
        ValueError: *value* is not a text or ``{"base64": …}``.
    """
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except ValueError as error:
            raise ValueError(
                f"{named(value['base64'])} is not base64: {error}"
            ) from None
    raise ValueError(f'{named(value)} is neither a text nor {{"base64": a text}}')


def named(value: object) -> str:
    """Return a wrong value for an error: on one line, and short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f"{value[:SHOWN]!r}{'...' if len(value) > SHOWN else ''}"
    return json.dumps(value, default=repr)


class _Steps:
    """The steps of a file; each iteration reads the file again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Step]:
        name = str(self._path)
        with self._path.open("rb") as file:
            lines = _texts(_lines(file, name), name)
            next(lines, None)
            yield from _steps(lines, name)


@lru_cache(1)
def _standard_input(stream: TextIO | None) -> Transcript:
    """Return the transcript on *stream*, cached because it can be read only once."""
    if stream is None:
        raise OSError("standard input is closed")
    return _whole(_lines(stream.buffer, "standard input"), "standard input")


def _whole(lines: Iterable[bytes], name: str) -> Transcript:
    texts = _texts(lines, name)
    return Transcript(_header(next(texts, ""), name), list(_steps(texts, name)))


def _lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise FormatError(
                f"{name}, line {number}: a line must be shorter than "
                f"{LONGEST_LINE >> 20} MiB"
            )
        yield line


def _texts(lines: Iterable[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{name}, line {number}: not UTF-8: {error.reason} at byte "
                f"{error.start}: {line[error.start : error.start + 4]!r}"
            ) from None


def _header(line: str, name: str) -> TranscriptHeader:
    where = f"{name}, line 1"
    event = _event(line, where) if line.strip() else {}
    if any(_differs(event.get(key), value) for key, value in FORMAT.items()):
        wanted = json.dumps(FORMAT)[1:-1]
        raise FormatError(
            f"{name}: not a transcript of this version: it begins with "
            f"{line[:SHOWN]!r}, not with {wanted}"
        )
    said = {key: event[key] for key in TranscriptHeader._fields if key in event}
    for key, value in said.items():
        kind = type(TranscriptHeader._field_defaults[key])
        fits = type(value) is kind
        if kind is float:
            fits = type(value) in (int, float) and 0 <= value <= LONGEST_QUIET
        if not fits:
            raise FormatError(
                f'{where}: "{key}" must be {RULES[kind]}, got {named(value)}'
            )
    header = TranscriptHeader(**said)
    if header.framing not in ("", *FRAMINGS):
        raise FormatError(
            f"{name}: framing {named(header.framing)} is none of {FRAMINGS}"
        )
    _cut(header.cut, where)
    if header.host and not HOST.fullmatch(header.host):
        raise FormatError(
            f'{where}: "host" must be an address or a name, got {named(header.host)}'
        )
    return header


def _differs(value: object, wanted: object) -> bool:
    return value != wanted or type(value) is not type(wanted)


def _steps(lines: Iterable[str], name: str) -> Iterator[Step]:
    at, step = 0, None
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        event = _event(line, where)
        if "do" in event:
            if step is not None:
                yield step
            at, step = at + 1, Step(_action(event, where), {})
        if step is None or _differs(event.get("at", at), at):
            told = f', and "at" is {named(event["at"])}' if "at" in event else ""
            raise FormatError(f"{where}: step {at} is not over, or has not begun{told}")
        if "got" in event:
            _add(step.answers, event, where)
        elif "do" not in event:
            raise FormatError(f'{where}: neither "do" nor "got" is in it')
    if step is not None:
        yield step


def _event(line: str, where: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"{where}: not JSON: {error.msg} at column {error.colno}: {named(line)}"
        ) from None
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or too deeply nested lists.
        raise FormatError(f"{where}: not JSON: {error}: {named(line)}") from None
    if not isinstance(event, dict):
        raise FormatError(f"{where}: {named(line.strip())} is no object")
    return event


def _action(event: dict[str, Any], where: str) -> Action:
    client = _client(event, where, "who does it?")
    do, cut = event["do"], event.get("cut", "")
    if not isinstance(do, str) or do not in DEEDS:
        raise FormatError(f"{where}: {named(do)} is none of {', '.join(DEEDS)}")
    data = _data(event.get("data", ""), where)
    if data and not DEEDS[do]:
        raise FormatError(f"{where}: nothing can be said with {do!r}")
    return Action(client, do, data, _cut(cut, where))


def _add(answers: Answers, event: dict[str, Any], where: str) -> None:
    client, got = _client(event, where, "who got it?"), event["got"]
    before = answers.get(client, Received())
    if isinstance(got, str) and got in ENDS:
        answers[client] = Received(before.data, got)
    else:
        answers[client] = Received(before.data + _data(got, where), before.end)


def _client(event: dict[str, Any], where: str, question: str) -> str:
    client = event.get("client")
    if client in (None, ""):
        raise FormatError(f'{where}: "client" is missing: {question}')
    if not isinstance(client, str):
        raise FormatError(f'{where}: "client" must be a text, got {named(client)}')
    try:
        _utf8(client)
    except ValueError as error:
        raise FormatError(f'{where}: "client": {error}') from None
    return client


def _cut(how: object, where: str) -> str:
    if not isinstance(how, str) or not is_cut(how):
        raise FormatError(f'{where}: "cut" must be one of {EXAMPLES}, got {named(how)}')
    return how


def _data(value: Any, where: str) -> bytes:
    try:
        return data_of(value)
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{named(text)} has half of a surrogate pair, which is no character"
        ) from None


def _write(write: Callable[[str], object], transcript: Transcript) -> int:
    count = -1
    for lines in _all_lines(transcript):
        write(lines)
        count += 1
    return count


def _all_lines(transcript: Transcript) -> Iterator[str]:
    """Yield the header's line, then the lines of each step as one text."""
    said = {k: v for k, v in transcript.header._asdict().items() if v or k == "title"}
    yield _visible({**FORMAT, **said})
    for at, step in enumerate(transcript.steps, 1):
        yield "".join(map(_visible, _events(at, step)))


def _events(at: int, step: Step) -> Iterator[dict[str, Any]]:
    client, do, data, cut = step.action
    event: dict[str, Any] = {"at": at, "client": client, "do": do}
    if data:
        event["data"] = text_of(data)
    if cut:
        event["cut"] = cut
    yield event
    for client, got in step.answers.items():
        if got.data:
            yield {"at": at, "client": client, "got": text_of(got.data)}
        if got.end:
            yield {"at": at, "client": client, "got": got.end}


def _visible(event: dict[str, Any]) -> str:
    return visible_json(json.dumps(event, ensure_ascii=False)) + "\n"


def visible_json(text: str) -> str:
    """Return the same JSON with invisible characters escaped, except newlines."""
    if is_printable(text):
        return text
    return "".join(
        each if is_printable(each) or each == "\n" else json.dumps(each)[1:-1]
        for each in text
    )


def standard_output() -> TextIO:
    """Return standard output, set to UTF-8 whatever the terminal's encoding is.

    Raises:
        OSError: standard output is closed.
    """
    if sys.stdout is None:
        raise OSError(f"{STDOUT} is closed")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf8", newline="\n")
    return sys.stdout


def _print_to(stream: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        with writing(STDOUT):
            stream.write(text)

    return write
