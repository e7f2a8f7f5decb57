"""A small fuzz run, and proof that it finds faults.

``python -m tests.fuzz`` is the long run.
"""

from __future__ import annotations

import ast

import pytest

from legacy_chat import ChatSession, session
from tests.fuzz import differs, main, make


def test_room_delivers_every_input_as_the_model_does(
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


def test_fuzz_finds_a_character_that_is_not_joined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "_partial_size", lambda data: 0)
    _, sessions, _, reads = found(capsys)
    assert sessions == 2
    # The fault shows only if the data is cut.
    assert isinstance(reads, tuple)
    assert len(reads) <= 2


def test_fuzz_finds_a_failing_handler_and_minimises_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect = ChatSession.collect_incoming_data

    def fails(self: ChatSession, data: bytes) -> None:
        if b"\xff" in data:
            raise ValueError("a byte without a meaning")
        collect(self, data)

    monkeypatch.setattr(ChatSession, "collect_incoming_data", fails)
    _, sessions, _, reads = found(capsys)
    assert (sessions, [data for _, data in reads]) == (1, [b"\xff"])  # type: ignore[attr-defined]


def test_input_depends_on_seed_and_number_alone() -> None:
    assert make(3, 14) == make(3, 14)
    assert make(3, 14) != make(4, 14) != make(4, 15)


def test_invalid_number_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--inputs", "-1"])
    assert "number must be an integer >= 0, got '-1'" in capsys.readouterr().err
