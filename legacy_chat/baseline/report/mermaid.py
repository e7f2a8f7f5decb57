"""A conversation as a Mermaid sequence diagram, for a page that can draw one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from legacy_chat.baseline.model.format import Transcript
from legacy_chat.baseline.report.show import clients_of
from legacy_chat.baseline.report.text import deed, got, seen

__all__ = ["diagram"]

# Characters with a meaning for Mermaid within a message; written as entities. Its
# scanner also interprets "wrap:", and finds some statements within a text.
ITS_OWN = re.compile(
    r"[#;<>&{}`$\\\"]|^\s|\s$|%%|(?<=wrap):|(?<=st)y(?=le)|(?<=class)D"
)


def diagram(transcript: Transcript) -> Iterator[str]:
    """Yield the lines of the diagram."""
    # Generated names, because a client may be named "end" or anything else.
    clients = {name: f"c{number}" for number, name in enumerate(clients_of(transcript))}
    yield "sequenceDiagram"
    for name, ours in clients.items():
        yield f"    participant {ours} as {_text(seen(name))}"
    yield "    participant server"
    for action, answers in transcript.steps:
        yield f"    {clients[action.client]}->>server: {_text(deed(action))}"
        for name, each in answers.items():
            arrow = "--x" if each.end else "-->>"
            yield f"    server{arrow}{clients[name]}: {_text(got(each))}"


def _text(text: str) -> str:
    return ITS_OWN.sub(_entities, text)


def _entities(match: re.Match[str]) -> str:
    return "".join(f"#{ord(each)};" for each in match[0])
