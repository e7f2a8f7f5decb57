"""A conversation in columns, in lines, as a diagram, as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legacy_chat.baseline import Action, Received, Step, Transcript, TranscriptHeader
from legacy_chat.baseline.report.documents import diagram, page
from legacy_chat.baseline.report.show import as_columns, as_lines
from legacy_chat.baseline.report.text import readable, width, wrapped

TALK = Transcript(
    TranscriptHeader("K2: held back", "a server"),
    [
        Step(Action("a", "open"), {}),
        Step(Action("b", "open"), {}),
        Step(
            Action("a", "send", b"hello"),
            {"a": Received(b"hell"), "b": Received("用户{a} 说:hell".encode())},
        ),
        Step(Action("b", "drop", b"bye"), {"a": Received(b"\x1b[2J;", "eof")}),
    ],
)


def columns(at_width: int, colour: bool = False) -> list[str]:
    table = as_columns(TALK, at_width, colour)
    assert table is not None
    return list(table)


def test_each_client_has_a_column() -> None:
    assert columns(46) == [
        "K2: held back",
        "recorded from: a server",
        "",
        "     a                   b",
        "   1 > connects",
        "   2                     > connects",
        '   3 > "hello"           < "用户{a} 说:hell',
        '     < "hell"            "',
        '   4 < "\\x1b[2J;", EOF   > "bye" and closes',
    ]


def test_narrow_terminal_shows_lines_instead_of_columns() -> None:
    assert as_columns(TALK, 30, False) is None
    assert list(as_lines(TALK, False))[-3:] == [
        '     → b: "用户{a} 说:hell"',
        '   4 b: "bye" and closes',
        '     → a: "\\x1b[2J;", EOF',
    ]


@pytest.mark.parametrize("lines", [columns(60, True), list(as_lines(TALK, True))])
def test_colours_are_the_only_escapes_of_a_terminal(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert "\x1b[" in text
    plain = re.sub("\x1b\\[[0-9]+m", "", text)
    assert plain.replace("\n", "").isprintable()


@given(st.binary())
def test_control_bytes_are_shown_as_text(data: bytes) -> None:
    assert readable(data).isprintable()


@given(st.text("a你\u0301😀 "), st.integers(2, 9))
def test_no_line_is_wider_than_its_column(text: str, most: int) -> None:
    lines = wrapped(text, most)
    assert "".join(lines) == text
    assert all(width(line) <= most for line in lines)


def test_diagram_has_an_arrow_for_each_event() -> None:
    assert list(diagram(TALK)) == [
        "sequenceDiagram",
        "    participant c0 as a",
        "    participant c1 as b",
        "    participant server",
        "    c0->>server: connects",
        "    c1->>server: connects",
        "    c0->>server: #34;hello#34;",
        "    server-->>c0: #34;hell#34;",
        "    server-->>c1: #34;用户#123;a#125; 说:hell#34;",
        "    c1->>server: #34;bye#34; and closes",
        "    server--xc0: #34;#92;x1b[2J#59;#34;, EOF",
    ]


class Reader(HTMLParser):
    """Collects the text of a page, and the resources that it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_self_contained_and_escapes_its_data() -> None:
    nasty = b"<script>alert('&')</script></p></table>"
    step = Step(Action("<a>", "send", nasty), {"<a>": Received(nasty, "eof")})
    transcript = Transcript(TranscriptHeader("</title><script>"), [step])
    reader = Reader()
    reader.feed("\n".join(page(transcript)))
    assert reader.open == []
    assert reader.fetched == []
    assert reader.text.count(nasty.decode()) == 2
    assert "script" not in reader.text.replace("<script>", "").replace("</script>", "")
