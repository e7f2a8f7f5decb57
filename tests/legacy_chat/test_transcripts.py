"""What was recorded from the tutorial's server is what ours says, on every loop.

Rule: a transcript is compared step by step and client by client, each as one string of
bytes: never packet by packet, never by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conversation import WITNESS, Action, Conversation, Got
from tests.legacy_chat.servers import ORIGINAL, Servers, servers
from tests.original import MISSING
from tests.transcripts import HERE, Step, Transcript, parse, unparse

FILES = sorted(HERE.glob("*.jsonl"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Each transcript."""
    return Path(request.param)


@pytest.fixture(scope="module")
def rooms() -> Iterator[Servers]:
    with servers() as address:
        yield address


def replay(path: Path, address: tuple[str, int]) -> None:
    """Play the transcript's actions; compare what everybody gets."""
    steps = parse(path.read_text("utf8")).steps
    with Conversation(address) as conversation:
        for at, (action, recorded) in enumerate(steps, 1):
            heard = conversation.step(action)
            heard.pop(WITNESS, None)
            assert heard == recorded, f"{path.name}, step {at}: {action}"


def test_a_transcript_holds_on_every_loop(
    path: Path, loop: str, rooms: Servers
) -> None:
    replay(path, rooms(loop))


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_transcript_still_holds_on_the_original(path: Path, rooms: Servers) -> None:
    replay(path, rooms(ORIGINAL))


def test_each_kept_behaviour_has_a_transcript() -> None:
    kept = {path.name[:2] for path in FILES}
    assert kept >= {"k1", "k2", "k3", "k4", "k5", "k6"}


def test_a_transcript_reads_as_it_is_written(path: Path) -> None:
    text = path.read_text("utf8")
    assert unparse(parse(text)) == text


@pytest.mark.parametrize("data", [b"eof", b"\xff\xfe", b"", "你\u2028\x00😀".encode()])
@pytest.mark.parametrize("ended", [False, True])
def test_any_bytes_can_be_written_down(data: bytes, ended: bool) -> None:
    heard = {"b": Got(data, ended)} if data or ended else {}
    transcript = Transcript("t", "here", [Step(Action("a", "send", data), heard)])
    text = unparse(transcript)
    assert parse(text) == transcript
    assert all(line.isprintable() for line in text.rstrip("\n").split("\n"))


def test_a_step_that_is_missing_is_an_error() -> None:
    text = unparse(Transcript("t", "", [Step(Action("a", "open"), {})]))
    with pytest.raises(ValueError, match="step 1"):
        parse(text.replace('"at": 1', '"at": 2'))


def test_another_format_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a transcript of this version"):
        parse('{"format": "legacy-chat-transcript", "version": 2, "title": ""}\n')
