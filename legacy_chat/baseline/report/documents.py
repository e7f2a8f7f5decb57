"""A conversation as a document: a self-contained HTML page, or a Mermaid diagram."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from legacy_chat.baseline.model.transcript import Step, Transcript
from legacy_chat.baseline.report.text import action_text, escaped, received_text

__all__ = ["diagram", "page"]

STYLE = """\
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th { position: sticky; top: 0; background: Canvas; text-align: left }
th, td { padding: .3rem .6rem; vertical-align: top; overflow-wrap: anywhere }
th:first-child, td:first-child { width: 3rem; text-align: right; opacity: .6 }
tr { border-top: 1px solid color-mix(in srgb, CanvasText 15%, transparent) }
p { margin: .15rem 0; padding: .2rem .5rem; border-radius: .4rem }
.sent { background: color-mix(in srgb, #2a7 22%, Canvas) }
.received { background: color-mix(in srgb, #47c 18%, Canvas) }
.end { font-style: italic }
"""

# Characters with a meaning for Mermaid within a message; written as entities. Its
# scanner also interprets "wrap:", and finds some statements within a text.
SPECIAL = re.compile(
    r"[#;<>&{}`$\\\"]|^\s|\s$|%%|(?<=wrap):|(?<=st)y(?=le)|(?<=class)D"
)


def page(transcript: Transcript) -> Iterator[str]:
    """Yield the page in pieces: a row for each step, a column for each client."""
    header, clients = transcript.header, transcript.clients()
    title = _html(header.title)
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>"
    yield f"<body>\n<h1>{title}</h1>"
    if header.recorded_from:
        yield f"<p>Recorded from: {_html(header.recorded_from)}</p>"
    heads = "".join(f"<th>{_html(name)}</th>" for name in clients)
    yield f"<table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>"
    for at, step in enumerate(transcript.steps, 1):
        cells = "".join(f"<td>{_cell(step, name)}</td>" for name in clients)
        yield f"<tr><td>{at}</td>{cells}</tr>"
    yield "</tbody>\n</table>\n</body>\n</html>"


def _cell(step: Step, name: str) -> str:
    sent = received = ""
    if step.action.client == name:
        sent = f'<p class="sent">{_html(action_text(step.action))}</p>'
    if name in step.answers:
        answer = step.answers[name]
        ended = " end" if answer.end else ""
        received = f'<p class="received{ended}">{_html(received_text(answer))}</p>'
    return sent + received


def _html(text: str) -> str:
    return escape(escaped(text))


def diagram(transcript: Transcript) -> Iterator[str]:
    """Yield the lines of the diagram."""
    # Generated names, because a client may be named "end" or anything else.
    names = {client: f"c{n}" for n, client in enumerate(transcript.clients())}
    yield "sequenceDiagram"
    for client, name in names.items():
        yield f"    participant {name} as {_entities(escaped(client))}"
    yield "    participant server"
    for action, answers in transcript.steps:
        yield f"    {names[action.client]}->>server: {_entities(action_text(action))}"
        for client, received in answers.items():
            arrow = "--x" if received.end else "-->>"
            text = _entities(received_text(received))
            yield f"    server{arrow}{names[client]}: {text}"


def _entities(text: str) -> str:
    return SPECIAL.sub(_entity, text)


def _entity(match: re.Match[str]) -> str:
    return "".join(f"#{ord(each)};" for each in match[0])
