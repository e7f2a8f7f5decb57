"""The transcript: what was done to a server and what everybody got, a line an event.

    {"format": "legacy-chat-transcript", "version": 1, "title": "K2: held back"}
    {"at": 1, "client": "a", "do": "open"}
    {"at": 2, "client": "a", "do": "send", "data": "hello"}
    {"at": 2, "client": "a", "got": "hell"}

JSON Lines in UTF-8, made for a diff. A line with "do" begins a step, and the lines with
"got" that follow say what came of it, for each client the whole of the step in one. A
scenario is the same without "got" and, if its author likes, without "at".

Rule 1: what is not UTF-8 is written as ``{"base64": …}``; so is a text that is just
``eof``, ``reset`` or ``refused``, because those are the ends of a connection.
Rule 2: what cannot be seen is written as an escape.
Rule 3: reading what was written, and writing what was read, change nothing.
Rule 4: no more than a step is in memory, however long the file.
Rule 5: ``{a}`` stands for a bound value (see names.py). Where somebody has really said
it, it is written ``{{}a}``.

Beyond the design: the header's "profile" (what its words mean), "framing", "host" (come
this way, not by the server's usual address) and "witness" (what the fence's witness got
is in it, too); an action's "cut"; and the ends "reset" and "refused".
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from legacy_chat.baseline.errors import FormatError

__all__ = [
    "ENDS",
    "FRAMINGS",
    "Action",
    "Got",
    "Header",
    "Heard",
    "Step",
    "Transcript",
    "data_of",
    "load",
    "parse",
    "save",
    "text_of",
    "unparse",
]

FORMAT = {"format": "legacy-chat-transcript", "version": 1}

# How a connection ends: in order, with a reset, or before it was one.
ENDS = ("eof", "reset", "refused")

# What a client can do, and whether it can say something with it.
DEEDS = {"open": False, "send": True, "drop": True, "reset": True, "half-close": True}

# Whether it matters how a message is cut into segments.
FRAMINGS = ("segment", "stream")


class Action(NamedTuple):
    """What a client does in a step.

    Attributes:
        do: "open", "send"; "drop" closes the socket, "reset" closes it with a reset,
            "half-close" goes on listening.
        data: what is sent; before a drop or a half-close: the last words, with nothing
            waited for in between.
        cut: how it is cut into segments, see cuts.py; nothing for one segment.
    """

    client: str
    do: str
    data: bytes = b""
    cut: str = ""


class Got(NamedTuple):
    """What one client got in a step, and how its connection ended if it did.

    Attributes:
        end: one of ENDS, or nothing.
    """

    data: bytes = b""
    end: str = ""


# What was got in a step, by client. Who got nothing is not in it.
Heard = dict[str, Got]


class Step(NamedTuple):
    """An action, and what everybody got of it, in the order of their coming."""

    action: Action
    heard: Heard


class Header(NamedTuple):
    """What holds for a whole transcript.

    Attributes:
        profile: the name of the profile that it was recorded with.
        framing: "segment": the same bytes cut otherwise are another conversation;
            "stream": the cut must not matter. Nothing: as the profile says.
        cut: how every send is cut that does not say otherwise.
        host: the address by which the clients come, if not the server's own.
        witness: what the witness of the fence got is in the transcript, too.
    """

    title: str = ""
    recorded_from: str = ""
    profile: str = ""
    framing: str = ""
    cut: str = ""
    host: str = ""
    witness: bool = False


class Transcript(NamedTuple):
    """What happened, under a title.

    Attributes:
        steps: read anew whenever somebody walks over them.
    """

    header: Header
    steps: Iterable[Step]


def load(path: Path) -> Transcript:
    """The transcript or scenario at *path*; ``-`` is standard input.

    Raises:
        FormatError: its header is none. Later lines raise it when they are reached.
        OSError: it cannot be read.
    """
    if str(path) == "-":
        return parse(sys.stdin.read(), "standard input")
    with _lines(path) as lines:
        header = _header(next(iter(lines), ""), str(path))
    return Transcript(header, _Steps(path))


def parse(text: str, name: str = "transcript") -> Transcript:
    """The transcript that is written in *text*, all of it in memory.

    Raises:
        FormatError: it is none; the line is named.
    """
    header, _, events = text.partition("\n")
    return Transcript(_header(header, name), list(_steps(events.split("\n"), name)))


def save(path: Path, transcript: Transcript) -> int:
    """Write it, step by step, in place of what is there; return how many steps.

    Nothing is replaced before the last step is there; ``-`` is standard output.
    """
    if str(path) == "-":
        return _write(sys.stdout, transcript)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf8", newline="\n") as file:
            count = _write(file, transcript)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def unparse(transcript: Transcript) -> str:
    """The lines of a transcript, each with its end."""
    return "".join(_all_lines(transcript))


def text_of(data: bytes) -> str | dict[str, str]:
    """How bytes are written in JSON."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    if text in ENDS:
        return {"base64": base64.b64encode(data).decode()}
    return text


def data_of(value: Any) -> bytes:
    """The bytes that are written so.

    Raises:
        ValueError: they are not.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return base64.b64decode(value["base64"], validate=True)
    raise ValueError(f'{value!r} is neither a text nor {{"base64": a text}}')


class _Steps:
    """The steps of a file, which is read again by everybody who walks over them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Step]:
        with _lines(self._path) as lines:
            next(iter(lines), None)
            yield from _steps(lines, str(self._path))


@contextmanager
def _lines(path: Path) -> Iterator[Iterable[str]]:
    with path.open(encoding="utf8", newline="\n") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: not UTF-8: {error}") from error


def _header(line: str, name: str) -> Header:
    event = _event(line, f"{name}, line 1") if line.strip() else {}
    if any(event.get(key) != value for key, value in FORMAT.items()):
        wanted = json.dumps(FORMAT)[1:-1]
        raise FormatError(
            f"{name}: not a transcript of this version: it begins with {line[:60]!r}, "
            f"not with {wanted}"
        )
    header = Header(**{key: event[key] for key in Header._fields if key in event})
    if header.framing not in ("", *FRAMINGS):
        raise FormatError(f"{name}: framing {header.framing!r} is none of {FRAMINGS}")
    return header


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
        if step is None or event.get("at", at) != at:
            raise FormatError(f"{where}: step {at} is not over, or has not begun")
        if "got" in event:
            _add(step.heard, event, where)
        elif "do" not in event:
            raise FormatError(f'{where}: neither "do" nor "got" is in it')
    if step is not None:
        yield step


def _event(line: str, where: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not JSON: {error}") from error
    if not isinstance(event, dict):
        raise FormatError(f"{where}: {line.strip()[:60]!r} is no object")
    return event


def _action(event: dict[str, Any], where: str) -> Action:
    client, do, cut = event.get("client"), event["do"], event.get("cut", "")
    if not isinstance(client, str) or not client:
        raise FormatError(f'{where}: "client" is missing: who does it?')
    if do not in DEEDS:
        raise FormatError(f"{where}: {do!r} is none of {', '.join(DEEDS)}")
    data = _data(event.get("data", ""), where)
    if data and not DEEDS[do]:
        raise FormatError(f"{where}: nothing can be said with {do!r}")
    return Action(client, do, data, cut)


def _add(heard: Heard, event: dict[str, Any], where: str) -> None:
    client, got = event.get("client"), event["got"]
    if not isinstance(client, str) or not client:
        raise FormatError(f'{where}: "client" is missing: who got it?')
    before = heard.get(client, Got())
    if isinstance(got, str) and got in ENDS:
        heard[client] = Got(before.data, got)
    else:
        heard[client] = Got(before.data + _data(got, where), before.end)


def _data(value: Any, where: str) -> bytes:
    try:
        return data_of(value)
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error


def _write(file: TextIO, transcript: Transcript) -> int:
    count = -1
    for lines in _all_lines(transcript):
        file.write(lines)
        count += 1
    return count


def _all_lines(transcript: Transcript) -> Iterator[str]:
    """The header's line, then for each step its lines in one."""
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
    for client, got in step.heard.items():
        if got.data:
            yield {"at": at, "client": client, "got": text_of(got.data)}
        if got.end:
            yield {"at": at, "client": client, "got": got.end}


def _visible(event: dict[str, Any]) -> str:
    line = json.dumps(event, ensure_ascii=False)
    if not line.isprintable():
        line = "".join(
            each if each.isprintable() else json.dumps(each)[1:-1] for each in line
        )
    return line + "\n"
