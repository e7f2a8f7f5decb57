"""Conversations that the tutorial's server had, for a reader, a diff and a replay.

A transcript is JSON Lines: a header, then for each step the line of its action and the
lines of what each client got of it, the whole of a step in one. The lines with "do" are
written by hand; ``python -m tests.transcripts`` has the original add the others.

Rule 1: what is not UTF-8 is written as ``{"base64": …}``; so is a text that is just
``eof``, because ``"got": "eof"`` is the end of the connection.
Rule 2: what cannot be seen is written as an escape.
Rule 3: reading what was written, and writing what was read, change nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.conversation import Action, Got, Heard

__all__ = ["HERE", "Step", "Transcript", "parse", "unparse"]

HERE = Path(__file__).parent

FORMAT = {"format": "legacy-chat-transcript", "version": 1}
EOF = "eof"


class Step(NamedTuple):
    """An action, and what everybody got of it, in the order of their coming."""

    action: Action
    heard: Heard


class Transcript(NamedTuple):
    """What happened, under a title."""

    title: str
    recorded_from: str
    steps: list[Step]


def parse(text: str) -> Transcript:
    """The transcript written in *text*.

    Raises:
        ValueError: it is none; the line is named.
    """
    header, *events = [json.loads(line) for line in text.split("\n") if line]
    if FORMAT.items() - header.items():
        raise ValueError(f"not a transcript of this version: {header}")
    steps: list[Step] = []
    for event in events:
        if "do" in event:
            data = _bytes(event.get("data", ""))
            steps.append(Step(Action(event["client"], event["do"], data), {}))
        if event["at"] != len(steps):
            raise ValueError(
                f"step {len(steps)} is not over, or has not begun: {event}"
            )
        if "got" in event:
            _add(steps[-1].heard, event["client"], event["got"])
    return Transcript(header["title"], header.get("recorded_from", ""), steps)


def unparse(transcript: Transcript) -> str:
    """The lines of a transcript, each with its end."""
    header = {
        **FORMAT,
        "title": transcript.title,
        "recorded_from": transcript.recorded_from,
    }
    events: list[dict[str, Any]] = [header]
    for at, (action, heard) in enumerate(transcript.steps, 1):
        client, do, data = action
        said = {"data": _text(data)} if data else {}
        events.append({"at": at, "client": client, "do": do, **said})
        for client, got in heard.items():
            events += [{"at": at, "client": client, "got": each} for each in _said(got)]
    return "".join(_visible(json.dumps(each, ensure_ascii=False)) for each in events)


def _visible(line: str) -> str:
    seen = (each if each.isprintable() else json.dumps(each)[1:-1] for each in line)
    return "".join(seen) + "\n"


def _add(heard: Heard, client: str, got: Any) -> None:
    data, _ = heard.get(client, Got(b""))
    heard[client] = Got(data, True) if got == EOF else Got(data + _bytes(got))


def _said(got: Got) -> Iterable[str | dict[str, str]]:
    if got.data:
        yield _text(got.data)
    if got.ended:
        yield EOF


def _bytes(value: str | dict[str, str]) -> bytes:
    return (
        value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])
    )


def _text(data: bytes) -> str | dict[str, str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = EOF
    return {"base64": base64.b64encode(data).decode()} if text == EOF else text
