"""The page as a file: whole, inert, with all data of the trace."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from compat.trace.reader import Reader
from compat.trace.render.html import LANGUAGES, SCRIPTS, asset, page
from tests.compat.trace.synthetic import Room, Trace, hello

EVIL = b"</script><script>alert(1)</script><!--<script>]]>&\x00\xff"


class Parts(HTMLParser):
    """The elements of a page, and the content of those that a browser parses."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.open = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = tag in ("script", "style", "title", "h1")
        if self.open:
            self.inside.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.inside[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def of(self, tag: str) -> list[str]:
        names = [name for name, _ in self.elements]
        read = [name for name in names if name in ("script", "style", "title", "h1")]
        return [
            what for name, what in zip(read, self.inside, strict=True) if name == tag
        ]


def shown(trace: Trace, **options: Any) -> tuple[str, dict[str, Any]]:
    """Return a trace's page, and the data for its script."""
    source = page(*trace.read(), **options)
    words, data, script = Parts(source).of("script")
    assert json.loads(words).keys() == set(LANGUAGES)
    assert script.strip()
    return source, json.loads(data)


def rows_of(data: dict[str, Any], kind: int) -> list[list[Any]]:
    return [row for row in data["rows"] if row[0] == kind]


def texts(data: dict[str, Any], kind: int, place: int) -> list[str]:
    """Return the texts in one column of the rows of a kind."""
    return [data["strings"][row[place]] for row in rows_of(data, kind)]


def with_data(data: bytes) -> Trace:
    trace = Trace()
    channel = trace.open("ChatSession", 7)
    trace.turn(read=[channel])
    trace.calls("handle_read", channel, data=data, **{"in": len(data)})
    return trace


def test_rows_of_a_turn_follow_it_in_order_of_their_beginning() -> None:
    room = Room()
    anna = room.enter()
    room.send(anna, b"hello")
    _, data = shown(room.trace)
    last = max(at for at, row in enumerate(data["rows"]) if row[0] == 0)
    strings = data["strings"]
    calls = [(row[1], strings[row[4]]) for row in data["rows"][last:] if row[0] == 2]
    assert calls == [
        (0, "handle_read"),
        (1, "collect_incoming_data"),
        (2, "push"),
        (2, "push"),
        (0, "flush"),
        (1, "send"),
    ]


def test_channel_state_is_inside_the_call_that_changed_it() -> None:
    room = Room()
    anna = room.enter()
    room.send(anna, b"hello")
    _, data = shown(room.trace)
    rows = data["rows"]
    held = next(at for at, row in enumerate(rows) if row[:1] + row[4:] == [3, 16, 1])
    assert rows[held][1] == 1
    assert data["strings"][rows[held - 1][4]] == "push"


def test_bytes_arrive_as_they_were_recorded() -> None:
    every = bytes(range(32)) + "é你".encode() + b"\xe4\xff\x80"
    _, data = shown(with_data(every))
    (text,) = texts(data, 2, 7)
    assert text.encode("utf-8", "surrogateescape") == every


@pytest.mark.parametrize("where", ["data", "error", "kind", "program", "title", "code"])
def test_text_never_ends_the_script_or_becomes_markup(where: str) -> None:
    evil = EVIL.decode("utf-8", "surrogateescape").replace("\x00", "")
    trace = Trace(program=evil if where == "program" else "room.py")
    channel = trace.open(evil if where == "kind" else "Session", 7)
    source = f"def {evil}(self):\n    '{evil}'" if where == "code" else "def f(self): 0"
    code = trace.code(source, evil if where == "code" else None)
    trace.turn(read=[channel])
    error = evil if where == "error" else ""
    data = EVIL if where == "data" else b"hi"
    trace.calls("handle_read", channel, data=data, f=code, error=error, where=evil)
    harmless = Trace()
    harmless.turn()
    title = evil if where == "title" else ""
    evil_page = Parts(page(*trace.read(), title=title))
    usual_page = Parts(page(*harmless.read()))
    names = [name for name, _ in evil_page.elements]
    assert names == [name for name, _ in usual_page.elements]
    assert evil_page.of("script")[2] == usual_page.of("script")[2]
    assert evil in json.loads(evil_page.of("script")[1])["strings"]


def test_page_allows_only_its_own_script_and_style() -> None:
    source, _ = shown(hello())
    parts = Parts(source)
    (policy,) = (
        each["content"]
        for each in parts.all("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        digest = hashlib.sha256(parts.of(element)[-1].encode()).digest()
        allowed = f"{directive} 'sha256-{base64.b64encode(digest).decode()}'"
        assert policy is not None
        assert allowed in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"""(src|href|action)=["']""", source)
    assert "http://" not in source
    assert "https://" not in source


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_never_makes_markup_of_text(name: str) -> None:
    source = asset(name)
    assert "</script" not in source
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ):
        assert way not in source


# Colours of text, and the backgrounds below it, by their names in page.css.
WRITTEN = {
    "ink": ("paper", "sheet", "soft", "accent-soft", "good-soft", "bad-soft", "call-0"),
    "quiet": ("paper", "sheet", "soft", "accent-soft"),
    "accent": ("sheet",),
    "on-accent": ("accent",),
    "on-moment": ("moment",),
    "held": ("held-soft", "paper"),
    "good": ("sheet", "soft", "accent-soft"),
    "bad": ("sheet", "soft", "accent-soft", "bad-soft"),
    "queue-text": ("queue-soft",),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(theme: str) -> None:
    block = re.findall(r":root[^{]*\{(.*?)\}", asset("page.css"), re.DOTALL)
    names = dict(
        re.findall(r"--([\w-]+): (#\w+)", block[["light", "dark"].index(theme)])
    )
    for ink, papers in WRITTEN.items():
        for paper in papers:
            light, dark = sorted(map(luminance, (names[ink], names[paper])))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    digits = (
        colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    )
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_both_languages_have_the_same_words() -> None:
    words = json.loads(asset("words.json"))
    # Chinese has no forms for one and many.
    kept = {key for key in words["en"] if not key.endswith(".one")}
    assert kept == set(words["zh"])
    for key in kept:
        holes = [set(re.findall(r"\{\w+\}", words[lang][key])) for lang in LANGUAGES]
        assert holes[0] == holes[1] or key == "flame.text", key


def test_words_of_the_page_and_its_scripts_are_defined() -> None:
    words = json.loads(asset("words.json"))["en"]
    frame = asset("page.html")
    named = set(re.findall(r'data-(?:word|label|hint)="([^"]+)"', frame))
    for name in SCRIPTS:
        named |= set(re.findall(r'\.get\("([^"]+)"', asset(name)))
    assert named <= set(words)


def test_page_declares_its_initial_language() -> None:
    source, _ = shown(hello(), lang="zh")
    assert Parts(source).all("html")[0]["lang"] == "zh"


def test_unknown_language_is_an_error_that_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"lang must be one of en, zh, got 'fr'"):
        page([], Reader(), lang="fr")


def test_title_defaults_to_the_program() -> None:
    assert Parts(shown(hello())[0]).of("title") == ["room.py 19528"]
    assert Parts(shown(hello(), title="a < b")[0]).of("h1") == ["a < b"]


def test_trace_without_turns_is_a_page() -> None:
    _, data = shown(Trace())
    assert data["rows"] == []
    assert Parts(page([], Reader())).of("title") == ["compat trace"]


def test_cut_trace_has_the_lines_before_the_cut() -> None:
    trace = hello()
    whole = shown(trace)[1]["rows"]
    trace.lines[-30] = trace.lines[-30][:20]
    _, data = shown(trace)
    assert data["header"]["whole"] is False
    assert 0 < len(data["rows"]) < len(whole)


def test_unfinished_wait_has_no_wake_up_row() -> None:
    trace = Trace()
    trace.begin_turn(channels=1)
    _, data = shown(trace)
    assert [row[0] for row in data["rows"]] == [0]


def test_calls_inside_an_unfinished_call_are_shown() -> None:
    trace = Trace()
    trace.turn()
    with trace.call("handle_read"), trace.call("collect_incoming_data"):
        trace.calls("push", data=b"hi", given=True)
    del trace.lines[-2:]
    _, data = shown(trace)
    assert [(row[1], data["strings"][row[4]]) for row in rows_of(data, 2)] == [
        (0, "push")
    ]


def test_turns_of_threads_stand_in_order_of_their_beginning() -> None:
    trace = Trace()
    trace.begin_turn()
    for _ in range(2):
        trace.thread = 2
        trace.turn(why="timeout")
    trace.thread = 1
    trace.event("woke", why="ready", waited=900)
    trace.turn(why="timeout")
    _, data = shown(trace)
    turns = [(row[3], row[2]) for row in rows_of(data, 0)]
    assert turns == [(1, 1), (2, 1), (2, 2), (1, 2)]


def test_unknown_events_and_channelless_calls_are_harmless() -> None:
    trace = Trace()
    trace.turn()
    trace.event("weather", sky="grey")
    with trace.call("soon"):
        trace.event("weather", sky="blue")
        trace.event("state", held=3)
    trace.event("interest", r=True)
    trace.begin_turn()
    _, data = shown(trace)
    assert [row[0] for row in data["rows"]] == [0, 1, 2, 0]


def test_calls_nested_deeper_than_python_recurses() -> None:
    trace = Trace()
    trace.turn()
    deep = 3000
    trace.lines += [
        json.dumps({"e": "call", "do": "f", "t": 9, "us": 1, "d": depth})
        for depth in range(deep - 1, 0, -1)
    ]
    trace.lines.append(json.dumps({"e": "call", "do": "f", "t": 9, "us": 1}))
    _, data = shown(trace)
    assert [row[1] for row in rows_of(data, 2)] == list(range(deep))
