"""A difference is shown where it is."""

from __future__ import annotations

from legacy_chat.baseline import Action, Received, Step, Transcript, TranscriptHeader
from legacy_chat.baseline.model.compare import Mismatch, compare, differences
from legacy_chat.baseline.model.transcript import Answers
from legacy_chat.baseline.report.results import mismatch_lines

ACTION = Action("a", "send", b"hello")


def lines(recorded: Answers, now: Answers) -> list[str]:
    found = compare(3, ACTION, recorded, now)
    assert found is not None
    return list(mismatch_lines(found))


def test_equal_events_have_no_difference() -> None:
    assert compare(1, ACTION, {"a": Received(b"x")}, {"a": Received(b"x")}) is None


def test_the_first_byte_that_differs_is_pointed_at() -> None:
    assert lines({"b": Received(b"hell")}, {"b": Received(b"hello")}) == [
        'step 3: a sends "hello"',
        "  b, byte 4:",
        '    recorded  "hell"',
        '    now       "hello"',
        "                   ^",
    ]


def test_wide_characters_move_the_pointer() -> None:
    shown = lines({"b": Received("用户x".encode())}, {"b": Received("用户y".encode())})
    assert shown[1:] == [
        "  b, byte 6:",
        '    recorded  "用户x"',
        '    now       "用户y"',
        "                   ^",
    ]


def test_difference_starts_at_a_character_boundary() -> None:
    shown = lines({"b": Received("你".encode())}, {"b": Received("佡".encode())})
    assert shown[1] == "  b, byte 0:"


def test_bytes_that_are_not_text_are_escaped() -> None:
    shown = lines({"b": Received(b"\xff\n\x1b[0m")}, {"b": Received(b"\xfe\x00")})
    assert '"\\xff\\n\\x1b[0m"' in shown[2]
    assert '"\\xfe\\x00"' in shown[3]


def test_bytes_far_from_the_difference_are_not_shown() -> None:
    recorded, now = b"x" * 500 + b"1" + b"y" * 500, b"x" * 500 + b"2"
    shown = lines({"b": Received(recorded)}, {"b": Received(now, "eof")})
    assert shown[1] == "  b, byte 500:"
    assert all(len(line) < 120 for line in shown)
    assert "461 more bytes" in shown[2]
    assert shown[3].endswith('2", EOF')


def test_ends_of_connections_are_compared() -> None:
    shown = lines({"b": Received(b"x", "eof")}, {"b": Received(b"x", "reset")})
    assert shown[1:] == ['  b: recorded "x", EOF, now "x", reset']
    assert lines({}, {"b": Received(end="refused")})[1:] == [
        "  b: recorded nothing, now refused"
    ]


def test_only_a_few_of_many_clients_are_shown() -> None:
    now = {name: Received(b"x") for name in "abcdefgh"}
    assert lines({}, now)[-1] == "  and 5 more clients: d, e, f, g, h"


def test_transcripts_are_compared_until_their_actions_differ() -> None:
    def transcript(*steps: Step) -> Transcript:
        return Transcript(TranscriptHeader("t"), steps)

    one = Step(ACTION, {"b": Received(b"x")})
    other = Step(ACTION, {"b": Received(b"y")})
    leaves = Step(Action("a", "drop"), {})
    assert list(differences(transcript(one), transcript(one))) == []
    found, parted = differences(transcript(one, one), transcript(other, leaves))
    assert isinstance(found, Mismatch)
    assert found.at == 1
    assert list(mismatch_lines(parted)) == ['step 2: a sends "hello" / a closes']
    (shorter,) = differences(transcript(one), transcript())
    assert list(mismatch_lines(shorter)) == ['step 1: a sends "hello" / the end']
