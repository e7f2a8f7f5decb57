"""A trace as a diagram that GitHub's Mermaid accepts and draws.

If the folder that MERMAID names has mermaid and jsdom, Mermaid's own parser reads these
diagrams: npm install mermaid jsdom.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.trace.filter import TurnFilter
from compat.trace.reader import Reader, read_lines
from compat.trace.render.formatting import clip, readable
from compat.trace.render.mermaid import diagram
from tests.compat.trace.strategies import files, text
from tests.compat.trace.synthetic import Room, Trace, hello, large

# The valid statements; see PARTICIPANT and others in Mermaid's grammar.
TEXT = r"""(?:[\w .,:()/=+…·"'!?*@-]|#\d+;|<br/>)+"""
STATEMENT = re.compile(
    rf"    (?:participant (?:L|[cp]\d+) as {TEXT}"
    rf"|Note over (?:L|c\d+): {TEXT}"
    rf"|(?:L|[cp]\d+)(?:->>|-->>|--x)(?:L|[cp]\d+): {TEXT})"
)

PARSE = """\
import { JSDOM } from "jsdom";
import { readFileSync } from "fs";
globalThis.window = new JSDOM("<body></body>").window;
globalThis.document = window.document;
const mermaid = (await import("mermaid")).default;
const read = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  await mermaid.parse(text);
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
  read.push([...db.getMessages().map(each => each.message),
             ...[...db.getActors().values()].map(each => each.description)]);
}
console.log(JSON.stringify(read));
"""


def drawn(
    trace: Trace, limit: int = 200, choice: TurnFilter | None = None
) -> list[str]:
    turns, reader = trace.read()
    return diagram(
        (choice or TurnFilter()).apply(turns), reader, limit=limit
    ).splitlines()


def test_diagram_of_a_message_that_loses_its_end() -> None:
    room = Room()
    anna, _bert = room.enter(), room.enter()
    room.send(anna, b"hello")
    assert drawn(room.trace, choice=TurnFilter(3)) == [
        "sequenceDiagram",
        "    participant p2 as 127.0.0.1:40014",
        "    participant p3 as 127.0.0.1:40021",
        "    participant L as the loop",
        "    participant c2 as ChatSession#35;2",
        "    participant c3 as ChatSession#35;3",
        "    Note over L: turn 3: ready, waited 250 µs",
        "    L->>c2: handle_read",
        '    p2-->>c2: "hello"',
        '    c2->>c2: collect_incoming_data("hell")',
        '    c2->>c2: push("hell")',
        '    c2->>c2: BroadcastGroup.push("用户127.0.0.1:40014 说:h…", 30 bytes) to 1',
        '    Note over c2: holds back "o": it may begin the terminator "out"',
        "    L->>L: flush",
        '    c2-->>p2: "hell"',
        '    c3-->>p3: "用户127.0.0.1:40014 说:hell"',
    ]


def test_exception_is_an_arrow_with_a_cross() -> None:
    room = Room()
    room.fail(room.enter(), b"!", "ValueError: no; end")
    lines = drawn(room.trace)
    assert "    c2--xc2: raises ValueError: no#59; end" in lines
    assert "    c2->>c2: handle_error for ValueError: no#59; end" in lines


def test_large_diagram_is_cut_at_the_limit_of_github() -> None:
    lines = drawn(large(5_000), limit=100_000)
    assert 45_000 < sum(len(line) + 1 for line in lines) <= 50_000
    assert re.fullmatch(r"    Note over L: cut off from turn \d+ on", lines[-1])


def test_limit_counts_messages_and_notes() -> None:
    lines = drawn(hello(), limit=5)
    assert len(lines) == len("s") + 2 + 5 + 1
    assert lines[-1] == "    Note over L: cut off from turn 1 on"


def test_trace_without_calls_is_a_diagram() -> None:
    trace = Trace()
    trace.turn(why="timeout")
    assert drawn(trace)[-1] == "    Note over L: no calls"


@given(files(), st.integers(1, 50))
def test_diagram_of_any_trace_has_valid_statements(file: bytes, limit: int) -> None:
    reader = Reader()
    turns = list(read_lines(io.BytesIO(file), reader))
    first, *statements = diagram(turns, reader, limit=limit).splitlines()
    assert first == "sequenceDiagram"
    for statement in statements:
        assert STATEMENT.fullmatch(statement), statement


def test_mermaid_parses_the_texts_that_were_meant() -> None:
    folder, node = os.environ.get("MERMAID", ""), shutil.which("node")
    if not folder or node is None:
        pytest.skip("MERMAID names no folder with mermaid and jsdom")
    random = Random(7)
    meant = [[clip(text(random), 12) for _ in range(20)] for _ in range(100)]
    diagrams = [_raising(texts) for texts in meant]
    script = Path(folder, "read-diagrams.mjs")
    script.write_text(PARSE)
    try:
        done = subprocess.run(
            [node, script],
            input=json.dumps(diagrams),
            capture_output=True,
            check=False,
            encoding="utf-8",
        )
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    for errors, read in zip(meant, json.loads(done.stdout), strict=True):
        texts = [_decoded(each) for each in read]
        raised = [f"raises {readable(each)}" for each in errors if each]
        assert [each for each in texts if each.startswith("raises ")] == raised


def _raising(texts: list[str]) -> str:
    """Return a diagram with these messages of exceptions."""
    trace = Trace()
    for each in texts:
        trace.calls("f", error=each)
    turns, reader = trace.read()
    return diagram(turns, reader)


def _decoded(text: str) -> str:
    """Decode Mermaid's marks for entities, as in a page."""
    text = text.replace("ﬂ°°", "&#").replace("ﬂ°", "&").replace("¶ß", ";")
    return html.unescape(text)


def test_send_that_would_block_is_drawn_without_a_cross() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.calls("send", anna, error="SSLWantWriteError: later")
    trace.calls("push", anna, error="ValueError: no")
    drawn = diagram(*trace.read())
    assert drawn.count("--x") == 1
    assert "SSLWantWriteError" not in drawn
