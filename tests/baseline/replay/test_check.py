"""Checks of four rewrites of the room: one is right, two are wrong, one hangs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from legacy_chat.baseline import (
    Action,
    Endpoint,
    Received,
    Result,
    Step,
    Transcript,
    TranscriptHeader,
    check,
    conversation,
    find_profile,
    find_transcripts,
    play,
)
from legacy_chat.baseline.replay.check import CheckPlan, run_checks
from legacy_chat.baseline.replay.server import Target
from legacy_chat.baseline.report.results import mismatch_lines, status
from tests.baseline.line_server import LINES, line_server
from tests.baseline.rewrites import COMMAND
from tests.baseline.targets import target

ROOM = find_profile("tutorial")
FILES = {path.stem: path for path in find_transcripts("kept")}


def hold(rewrite: str, *names: str, timeout: float = 20.0) -> list[Result]:
    """Check a rewrite against transcripts; return the results."""
    paths = [FILES[name] for name in names]
    plan = CheckPlan(paths, [target(rewrite)], ROOM, timeout=timeout)
    return run_checks(plan, lambda result: None)


def test_correct_rewrite_gives_the_same_bytes() -> None:
    results = hold("right", *FILES)
    assert {result.outcome for result in results} == {"same"}
    assert status(results) == 0


@pytest.mark.parametrize(
    ("rewrite", "name", "at"),
    [("forgets-k2", "k2-held-back", 3), ("forgets-k4", "k4-after-out", 7)],
)
def test_wrong_rewrite_differs_only_where_it_is_wrong(
    rewrite: str, name: str, at: int
) -> None:
    # After a difference, a new server is started for the next transcript.
    wrong, right = hold(rewrite, name, "k1-three-clients")
    assert wrong.outcome == "different"
    assert wrong.difference is not None
    assert wrong.difference.at == at
    assert right.outcome == "same"
    assert status([wrong, right]) == 1


def test_hanging_server_is_an_error() -> None:
    hangs, right = hold("hangs", "k3-inside-a-word", "k1-three-clients", timeout=1.0)
    assert hangs.outcome == "error"
    assert (
        "after 7 steps: the witness sent a marker, and received nothing" in hangs.error
    )
    assert right.outcome == "same"
    assert status([hangs, right]) == 2


def test_server_that_cannot_start_is_an_error() -> None:
    plan = CheckPlan([FILES["k3-out"]], [Target("{python} -c 'no' {port}")], ROOM)
    (result,) = run_checks(plan, lambda result: None)
    assert result.outcome == "error"
    assert "NameError: name 'no' is not defined" in result.error


def test_parallel_jobs_report_every_result() -> None:
    names = ("k1-three-clients", "k2-held-back", "k3-out", "k5-farewell")
    plan = CheckPlan(
        [FILES[name] for name in names],
        [target("right")],
        ROOM,
        repeat=2,
        jobs=3,
    )
    reported: list[Result] = []
    results = run_checks(plan, reported.append)
    assert [result.name for result in results] == [f"kept/{n}" for n in names * 2]
    assert {result.outcome for result in results} == {"same"}
    assert set(reported) == set(results)
    assert len(reported) == len(results)


@pytest.fixture(scope="module")
def lines() -> Iterator[Endpoint]:
    with line_server() as endpoint:
        yield endpoint


def talk(*messages: bytes) -> Transcript:
    """Return a scenario: one client connects and sends the messages."""
    actions = [Action("a", "open"), *(Action("a", "send", each) for each in messages)]
    return Transcript(
        TranscriptHeader("talk"), [Step(action, {}) for action in actions]
    )


def recorded(endpoint: Endpoint, *messages: bytes) -> Transcript:
    return Transcript(
        TranscriptHeader("talk"), list(play(talk(*messages), endpoint, LINES))
    )


@pytest.mark.parametrize("cut", ["every byte", "at 3", "random 5"])
def test_segmentation_does_not_change_a_line_protocol(
    lines: Endpoint, cut: str
) -> None:
    transcript = recorded(lines, b"{token1}\r\nQUIT\r\n")
    assert check(transcript, lines, LINES, cut=cut).outcome == "same"


def test_another_server_differs(lines: Endpoint) -> None:
    transcript = recorded(lines, b"hello\r\n")
    with line_server("you shouted") as other:
        result = check(transcript, other, LINES)
    assert result.difference is not None
    assert list(mismatch_lines(result.difference))[1] == "  a, byte 5:"


def test_missing_answer_is_a_difference(lines: Endpoint) -> None:
    open_it, say = recorded(lines, b"hello\r\n").steps
    longer = {"a": Received(say.answers["a"].data + b"and more")}
    transcript = Transcript(
        TranscriptHeader("talk"), [open_it, Step(say.action, longer)]
    )
    result = check(transcript, lines, replace(LINES, patience=0.3))
    assert result.difference is not None
    assert result.difference.at == 2


def test_data_after_the_last_step_is_found(lines: Endpoint) -> None:
    greeting = {"a": Received(b"welcome, {token1}, at {time}\r\n")}
    with conversation(lines, LINES) as player:
        assert player.step(Action("a", "open"), greeting) == greeting
        with lines.connect() as other:
            other.sendall(b"ALL of you\r\n")
            # The server sends to the first client before it sends to the other one.
            while b"all" not in other.recv(100):
                pass
            assert player.late_answers() == {"a": Received(b"all: of you\r\n")}


def test_cut_is_skipped_for_segment_framing() -> None:
    plan = CheckPlan([FILES["k3-out"]], [Target(COMMAND)], ROOM, cuts=["every byte"])
    (result,) = run_checks(plan, lambda result: None)
    assert result.skipped == "its framing is 'segment': cuts matter"


def test_host_is_skipped_if_the_command_has_no_host_field() -> None:
    plan = CheckPlan(find_transcripts("repaired/ours/r8-ipv6.jsonl"), [Target(COMMAND)])
    (result,) = run_checks(plan, lambda result: None)
    assert result.outcome == "skipped"
    assert status([result]) == 2
