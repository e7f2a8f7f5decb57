"""Our room behaves as the tutorial's: K1 to K6, quirks included."""

from __future__ import annotations

import asyncore
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from legacy_chat import ChatServer, ChatSession, client
from tests.legacy_chat.rooms import Room, original, original_room, our_room

OpenRoom = Callable[[str], AbstractContextManager[Room]]


@pytest.fixture(params=[original_room, our_room], ids=["original", "ours"])
def room(request: pytest.FixtureRequest, any_loop: str) -> Iterator[Room]:
    """The original's room, and ours on every loop and on asyncore's own."""
    with request.param(any_loop) as room:
        yield room


def test_k1_the_echo_is_unchanged_and_the_others_get_the_name(room: Room) -> None:
    a, b, c = room.join_many(3)
    a.send("hi, 大家 😀!")
    said = f"用户{a.name} 说:hi, 大家 😀!".encode()
    room.until(lambda: b.got == c.got == said)
    assert a.got == "hi, 大家 😀!".encode()


def test_k2_a_tail_that_could_begin_the_terminator_is_held_back(room: Room) -> None:
    a, b = room.join_many(2)
    a.send("hello")
    room.until(lambda: a.got)
    assert a.got == b"hell"
    a.send(" world")
    room.until(lambda: len(a.got) == 11)
    assert a.got == b"hello world"
    room.until(lambda: b.got == f"用户{a.name} 说:hell用户{a.name} 说:o world".encode())


def test_k3_a_word_that_contains_out_ends_the_session(room: Room) -> None:
    a, b = room.join_many(2)
    a.send("about")
    room.until(lambda: a.ended)
    assert a.got == b"ab"
    room.until(lambda: b.got.endswith("退出聊天".encode()))
    assert b.got.startswith(f"用户{a.name} 说:ab".encode())


def test_k4_data_after_out_goes_to_the_others_without_echo(room: Room) -> None:
    a, b = room.join_many(2)
    a.send("byeoutmore!")
    room.until(lambda: a.ended)
    assert a.got == b"bye"
    room.until(lambda: b.got.endswith(b"more!"))
    name = f"用户{a.name}"
    assert b.got.decode() == f"{name} 说:bye{name} 说:{name}退出聊天{name} 说:more!"


def test_k5_the_farewell_goes_through_the_same_formatting(room: Room) -> None:
    a, b = room.join_many(2)
    a.send("out")
    room.until(lambda: b.got)
    assert b.got.decode() == f"用户{a.name} 说:用户{a.name}退出聊天"


def test_k5_dropped_connection_sends_no_farewell(room: Room) -> None:
    a, b, c = room.join_many(3)
    a.close()
    room.until(lambda: len(asyncore.socket_map) == 3)
    room.fence(c, b)
    assert b.got.decode() == f"用户{c.name} 说:<fence>"


def test_k6_two_sends_that_one_read_returns_are_one_message(room: Room) -> None:
    a, b = room.join_many(2)
    a.send("one ")
    a.send("two!")
    room.until(lambda: b.got.endswith(b"two!"))
    assert b.got.decode() == f"用户{a.name} 说:one two!"


def test_printed_lines_are_the_tutorials(
    room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = room.join_many(2)
    a.send("out")
    room.until(lambda: a.ended)
    room.server.handle_close()
    printed = capsys.readouterr().out.splitlines()
    enter = "client 127.0.0.1 enter"
    assert printed[-4:] == [enter, enter, "accept close", "服务器已经关闭"]


def test_server_announces_its_start(capsys: pytest.CaptureFixture[str]) -> None:
    with our_room("select"):
        assert capsys.readouterr().out == "***server start***\n"


def test_every_name_of_the_original_is_still_there() -> None:
    theirs = original()
    pairs = ((theirs.ChatServer, ChatServer), (theirs.ChatSession, ChatSession))
    for their_class, our_class in pairs:
        assert issubclass(our_class, their_class.__mro__[1])
        for name in vars(their_class):
            assert hasattr(our_class, name), name


def test_parameters_equal_the_originals_in_order_and_default() -> None:
    theirs = original()
    for their_class, our_class in (
        (theirs.ChatServer, ChatServer),
        (theirs.ChatSession, ChatSession),
    ):
        wanted = list(inspect.signature(their_class).parameters.values())
        ours = list(inspect.signature(our_class).parameters.values())[: len(wanted)]
        assert [each.name for each in ours] == [each.name for each in wanted]
        assert [each.default for each in ours] == [each.default for each in wanted]


def test_clients_names_are_still_there() -> None:
    for name in ("input_line", "read_line", "loop", "ip", "port"):
        assert hasattr(client, name)
