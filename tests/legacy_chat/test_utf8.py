"""The others read the same text for any segmentation: R2 and R3, for any input.

There is no socket: the session's ``push`` keeps the data.
"""

from __future__ import annotations

import codecs
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from legacy_chat import ChatSession
from legacy_chat.session import _partial_size


class FakeSession(ChatSession):
    """A session without a socket."""

    def __init__(self, name: str, clients: list[Any]) -> None:
        self.user = name
        self.clients = clients
        self.set_terminator(b"out")
        self.ac_in_buffer = b""
        self.incoming = []
        self.chunks: list[bytes] = []
        self.pushed: list[bytes] = []
        clients.append(self)

    def recv(self, buffer_size: int) -> bytes:
        return self.chunks.pop(0)

    def push(self, data: Any) -> None:
        self.pushed.append(bytes(data))

    def close_when_done(self) -> None:
        """Do nothing: there is no queue."""

    def read(self, *chunks: bytes) -> None:
        self.chunks += chunks
        while self.chunks:
            self.handle_read()


def room() -> tuple[FakeSession, FakeSession]:
    clients: list[Any] = []
    return FakeSession("用户a", clients), FakeSession("用户b", clients)


def received(listener: FakeSession) -> str:
    """Return the text that the listener received, without the senders' names."""
    return b"".join(listener.pushed).decode().replace("用户a 说:", "")


cuts = st.lists(st.integers(min_value=1, max_value=9), max_size=30)


def cut(data: bytes, lengths: list[int]) -> list[bytes]:
    chunks = []
    for length in lengths:
        chunks.append(data[:length])
        data = data[length:]
    return [chunk for chunk in (*chunks, data) if chunk]


@given(st.text().filter(lambda text: "o" not in text), cuts)
@example("你好😀", [1, 1, 1, 1, 1, 1, 1, 1, 1])
def test_any_text_in_any_cuts_reaches_the_others_whole(
    text: str, lengths: list[int]
) -> None:
    a, b = room()
    a.read(*cut(text.encode(), lengths))
    assert received(b) == text
    assert b"".join(a.pushed) == text.encode()


@given(st.binary().filter(lambda data: b"o" not in data), cuts)
@example(b"\xe4\xbd\xff\xf0\x9f\x98", [1, 2, 1])
def test_any_bytes_in_any_cuts_are_decoded_as_one_stream(
    data: bytes, lengths: list[int]
) -> None:
    a, b = room()
    a.read(*cut(data, lengths), b"out")
    expected = codecs.getincrementaldecoder("utf8")("replace").decode(data, final=True)
    assert received(b) == expected + "用户a退出聊天"
    assert b"".join(a.pushed) == data


@given(st.text(alphabet="outhe 你"), cuts)
def test_text_before_out_is_delivered_for_any_segmentation(
    text: str, lengths: list[int]
) -> None:
    a, b = room()
    before, out, after = (text + "out").partition("out")
    a.read(*cut((before + out).encode(), lengths))
    assert b"".join(a.pushed) == before.encode()
    assert received(b) == before + "用户a退出聊天"
    assert after is not None


@given(st.binary(max_size=12))
def test_partial_size_equals_the_decoders_buffer(data: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf8")("replace")
    decoder.decode(data)
    assert _partial_size(data) == len(decoder.getstate()[0])
