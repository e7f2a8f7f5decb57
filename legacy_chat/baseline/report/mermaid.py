"""A conversation as a Mermaid sequence diagram, for a page that can draw one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from legacy_chat.baseline.model.transcript import Transcript
from legacy_chat.baseline.report.text import action_text, escaped, received_text

__all__ = ["diagram"]

# Characters with a meaning for Mermaid within a message; written as entities. Its
# scanner also interprets "wrap:", and finds some statements within a text.
SPECIAL = re.compile(
    r"[#;<>&{}`$\\\"]|^\s|\s$|%%|(?<=wrap):|(?<=st)y(?=le)|(?<=class)D"
)


def diagram(transcript: Transcript) -> Iterator[str]:
    """Yield the lines of the diagram."""
    # Generated names, because a client may be named "end" or anything else.
    names = {client: f"c{n}" for n, client in enumerate(transcript.clients())}
    yield "sequenceDiagram"
    for client, name in names.items():
        yield f"    participant {name} as {_text(escaped(client))}"
    yield "    participant server"
    for action, answers in transcript.steps:
        yield f"    {names[action.client]}->>server: {_text(action_text(action))}"
        for client, received in answers.items():
            arrow = "--x" if received.end else "-->>"
            text = _text(received_text(received))
            yield f"    server{arrow}{names[client]}: {text}"


def _text(text: str) -> str:
    return SPECIAL.sub(_entities, text)


def _entities(match: re.Match[str]) -> str:
    return "".join(f"#{ord(each)};" for each in match[0])
