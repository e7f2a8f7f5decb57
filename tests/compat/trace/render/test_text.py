"""A trace in a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.trace.filter import TurnFilter
from compat.trace.reader import Reader, read_lines
from compat.trace.render.formatting import clip, duration, quoted, readable, width
from compat.trace.render.messages import LANGUAGES, MESSAGES, quoted_with_size
from compat.trace.render.text import lines
from tests.compat.trace.strategies import files
from tests.compat.trace.synthetic import Room, Trace, hello


def shown(trace: Trace, **options: bool | int | str) -> list[str]:
    turns, reader = trace.read()
    return [
        line
        for turn in turns
        for line in lines(turn, reader, **options)  # type: ignore[arg-type]
    ]


def hell() -> Trace:
    """Return a trace in which hello arrives as hell."""
    trace = Trace()
    anna = trace.open("ChatSession", 6, "room")
    peer = "127.0.0.1:40014"
    trace.state(anna, status="connected", peer=peer, terminator=b"out")
    trace.turn(read=[anna], wants={anna: (True, False)}, channels=2)
    code = trace.code("def collect_incoming_data(self, data):", "ChatSession", line=40)
    with trace.call("handle_read", anna, data=b"hello", **{"in": 5}):
        payload: dict[str, Any] = {"data": b"hell", "given": True}
        with trace.call("collect_incoming_data", anna, f=code, **payload):
            trace.calls("push", anna, out=4, **payload)
            payload["data"] = f"用户{peer} 说:hell".encode()
            trace.calls("push", to=1, but=anna, **payload)
    trace.state(anna, held=1)
    with trace.call("turn ends"):
        trace.calls("send", anna, data=b"more", out=4)
    trace.state(anna, backlog=4096, queued=2)
    return trace


def test_text_shows_why_hello_arrives_as_hell() -> None:
    assert shown(hell(), columns=76) == [
        "before the first turn",
        "  ChatSession#1 opened: descriptor 6, room.ChatSession",
        '  ChatSession#1 is connected to 127.0.0.1:40014; terminator "out"',
        "turn 1  0.000008 s  selectors: interest of 2 channels in 8 µs, timeout 30 s",
        "  interest read: ChatSession#1",
        "  waited 250 µs: ready to read: ChatSession#1",
        '  ChatSession#1.handle_read()  read 5: "hello"                         24 µs',
        '    collect_incoming_data("hell")                        room.py:40    18 µs',
        '      push("hell")  sent 4                                              6 µs',
        '      BroadcastGroup.push("用户127.0.0.1:…", 30 bytes) to 1 other       6 µs',
        '  ChatSession#1 holds back "o": it may begin the terminator "out"',
        "  flush                                                                12 µs",
        '    ChatSession#1.send()  sent 4: "more"                                6 µs',
        "  ChatSession#1 backlog 4,096 bytes, 2 queued",
    ]


def test_chinese_text_shows_why_hello_arrives_as_hell() -> None:
    assert shown(hell(), columns=76, lang="zh") == [
        "第一轮之前",
        "  ChatSession#1 已打开：描述符 6，room.ChatSession",
        '  ChatSession#1 已连接，对端 127.0.0.1:40014；终止符 "out"',
        "第 1 轮  0.000008 s  selectors 检查了 2 个通道（8 µs），最多等 30 s",
        "  关注可读：ChatSession#1",
        "  等待了 250 µs：有通道就绪；可读：ChatSession#1",
        '  ChatSession#1.handle_read()  读入 5："hello"                         24 µs',
        '    collect_incoming_data("hell")                        room.py:40    18 µs',
        '      push("hell")  发出 4                                              6 µs',
        '      BroadcastGroup.push("用户127.0.0.…"，30 字节) 发给另外 1 个       6 µs',
        '  ChatSession#1 扣住 "o"：可能是终止符 "out" 的开头',
        "  轮末发送                                                             12 µs",
        '    ChatSession#1.send()  发出 4："more"                                6 µs',
        "  ChatSession#1 积压 4,096 字节，队列中 2 项",
    ]


def test_phrases_have_the_same_placeholders_in_each_language() -> None:
    for key, (english, chinese) in MESSAGES.items():
        assert sorted(re.findall("{.*?}", english)) == sorted(
            re.findall("{.*?}", chinese)
        ), key
        assert not re.search("[\u4e00-\u9fff]", english)
        assert not re.search("[a-rt-z]", re.sub("{.*?}", "", chinese)), key


def test_unknown_language_is_an_error() -> None:
    with pytest.raises(ValueError, match="lang must be one of en, zh, got 'fr'"):
        shown(hello(), lang="fr")


def test_held_back_bytes_are_shown_with_their_terminator() -> None:
    room = Room()
    anna = room.enter()
    room.send(anna, b"hello")
    room.trace.state(anna, terminator=12)
    text = "\n".join(shown(room.trace))
    assert 'holds back "o": it may begin the terminator "out"' in text
    assert "terminator after 12 bytes" in text


def test_bytes_left_by_an_error_are_not_a_terminator() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    trace.state(anna, terminator=b"out")
    trace.calls("handle_read", anna, data=b"\xe5", error="ValueError: no", **{"in": 1})
    trace.state(anna, held=1)
    assert shown(trace)[-1] == r'  Session#1 holds back "\xe5"'


def test_payloads_that_were_left_out_are_sizes() -> None:
    room = Room(Trace(payload=None))
    room.send(room.enter(), b"hello")
    text = shown(room.trace)
    assert any("handle_read()  read 5  " in line for line in text)
    assert any("push(4 bytes)" in line for line in text)
    assert not any("hell" in line for line in text)


def test_exception_is_below_the_calls_before_it() -> None:
    trace = Trace()
    with trace.call("handle_read", error="ValueError: no", where="/a/room.py:44"):
        trace.calls("push")
    assert [line.split()[0] for line in shown(trace)[1:]] == [
        "handle_read()",
        "push()",
        "raises",
    ]
    assert shown(trace)[-1].endswith("room.py:44")


def test_unfinished_wait_is_shown_as_waiting() -> None:
    trace = Trace()
    trace.begin_turn()
    assert shown(trace)[-1] == "  still waiting"


def test_wait_without_a_limit_is_shown_as_no_timeout() -> None:
    trace = Trace()
    trace.begin_turn(timeout=None)
    assert shown(trace)[-2].endswith("no timeout")


def test_line_names_some_of_many_ready_channels() -> None:
    trace = Trace()
    for fd in range(40):
        trace.open("Session", fd)
    trace.turn(read=range(1, 41))
    (line,) = (line for line in shown(trace) if "ready" in line)
    assert re.search(r"to read: Session#1, Session#2, .* and \d+ more$", line)
    named, more = re.findall(r"Session#\d+", line), line.split()[-2]
    assert len(named) + int(more) == 40
    assert width(line) <= 88


def test_deep_calls_stay_within_the_line() -> None:
    trace = Trace()
    for d in range(60, -1, -1):
        trace.lines.append(f'{{"e":"call","t":{d},"d":{d},"do":"push"}}')
    text = shown(trace, columns=60)
    assert "depth 40: push()" in text[41]
    assert max(map(width, text)) <= 60


def test_narrow_lines_keep_the_name_and_drop_the_place() -> None:
    trace = Trace()
    anna = trace.open("ChatSession", 6)
    code = trace.code("def collect_incoming_data(self, data):", "ChatSession", line=40)
    error = {"error": "ValueError: no", "where": "/a/server_of_a_room.py:44"}
    with trace.call("handle_read", anna):
        payload: dict[str, Any] = {"f": code, "data": b"hell", "given": True}
        trace.calls("collect_incoming_data", anna, **payload, **error)
    assert shown(trace, columns=48)[2:] == [
        "  ChatSession#1.handle_read()              12 µs",
        '    collect_incoming_data("hell")           6 µs',
        "      raises ValueError: no",
    ]
    assert "room.py:40" in shown(trace, columns=60)[3]


def test_text_that_is_clipped_twice_has_one_ellipsis() -> None:
    assert clip("hello…, 6 bytes", 7) == "hello…"
    assert clip("hello, world", 7) == "hello,…"


def test_colours_are_the_only_escapes_and_change_nothing_else() -> None:
    plain, coloured = shown(hello()), shown(hello(), color=True)
    assert coloured != plain
    stripped = [re.sub("\x1b\\[[0-9;]+m", "", line).rstrip() for line in coloured]
    assert stripped == plain


@given(files(), st.integers(0, 120), st.sampled_from(LANGUAGES))
def test_text_of_any_trace_is_printable_and_narrow(
    file: bytes, columns: int, lang: str
) -> None:
    reader = Reader()
    for turn in read_lines(io.BytesIO(file), reader):
        for line in lines(turn, reader, columns=columns, lang=lang):
            assert line.isprintable()
            assert line.encode()
            assert width(line) <= max(columns, 40)


@given(files(), st.integers(0, 2), st.frozensets(st.integers(1, 4), max_size=2))
def test_filter_keeps_the_line_of_each_call(
    file: bytes, first: int, channels: frozenset[int]
) -> None:
    choice = TurnFilter(first, None, channels, calls_only=True)
    turns = list(read_lines(io.BytesIO(file)))
    before = [call.line for turn in turns for call in turn.calls()]
    for turn in choice.apply(turns):
        assert turn.number >= first
        for call in turn.calls():
            assert call.line in before
            assert not channels or any(
                each.channel is not None and each.channel.number in channels
                for each in call.calls()
            )


def test_channel_filter_keeps_the_enclosing_calls() -> None:
    turns, reader = hello().read()
    (turn,) = TurnFilter(3, 3, frozenset({3})).apply(turns)
    text = "\n".join(lines(turn, reader))
    assert "flush" in text
    assert "ChatSession#3.send()" in text
    assert "ChatSession#2" not in text


@given(st.binary(max_size=80), st.integers(0, 90), st.integers(0, 99))
def test_bytes_are_quoted_within_their_columns(
    data: bytes, columns: int, more: int
) -> None:
    for text in (quoted(data, len(data) + more, columns),):
        assert text.isprintable()
        assert text[0] == text[-1] == '"'
        assert width(text) <= max(columns, 10)
        assert not more or text.endswith('…"')
    assert width(quoted_with_size(data, len(data) + more, columns)) <= max(columns, 21)


@given(st.text(max_size=30), st.integers(0, 30))
def test_text_is_clipped_to_its_columns(text: str, columns: int) -> None:
    text = readable(text)
    assert width(clip(text, columns)) <= columns
    assert clip(text, width(text)) == text


def test_durations_have_three_figures() -> None:
    figures = [0, 61, 999, 1_000, 12_148, 400_000, 1_204_318, 61_000_000]
    assert [duration(us) for us in figures] == [
        *("0 µs", "61 µs", "999 µs", "1.00 ms", "12.1 ms", "400 ms"),
        *("1.20 s", "61.0 s"),
    ]


def test_send_that_would_block_is_not_coloured_as_an_error() -> None:
    trace = Trace()
    anna = trace.open("Session", 6)
    error = "BlockingIOError: [Errno 11] Resource temporarily unavailable"
    trace.calls("send", anna, error=error)
    trace.calls("collect_incoming_data", anna, error=error)
    (turn,), reader = trace.read()
    text = [line for line in lines(turn, reader, color=True) if "raises" in line]
    assert [line.lstrip().startswith("\x1b[1;31m") for line in text] == [False, True]
