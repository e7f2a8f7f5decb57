"""A trace changes nothing for the program, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.trace.recording import Line, recorded


def test_what_is_mixed_in_and_serves_others_is_no_channel(tmp_path: Path) -> None:
    class Parser:
        __slots__ = ("got",)

        def push(self, data: Any) -> int:
            return len(data)

        def set_terminator(self, terminator: Any) -> str:
            return "set"

        def send(self, data: Any) -> int:
            return len(data)

        def add_channel(self, map: Any) -> str:
            return "added"

    class Mixed(Parser, Line):
        __slots__ = ()

    with recorded(tmp_path) as trace:
        line = Mixed()
        parser = Parser()
        assert parser.push(b"abc") == parser.send(b"abc") == 3
        assert parser.set_terminator(b"x") == "set"
        assert parser.add_channel({}) == "added"
        assert line.push(b"abc") == 3
        line._map.clear()
        line.socket.close()
    assert [call.channel and call.channel.number for call in trace.calls()] == [1]
