"""The page in a real browser, used by keys and by buttons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from compat.trace.reader import Reader, TraceError, read_lines
from compat.trace.render.html import page
from tests.browser import chromium, missing, opened, visit
from tests.compat.trace.mutations import damaged
from tests.compat.trace.synthetic import Room, Trace, hello, large

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a short conversation."""
    path = tmp_path_factory.mktemp("page") / "hello.html"
    path.write_text(page(*hello().read()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def one(browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser) as one:
        yield visit(one, file)


@pytest.fixture(scope="module")
def another(browser: Any) -> Iterator[Any]:
    with opened(browser) as another:
        yield another


@pytest.fixture
def shown(one: Any) -> Any:
    """The page as it was when it was opened; to open it anew takes long."""
    one.evaluate(
        """() => {
            for (const [id, value] of [["channel", "0"], ["what", ""], ["text", ""]]) {
                const field = document.getElementById(id);
                field.value = value;
                field.dispatchEvent(new Event(id === "text" ? "input" : "change"));
            }
            document.getElementById("zoom-all").click();
            document.getElementById("first").click();
            document.activeElement.blur();
            location.hash = "";
        }"""
    )
    return one


def show(window: Any, path: Path, trace: Trace, **options: Any) -> Any:
    """The page of a trace."""
    path = path / "trace.html"
    path.write_text(page(*trace.read(), **options), encoding="utf-8")
    return visit(window, path)


def go_to(shown: Any, turn: int) -> None:
    shown.evaluate(
        """(turn) => {
            const field = document.getElementById("turn");
            field.value = turn;
            field.dispatchEvent(new Event("change"));
        }""",
        str(turn),
    )


def press(shown: Any, selector: str) -> None:
    """Click without waiting for animations: the page has none."""
    shown.locator(selector).first.dispatch_event("click")


def announced(shown: Any) -> str:
    """Return the last announcement for screen readers."""
    return str(shown.inner_text("#announcement"))


def selected(shown: Any) -> str:
    return str(shown.inner_text('#events [aria-selected="true"] .name'))


def is_in_view(shown: Any, selector: str) -> bool:
    return bool(
        shown.evaluate(
            """(selector) => {
                const inner = document.querySelector(selector).getBoundingClientRect();
                const outer = document.querySelector("#events").getBoundingClientRect();
                return inner.top >= outer.top && inner.bottom <= outer.bottom;
            }""",
            selector,
        )
    )


def first_call_after(shown: Any) -> str:
    """The first call below the event that is selected, as a selector."""
    return str(
        shown.evaluate(
            """() => {
                const top = (each) => parseFloat(each.style.top);
                const here = document.querySelector('#events [aria-selected="true"]');
                const below = [...document.querySelectorAll("#events .call")]
                    .filter((each) => top(each) > top(here));
                return `#${below.sort((a, b) => top(a) - top(b))[0].id}`;
            }"""
        )
    )


def test_keys_step_through_calls_events_and_turns(shown: Any) -> None:
    go_to(shown, 3)
    assert selected(shown) == "Turn 3"
    for key, name in (
        ("ArrowRight", "handle_read"),
        ("ArrowRight", "collect_incoming_data"),
        ("ArrowDown", "push"),
        ("ArrowLeft", "collect_incoming_data"),
        ("ArrowUp", "handle_read"),
        ("ArrowUp", "ready"),
        ("Shift+ArrowRight", "Turn 4"),
        ("PageUp", "Turn 3"),
        ("Shift+ArrowLeft", "Turn 2"),
        ("End", "the end"),
        ("Home", "Before the first turn"),
        ("ArrowLeft", "Before the first turn"),
    ):
        shown.keyboard.press(key)
        assert selected(shown) == name, key
        assert is_in_view(shown, '#events [aria-selected="true"]')


def test_buttons_act_like_the_keys(shown: Any) -> None:
    go_to(shown, 3)
    for button, name in (
        ("call-on", "handle_read"),
        ("event-on", "collect_incoming_data"),
        ("call-back", "handle_read"),
        ("event-back", "ready"),
        ("turn-on", "Turn 4"),
        ("turn-back", "Turn 3"),
        ("last", "the end"),
        ("first", "Before the first turn"),
    ):
        shown.click(f"#{button}")
        assert selected(shown) == name, button


def test_one_turn_back_from_a_call_is_its_own_turn(shown: Any) -> None:
    go_to(shown, 3)
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("Shift+ArrowLeft")
    assert selected(shown) == "Turn 3"


def test_details_show_collected_and_held_back_bytes(shown: Any) -> None:
    go_to(shown, 3)
    press(shown, "#call-on")
    collected = shown.locator(".fate .collected")
    held = shown.locator(".fate .held")
    assert collected.locator(".cells").inner_text() == "hell"
    assert held.locator(".cells").inner_text() == "o"
    assert shown.inner_text(".row.about .cell.held .cells") == "o"
    assert "was 0 bytes" in shown.inner_text(".row.about .cell.held")
    press(shown, "#turn-on")
    assert shown.locator(".rows .cell.held .cells").count() == 0


def test_collected_bytes_link_to_the_call(shown: Any) -> None:
    go_to(shown, 9)
    press(shown, "#call-on")
    fate = shown.locator(".fate .cells").all_inner_texts()
    assert fate == ["ab", "out", r"\r\n"]
    press(shown, ".fate .terminator button")
    assert selected(shown) == "found_terminator"


def test_stepping_shows_a_queue_growing(shown: Any) -> None:
    for turn, what in (
        (5, "empty"),
        (6, "33 bytes · 1 entry"),
        (9, "210 bytes · 7 entries"),
    ):
        go_to(shown, turn)
        row = shown.locator(".rows .row", has_text="ChatSession#4")
        assert what in row.locator(".queue").inner_text()


def test_turn_is_shown_in_five_phases(shown: Any) -> None:
    go_to(shown, 3)
    texts = [
        shown.inner_text(f".phase.{name}")
        for name in ("asked", "waited", "ready", "called", "became")
    ]
    for text, what in zip(
        texts,
        (
            "3 channels checked",
            "ready",
            "ChatSession#2 to read",
            "ChatSession#2 handle_read",
            "ChatSession#2 held back: 1 byte",
        ),
        strict=True,
    ):
        assert what in text
    press(shown, ".phase.called button")
    assert selected(shown) == "handle_read"
    assert shown.get_attribute(".phase.called button", "aria-current") == "step"


def test_source_of_a_callback_highlights_its_definition(
    shown: Any,
) -> None:
    go_to(shown, 3)
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowRight")
    assert shown.inner_text(".source .definition").endswith(
        "def collect_incoming_data(self, data):"
    )
    assert shown.locator(".source .line").count() == 6


def test_error_is_shown_at_the_line_that_raised_it(shown: Any) -> None:
    shown.select_option("#what", "errors")
    press(shown, "#events .failed")
    assert "UnicodeDecodeError" in shown.inner_text("#detail .error")
    assert "self.push(data)" in shown.inner_text(".source .raised")


def test_channel_filter_limits_the_steps_to_its_events(
    shown: Any,
) -> None:
    shown.select_option("#channel", label="ChatSession#4")
    names = set(shown.locator("#events .call .channel").all_inner_texts())
    assert names == {"ChatSession#4"}
    shown.keyboard.press("Home")
    shown.keyboard.press("ArrowRight")
    assert shown.inner_text("#detail h3") == "ChatSession#4 handle_write"
    # The channel's own row takes the filter off again.
    press(shown, '[data-channel="4"]')
    assert shown.input_value("#channel") == "0"
    assert (
        shown.inner_text("#found").split(" of ")[0]
        == shown.inner_text("#found").split(" of ")[1]
    )


def test_search_finds_matching_events(shown: Any) -> None:
    shown.fill("#text", "SHOUT")
    texts = shown.locator("#events .event:not(.turn)").all_inner_texts()
    assert len(texts) == 1
    assert "I shout" in texts[0]
    shown.fill("#text", "no such thing")
    assert shown.is_visible("#nothing")
    shown.fill("#text", "")
    assert not shown.is_visible("#nothing")


def test_click_in_the_list_selects_the_event(shown: Any) -> None:
    press(shown, "#events .event >> nth=5")
    assert shown.get_attribute("#events .event >> nth=5", "aria-selected") == "true"


def test_timeline_selects_by_click_and_keys(shown: Any) -> None:
    box = shown.locator("#time").bounding_box()
    shown.mouse.click(box["x"] + box["width"] - 1, box["y"] + 10)
    assert "13 of 13" in shown.inner_text("#where")
    shown.press("#time", "ArrowLeft")
    assert selected(shown) == "Turn 13"
    shown.press("#time", "ArrowLeft")
    assert selected(shown) == "Turn 12"
    assert "Turn 12 of 13" in shown.get_attribute("#time", "aria-valuetext")


def minutes() -> Trace:
    """Pairs of turns, some 300 microseconds apart, a minute between the pairs."""
    room = Room()
    anna = room.enter()
    for _ in range(6):
        room.quiet(60_000_000)
        room.send(anna, b"one")
        room.send(anna, b"two")
    room.trace.end()
    return room.trace


def part(shown: Any) -> str:
    """Return the label of the time line's visible part."""
    return str(shown.inner_text("#part"))


def turns_at(shown: Any, places: int) -> list[int]:
    """Return the turns that clicks on the time line select, from left to right."""
    return [
        int(turn)
        for turn in shown.evaluate(
            """(places) => {
                const line = document.getElementById("time");
                const { left, top, width } = line.getBoundingClientRect();
                line.setPointerCapture = () => undefined;
                return Array.from({ length: places }, (_, place) => {
                    const clientX = left + ((place + 0.5) / places) * width;
                    const where = { clientX, clientY: top + 30, bubbles: true };
                    line.dispatchEvent(new PointerEvent("pointerdown", where));
                    return document.getElementById("turn").value;
                });
            }""",
            places,
        )
    ]


def turn_is_in_view(shown: Any) -> bool:
    """Whether the time line has the colour of the selected turn, where no lane is."""
    return bool(
        shown.evaluate(
            """() => {
                const line = document.getElementById("time");
                const y = Math.round(line.height * 43 / line.clientHeight);
                const copy = document.createElement("canvas");
                Object.assign(copy, { width: line.width, height: 1 });
                const pen = copy.getContext("2d", { willReadFrequently: true });
                pen.drawImage(line, 0, -y);
                const row = pen.getImageData(0, 0, line.width, 1).data;
                const isOurs = (at) => row[at + 3] > 20 && row[at] < 60
                    && row[at + 1] > 80 && row[at + 2] > 80;
                return Array.from(row.keys()).some((at) => at % 4 === 0 && isOurs(at));
            }"""
        )
    )


def test_zoom_separates_turns_of_microseconds(another: Any, tmp_path: Path) -> None:
    shown = show(another, tmp_path, minutes())
    press(shown, "#by")
    assert part(shown) == "all 360 s"
    go_to(shown, 6)
    before = turns_at(shown, 20)
    assert not {6, 7} <= set(before)
    go_to(shown, 6)
    while not re.fullmatch(r"[1-3]\.\d+ ms of 360 s", part(shown)):
        shown.keyboard.press("+")
        assert turn_is_in_view(shown)
    assert {6, 7} <= set(turns_at(shown, 20))
    # However far the view has to go, it goes along.
    shown.keyboard.press("Home")
    for turn in range(1, 8):
        shown.keyboard.press("Shift+ArrowRight")
        assert shown.input_value("#turn") == str(turn)
        assert turn_is_in_view(shown)
        shown.keyboard.press("ArrowRight")
        assert turn_is_in_view(shown)
    shown.keyboard.press("0")
    assert part(shown) == "all 360 s"
    assert turns_at(shown, 9)[-1] == 12


def test_turn_can_fill_the_timeline(another: Any, tmp_path: Path) -> None:
    shown = show(another, tmp_path, minutes())
    press(shown, "#by")
    go_to(shown, 6)
    shown.keyboard.press("z")
    assert part(shown).endswith("µs of 360 s")
    assert set(turns_at(shown, 9)[1:8]) == {6}


def test_zoom_keys_and_buttons_do_the_same(shown: Any) -> None:
    everything = part(shown)
    assert everything.startswith("all ")
    for key, button in (
        ("+", "zoom-in"),
        ("=", "zoom-in"),
        ("-", "zoom-out"),
        ("z", "zoom-turn"),
        ("Z", "zoom-turn"),
        ("0", "zoom-all"),
    ):
        shown.evaluate("() => document.getElementById('zoom-all').click()")
        go_to(shown, 7)
        for _ in range(3):
            shown.keyboard.press("+")
        shown.keyboard.press(key)
        by_key, announcement = part(shown), announced(shown)
        assert announcement == f"Timeline: {by_key}"
        press(shown, "#zoom-all")
        for _ in range(3):
            press(shown, "#zoom-in")
        press(shown, f"#{button}")
        assert part(shown) == by_key
        assert announced(shown) == announcement
        assert (by_key == everything) is (key == "0")
    for _ in range(40):
        shown.keyboard.press("-")
    assert part(shown) == everything
    named = {"zoom-in": "Zoom in", "zoom-out": "Zoom out", "zoom-all": "All"}
    for button, name in named.items():
        assert shown.get_by_role("button", name=name, exact=True).get_attribute(
            "id"
        ) == (button)


def test_zoom_keeps_the_turn_in_view_within_the_trace(shown: Any) -> None:
    for turn in (1, 13):
        press(shown, "#zoom-all")
        go_to(shown, turn)
        for by in range(2):
            for _ in range(7):
                shown.keyboard.press("+")
                assert turn_is_in_view(shown)
            press(shown, "#by")
            assert turn_is_in_view(shown), by
            for _ in range(7):
                shown.keyboard.press("-")
                assert turn_is_in_view(shown)


def test_other_scale_shows_the_same_part(another: Any, tmp_path: Path) -> None:
    shown = show(another, tmp_path, minutes())
    go_to(shown, 6)
    shown.keyboard.press("z")
    press(shown, "#by")
    assert part(shown).endswith(" of 360 s")
    assert not part(shown).startswith("360 s")
    press(shown, "#by")
    assert part(shown).endswith("events")
    assert 6 in turns_at(shown, 9)


def wheel(shown: Any, place: float, turns: int) -> None:
    box = shown.locator("#time").bounding_box()
    shown.mouse.move(box["x"] + place * box["width"], box["y"] + 30)
    shown.mouse.wheel(0, turns)


def test_wheel_with_control_zooms_about_the_pointer(shown: Any) -> None:
    go_to(shown, 7)
    everything = part(shown)
    before = turns_at(shown, 10)
    go_to(shown, 7)
    shown.keyboard.down("Control")
    wheel(shown, 0.35, -100)
    shown.keyboard.up("Control")
    shown.wait_for_selector("#part:not(:has-text('all'))")
    assert turn_is_in_view(shown)
    assert shown.evaluate("[devicePixelRatio, visualViewport.scale]") == [1, 1]
    assert turns_at(shown, 10)[3] == before[3]
    now = part(shown)
    # Without it, the page scrolls, as it does elsewhere.
    wheel(shown, 0.35, -100)
    shown.keyboard.down("Control")
    wheel(shown, 0.35, 100)
    shown.keyboard.up("Control")
    shown.wait_for_selector("#part:has-text('all')")
    assert now != part(shown) == everything


def test_typing_into_a_field_does_not_zoom(shown: Any) -> None:
    before = part(shown)
    shown.focus("#text")
    for key in "+-0z":
        shown.keyboard.press(key)
    assert shown.input_value("#text") == "+-0z"
    assert part(shown) == before


def test_address_of_the_page_names_a_turn(shown: Any) -> None:
    shown.evaluate("location.hash = '#turn=7'")
    shown.wait_for_selector('#events [aria-selected="true"]:has-text("Turn 7")')


def test_address_selects_the_turn_with_its_calls(browser: Any, file: Path) -> None:
    with opened(browser) as window:
        for turn, width in ((2, 1440), (9, 1440), (9, 400)):
            window.set_viewport_size({"width": width, "height": 900})
            window.goto("about:blank")
            window.goto(f"{file.as_uri()}#turn={turn}")
            window.wait_for_selector("html[data-state=ready]", state="attached")
            assert selected(window) == f"Turn {turn}"
            # A row may get into view one frame later.
            window.evaluate("() => new Promise(requestAnimationFrame)")
            assert is_in_view(window, '#events [aria-selected="true"]')
            assert is_in_view(window, first_call_after(window))


@pytest.mark.parametrize("key", ["PageDown", "Shift+ArrowLeft"])
def test_step_to_a_turn_shows_its_calls(another: Any, tmp_path: Path, key: str) -> None:
    trace = Trace()
    channels = [trace.open("Session", 5 + each) for each in range(4)]
    for turn in range(9):
        wants = dict.fromkeys(channels, (True, bool(turn % 2)))
        trace.turn(read=channels[:1], wants=wants)
        trace.calls("handle_read", channels[0])
    shown = show(another, tmp_path, trace)
    if key == "Shift+ArrowLeft":
        shown.keyboard.press("End")
    for _ in range(8):
        shown.keyboard.press(key)
        here = '#events [aria-selected="true"]'
        assert is_in_view(shown, f"{here}.turn")
        assert is_in_view(shown, first_call_after(shown))


def test_page_is_shown_in_the_chosen_language(shown: Any) -> None:
    go_to(shown, 3)
    shown.keyboard.press("ArrowRight")
    press(shown, "#language")
    assert shown.get_attribute("html", "lang") == "zh-CN"
    assert shown.inner_text("#events-title") == "事件"
    assert "扣住" in shown.inner_text(".fate")
    assert selected(shown) == "handle_read"
    press(shown, "#language")
    assert "held back" in shown.inner_text(".fate")


def test_theme_follows_the_system_until_one_is_chosen(another: Any, file: Path) -> None:
    shown = visit(another, file)
    papers = set()
    for theme in ("dark", "light"):
        shown.emulate_media(color_scheme=theme)
        shown.wait_for_selector(f"html[data-theme={theme}]", state="attached")
        papers.add(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2
    press(shown, "#theme")
    assert shown.get_attribute("html", "data-theme") == "dark"
    shown.emulate_media(color_scheme="dark")
    shown.emulate_media(color_scheme="light")
    assert shown.get_attribute("html", "data-theme") == "dark"


def test_steps_are_announced(shown: Any) -> None:
    go_to(shown, 3)
    assert announced(shown) == "Turn 3 7 calls"
    shown.keyboard.press("ArrowRight")
    assert announced(shown) == "Turn 3: ChatSession#2 handle_read 5 bytes hello"
    assert shown.get_attribute("#announcement", "aria-live") == "polite"


def test_controls_have_accessible_names(shown: Any) -> None:
    nameless = shown.evaluate(
        """() => {
            const kinds = "button, input, select, canvas, section, nav, [role]";
            const named = ["aria-label", "aria-labelledby"];
            const hasName = (each) => each.textContent.trim() || each.labels?.length
                || named.some((name) => each.getAttribute(name));
            return [...document.querySelectorAll(kinds)]
                .filter((each) => !hasName(each) && each.id !== "announcement")
                .map((each) => each.outerHTML);
        }"""
    )
    assert nameless == []
    here = shown.get_attribute("#events", "aria-activedescendant")
    assert shown.get_attribute(f"#{here}", "aria-selected") == "true"
    assert shown.get_attribute(f"#{here}", "aria-setsize") == "131"


def test_dialog_lists_the_keys(shown: Any) -> None:
    press(shown, "#help")
    assert shown.is_visible("#keys")
    keys = shown.locator("#keys kbd").all_inner_texts()
    assert {"+", "−", "0", "Z", "Ctrl", "Home", "End"} <= set(keys)
    shown.keyboard.press("Escape")
    assert not shown.is_visible("#keys")


def test_bytes_that_cannot_be_seen_are_shown_as_escapes(
    another: Any, tmp_path: Path
) -> None:
    trace = Trace()
    channel = trace.open("Session", 7)
    trace.turn(read=[channel])
    data = b"\xe4\xbd \xe4\xbd\xa0\x1b\x00\n" + "\u202e\ufeff".encode() + b"<b>"
    trace.calls("handle_read", channel, data=data, **{"in": len(data)})
    shown = show(another, tmp_path, trace)
    shown.keyboard.press("ArrowRight")
    text = shown.inner_text("#detail .data")
    assert text == r"\xe4\xbd 你\x1b\0\n\u202e\ufeff<b>"


@pytest.mark.parametrize(
    ("lang", "announced", "text", "called", "became", "nothing"),
    [
        (
            "en",
            "No turn yet",
            "the loop's first turn",
            "0 calls",
            "ChatServer#1 opened, listening",
            "No calls before the first turn",
        ),
        (
            "zh",
            "尚无轮次",
            "事件循环的第一轮开始之前",
            "0 次调用",
            "ChatServer#1 新打开，监听中",
            "第一轮之前没有调用",
        ),
    ],
)
def test_page_before_the_first_turn_mentions_no_turn(
    another: Any,
    file: Path,
    lang: str,
    announced: str,
    text: str,
    called: str,
    became: str,
    nothing: str,
) -> None:
    shown = visit(another, file)
    if lang == "zh":
        press(shown, "#language")
    name = {"en": "Before the first turn", "zh": "第一轮之前"}[lang]
    assert shown.inner_text("#where .turn") == selected(shown) == name
    phases = shown.locator(".phase")
    assert phases.count() == 3
    for place, what in enumerate((announced, called, became)):
        assert what in phases.nth(place).inner_text()
    assert text in phases.nth(0).inner_text()
    assert text in shown.inner_text("#detail .hint")
    assert shown.get_attribute("#flame", "aria-label") == nothing
    everything = "".join(
        shown.inner_text(each) for each in ("#turn-box", "#channels-box", "#detail-box")
    ) + str(shown.get_attribute("#phases", "aria-label"))
    for word in ("this turn", "phases", "Waited", "Asked", "pass of the loop"):
        assert word not in everything
    for word in ("本轮", "这一轮", "阶段", "等待", "询问了", "逐个通道"):
        assert word not in everything
    # There was no wait after which something could have happened.
    assert shown.inner_text("#events .event >> nth=1").endswith(" s")
    press(shown, "#turn-on")
    assert shown.locator(".phase").count() == 5


def test_thread_without_a_loop_has_no_first_turn(another: Any, tmp_path: Path) -> None:
    trace = Trace()
    trace.turn()
    trace.thread = 2
    trace.calls("push", data=b"hi", given=True)
    shown = show(another, tmp_path, trace)
    shown.keyboard.press("End")
    shown.keyboard.press("PageUp")
    assert selected(shown) == "Outside any turn"
    assert shown.inner_text("#where .turn") == "Outside any turn"
    assert "No turn" in shown.inner_text("#phases")
    assert "push" in shown.inner_text(".phase.called")
    everything = shown.inner_text("main")
    assert "first turn" not in everything
    assert "No turn yet" not in everything


@pytest.mark.parametrize(
    ("ends", "en", "zh"),
    [
        ("closed", "the trace is complete", "跟踪记录完整"),
        (
            "full",
            "the trace ends at its limit of 64 MiB: the program continued",
            "跟踪记录达到大小上限 64 MiB，在此截止：程序仍在继续运行",
        ),
        (
            "",
            "the trace has no end: the program was still running, or was killed",
            "跟踪记录没有结尾：程序当时仍在运行，或被强行终止",
        ),
        (
            "cut",
            "the trace is cut off or damaged after line 70",
            "跟踪记录没有结尾：第 70 行之后被截断或已损坏",
        ),
        ("eaten", "the trace ended: eaten", "跟踪记录已结束：eaten"),
    ],
)
def test_subtitle_shows_how_the_trace_ends(
    another: Any, tmp_path: Path, ends: str, en: str, zh: str
) -> None:
    trace = unfinished() if ends == "cut" else Trace()
    if ends != "cut":
        trace.turn()
    if ends not in ("", "cut"):
        trace.end(ends)
    shown = show(another, tmp_path, trace)
    assert shown.inner_text("#about").endswith(f" · {en}")
    assert shown.locator("#about .lacks").count() == (ends != "closed")
    press(shown, "#language")
    assert shown.inner_text("#about").endswith(f" · {zh}")


def test_subtitle_marks_a_part(another: Any, tmp_path: Path) -> None:
    trace = Trace()
    trace.turn()
    trace.end("closed")
    shown = show(another, tmp_path, trace, part=True)
    lacks = shown.locator("#about .lacks")
    assert lacks.inner_text() == "only the selected part of the trace"
    press(shown, "#language")
    assert lacks.inner_text() == "只有所选的内容：跟踪记录的一部分"


def test_page_of_a_part_invents_no_earlier_state(another: Any, tmp_path: Path) -> None:
    trace = Trace()
    old = trace.open("Session", 7)
    trace.turn(read=[old])
    trace.calls("handle_read", old, **{"in": 3})
    turns, reader = trace.read()
    path = tmp_path / "part.html"
    part = [turn for turn in turns if turn.number]
    path.write_text(page(part, reader, part=True), encoding="utf-8")
    shown = visit(another, path)
    row = shown.locator("[role=row]", has=shown.locator(f"[data-channel='{old}']"))
    assert row.locator(".status").inner_text() == "unknown"
    assert row.locator(".queue").inner_text().strip() == "unknown"
    assert "opened" not in shown.inner_text(".phase.became")


def test_script_end_in_the_data_is_data(another: Any, tmp_path: Path) -> None:
    trace = Trace(program="</title><script>document.title='evil'</script>")
    trace.turn()
    evil = b"</script><script>document.title='evil'</script>"
    trace.calls("push", data=evil, given=True)
    shown = show(another, tmp_path, trace)
    shown.keyboard.press("ArrowRight")
    assert shown.inner_text("#detail .data") == evil.decode()
    assert shown.title().startswith("</title>")


def test_bytes_that_were_not_kept_are_not_made_up(another: Any, tmp_path: Path) -> None:
    trace = Trace(payload=3)
    room = Room(trace)
    room.send(room.enter(), b"hello")
    shown = show(another, tmp_path, trace)
    go_to(shown, 2)
    shown.keyboard.press("ArrowRight")
    assert shown.locator(".fate .cells").all_inner_texts() == ["4 bytes", "1 byte"]
    assert shown.inner_text(".row.about .held .cells") == "1 byte"
    assert "and 2 bytes that were not recorded" in shown.inner_text(".data")


def unfinished() -> Trace:
    trace = hello()
    trace.lines = [*trace.lines[:70], trace.lines[70][:9]]
    return trace


def threads() -> Trace:
    trace = Trace(payload=None)
    for trace.thread in (1, 2):
        trace.turn(why="wake-up")
        trace.calls("soon", data=b"left out", given=True)
    return trace


def numbers() -> Trace:
    """Channels and depths beyond 16, 31, 32 and 53 bits."""
    trace = hello()
    for bits in (16, 31, 32, 53, 62):
        trace.event("open", ch=1 << bits, fd=9, **{"class": "Session"})
        trace.event("interest", ch=1 << bits, r=True, w=False, d=1 << bits)
    return trace


@pytest.mark.parametrize("trace", [Trace, unfinished, threads, numbers])
def test_page_survives_unfinished_and_threaded_traces(
    another: Any, tmp_path: Path, trace: Callable[[], Trace]
) -> None:
    shown = show(another, tmp_path, trace())
    for key in ("End", "ArrowLeft", "PageUp", "Home", "ArrowRight", "ArrowDown"):
        shown.keyboard.press(key)
    press(shown, "#language")
    press(shown, "#theme")


def test_control_of_an_empty_page_does_nothing(another: Any, tmp_path: Path) -> None:
    shown = show(another, tmp_path, Trace())
    # A fault is on the console, which opened() looks at.
    shown.evaluate(
        """() => {
            for (const each of document.querySelectorAll("button, [type=checkbox]"))
                if (each.id !== "help") each.click();
            for (const each of document.querySelectorAll("input, select"))
                for (const name of ["input", "change"])
                    each.dispatchEvent(new Event(name));
        }"""
    )
    assert shown.is_visible("#empty")


def test_number_of_elements_is_bounded_for_many_events(
    another: Any, tmp_path: Path
) -> None:
    shown = show(another, tmp_path, large(3000, clients=100))
    shown.uncheck("#touched")
    shown.keyboard.press("End")
    shown.evaluate("document.querySelector('#events').scrollTop = 9100")
    shown.wait_for_selector("#event-350")
    assert shown.locator("#events .event").count() < 100
    assert shown.locator("#channels .rows .row").count() < 40
    # Out of view, and still there for a screen reader.
    assert selected(shown) == "the end: the file reached its limit"


def test_page_is_never_wider_than_the_window(shown: Any) -> None:
    for width in (320, 800, 1440):
        shown.set_viewport_size({"width": width, "height": 900})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        # Nor does a line of buttons leave its box.
        assert shown.evaluate(
            "document.getElementById('whole').scrollWidth"
            " <= document.getElementById('whole').clientWidth"
        )


def would_block() -> Trace:
    """Return a trace of sends and reads that would block, and of a real error."""
    trace = Trace()
    error = "BlockingIOError: [Errno 11] Resource temporarily unavailable"
    channel = trace.open("Session", 7)
    trace.turn(write=[channel], channels=1)
    with trace.call("turn ends"):
        trace.calls("send", channel, error=error)
    trace.turn(read=[channel], channels=1)
    trace.calls("recv", channel, error="SSLWantReadError: wait")
    trace.turn(read=[channel], channels=1)
    trace.calls("collect_incoming_data", channel, error=error)
    trace.calls("handle_error", channel, error=error)
    trace.end()
    return trace


def test_send_that_would_block_is_not_an_error(another: Any, tmp_path: Path) -> None:
    shown = show(another, tmp_path, would_block())
    for turn, failed in ((1, 0), (2, 0), (3, 2)):
        go_to(shown, turn)
        bad = shown.locator(".called .chip.bad, .called .error")
        assert bad.count() == (failed and failed + 1), turn
    go_to(shown, 1)
    press(shown, "#call-on")
    press(shown, "#call-on")
    assert "not a failure" in shown.inner_text("#detail .later")
    assert "BlockingIOError" in shown.inner_text("#detail .later")
    assert not shown.locator("#detail .error").count()
    shown.evaluate(FILTER, ["what", "errors", "change"])
    called = shown.locator("#events .event.failed .name").all_inner_texts()
    assert called == ["collect_incoming_data", "handle_error"]
    assert shown.locator("#events .event.call").count() == 2


FILTER = """([id, value, kind]) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(kind));
}"""

# Selects each event; returns the texts of it that Find does not lead to.
NOT_FOUND = """() => {
    const find = (text) => {
        const field = document.getElementById("text");
        field.value = text;
        field.dispatchEvent(new Event("input"));
    };
    const selected = () => document.querySelector('#events [aria-selected="true"]');
    const press = (id) => document.getElementById(id).click();
    const lost = [];
    find("");
    press("first");
    for (let row = 0; selected().id === `event-${row}`; row++) {
        const shown = [...selected().querySelectorAll(":scope > span")]
            .concat(...document.querySelectorAll("#detail dd, #detail .place"))
            .concat(...document.querySelectorAll("#detail .error p, .fate .label"
                + ", #detail .fate button"))
            .map((each) => each.innerText.replace("…", "").trim());
        const id = selected().id;
        for (const text of shown.filter(Boolean)) {
            find(text.toUpperCase());
            if (!selected() || selected().id !== id) lost.push([id, text]);
        }
        find("");
        document.getElementById(id)?.click();
        press("event-on");
    }
    return lost;
}"""


def test_search_finds_all_text_of_an_event(another: Any, tmp_path: Path) -> None:
    room = Room()
    anna = room.enter()
    room.send(anna, b"hello")
    room.trace.event("lost", n=12)
    room.trace.event("timer", id=2, **{"in": 30.0})
    room.fail(anna, b"!", "UnicodeDecodeError: invalid start byte")
    room.trace.end()
    shown = show(another, tmp_path, room.trace)
    assert shown.evaluate(NOT_FOUND) == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "held back: 1 byte",
            "backlog: 33 bytes",
            "listening",
            "descriptor 6",
            "fd 6",
        ),
        *("interest: read, write", "timer 2: in 30 s", "turn 3", "a timer is due"),
        *("127.0.0.1:4", "terminator: ", "0.0.0.0:19528", "selectors", "The End"),
        *("collected", "Argument", "room.py:40", "room.py:44", "no timeout"),
        *(r"\r\n", r"\x1b[1mno\0", r"\xbd", "+1", "ChatServer#1", "1 ready"),
        *("def broadcasting", "is queued for the peer", "self.handshakes is not None"),
    ],
)
def test_search_finds_every_kind_of_shown_text(shown: Any, text: str) -> None:
    shown.fill("#text", text)
    is_there = text not in ("no timeout", "def broadcasting")
    assert shown.is_visible("#nothing") != is_there


def test_search_uses_the_language_of_the_page(another: Any, tmp_path: Path) -> None:
    shown = show(another, tmp_path, hello())
    shown.fill("#text", "held back")
    assert not shown.is_visible("#nothing")
    press(shown, "#language")
    assert shown.is_visible("#nothing")
    shown.fill("#text", "扣住")
    assert not shown.is_visible("#nothing")


def test_search_prefers_events_to_explanations(shown: Any) -> None:
    shown.fill("#text", "broadcasting")
    in_source = shown.locator("#events .event.call").count()
    assert in_source
    shown.fill("#text", "handle_accepted")
    texts = shown.locator("#events .event.call").all_inner_texts()
    assert texts
    assert all("handle_accepted" in each for each in texts)


EVIL = "a\u202eb\u2028c\x1b[2J\u2066</script>"
SEEN = r"a\u202eb\u2028c\x1b[2J\u2066</script>"


def test_text_of_a_trace_never_reorders_the_page(another: Any, tmp_path: Path) -> None:
    trace = Trace(program=EVIL, python=EVIL)
    code = trace.code(f"def {EVIL}(self):\n\t'{EVIL}'", EVIL, EVIL)
    channel = trace.open(EVIL, 7, EVIL)
    trace.state(channel, status=EVIL, peer=EVIL, local=EVIL, terminator=EVIL)
    trace.turn(read=[channel], by=EVIL, why=EVIL)
    trace.calls(EVIL, channel, f=code, error=EVIL, where=EVIL)
    trace.end(EVIL)
    shown = show(another, tmp_path, trace)
    for _ in range(8):
        text = shown.evaluate("document.documentElement.innerText")
        assert not set(text) & set("\u202e\u2028\x1b\u2066")
        shown.keyboard.press("ArrowDown")
    assert SEEN in shown.inner_text("body")
    assert "\u202e" not in shown.title()


@pytest.mark.parametrize("seed", range(6))
def test_page_of_a_damaged_trace_has_no_script_error(
    another: Any, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    reader = Reader()
    try:
        turns = list(read_lines(damaged(random).splitlines(True), reader))
    except TraceError:
        return
    path = tmp_path / "trace.html"
    path.write_text(page(turns, reader), encoding="utf-8")
    shown = visit(another, path)
    for key in ("End", "ArrowLeft", "PageUp", "Home", "ArrowRight", "ArrowDown"):
        shown.keyboard.press(key)
    shown.fill("#text", "held")
