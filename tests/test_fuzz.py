"""A small fuzz run, and proof that it finds faults; the real one: ``-m tests.fuzz``."""

from __future__ import annotations

import ast

import pytest

from legacy_chat import ChatSession, session
from tests.fuzz import differs, main, make


def test_any_input_is_delivered_as_the_model_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--inputs", "2000"])
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert "2,000 inputs" in printed.out
    assert "findings: 0" in printed.out
    assert printed.err == ""


def found(capsys: pytest.CaptureFixture[str]) -> tuple[object, ...]:
    """Return the finding of a fuzz run on a room with a fault."""
    assert main(["--inputs", "2000"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("findings: 1")
    literal = ast.literal_eval(lines[2])
    assert isinstance(literal, tuple)
    assert differs(*literal)
    return literal


def test_a_character_that_is_not_put_together_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "_unfinished", lambda data: 0)
    _, crowd, _, reads = found(capsys)
    assert crowd == 2
    # The fault shows only if the data is cut.
    assert isinstance(reads, tuple)
    assert len(reads) <= 2


def test_a_handler_that_raises_is_found_and_its_input_shortened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect = ChatSession.collect_incoming_data

    def fails(self: ChatSession, data: bytes) -> None:
        if b"\xff" in data:
            raise ValueError("a byte that is none")
        collect(self, data)

    monkeypatch.setattr(ChatSession, "collect_incoming_data", fails)
    _, crowd, _, reads = found(capsys)
    assert (crowd, [data for _, data in reads]) == (1, [b"\xff"])  # type: ignore[attr-defined]


def test_an_input_follows_from_its_seed_and_number() -> None:
    assert make(3, 14) == make(3, 14)
    assert make(3, 14) != make(4, 14) != make(4, 15)


def test_invalid_number_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--inputs", "-1"])
    assert "'-1' is no number from 0 on" in capsys.readouterr().err
