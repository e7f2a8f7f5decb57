"""Our server repeats the recordings of the tutorial's server, on every loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from legacy_chat.baseline import (
    Endpoint,
    check,
    find_profile,
    find_transcripts,
    load,
    unparse,
)
from legacy_chat.baseline.model.compare import differences
from legacy_chat.baseline.model.shipped import TRANSCRIPTS, name_of
from legacy_chat.baseline.report.results import mismatch_lines
from tests.legacy_chat.servers import ORIGINAL, Servers, servers
from tests.original import MISSING, original_room
from tests.support import room

KEPT = find_transcripts("kept")
THEIRS = find_transcripts("repaired/original")
OURS = find_transcripts("repaired/ours")
PROFILE = find_profile("tutorial")

on_the_original = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def rooms() -> Iterator[Servers]:
    with servers() as address:
        yield address


def hold(path: Path, endpoint: Endpoint) -> None:
    """Check the transcript against a server; fail with the difference."""
    result = check(load(path), endpoint, PROFILE)
    assert result.outcome == "same", result.error or "\n".join(
        mismatch_lines(result.difference) if result.difference else ()
    )


def needs_its_host(path: Path) -> str:
    """Return the host of the clients; skip the test if this machine lacks it."""
    host = load(path).header.host
    if host:
        with socket.socket(socket.AF_INET6) as sock:
            try:
                sock.bind((host, 0))
            except OSError as error:
                pytest.skip(f"this machine has no {host}: {error}")
    return host


@pytest.mark.parametrize("path", [*KEPT, *OURS], ids=name_of)
def test_shipped_transcript_holds_on_every_loop(
    path: Path, loop: str, rooms: Servers
) -> None:
    host = needs_its_host(path)
    if host:
        with room(loop, "--host", host) as (_, (_, port)):
            hold(path, Endpoint(host, port))
    else:
        hold(path, Endpoint(*rooms(loop)))


@on_the_original
@pytest.mark.parametrize("path", KEPT, ids=name_of)
def test_kept_transcript_holds_on_the_original(path: Path, rooms: Servers) -> None:
    hold(path, Endpoint(*rooms(ORIGINAL)))


@on_the_original
def test_original_side_of_repairs_holds_on_the_original() -> None:
    # Another room: here, the original must log errors.
    with original_room() as (_, address):
        for path in THEIRS:
            needs_its_host(path)
            hold(path, Endpoint(*address))


@pytest.mark.parametrize("path", [*KEPT, *THEIRS, *OURS], ids=name_of)
def test_shipped_transcript_round_trips(path: Path) -> None:
    assert unparse(load(path)) == path.read_text("utf8")


def test_shipped_transcripts_cover_all_behaviours() -> None:
    assert len(KEPT) + len(THEIRS) >= 30
    kept = {path.stem for path in KEPT}
    for each in ("k1", "k2", "k3", "k4", "k5", "k6", *(f"room-of-{n}" for n in (2, 3))):
        assert any(name.startswith(each) for name in kept), each
    assert {"room-of-20", "room-of-20-fills", "room-of-20-empties"} <= kept


@pytest.mark.parametrize("theirs", THEIRS, ids=name_of)
def test_repaired_transcripts_differ_from_the_originals(theirs: Path) -> None:
    ours = TRANSCRIPTS / "repaired" / "ours" / theirs.name
    assert list(differences(load(theirs), load(ours)))


def test_every_repaired_transcript_has_both_sides() -> None:
    assert [path.name for path in THEIRS] == [path.name for path in OURS]
    assert {path.name[:2] for path in OURS} == {"r2", "r3", "r4", "r8"}


@pytest.mark.parametrize("path", [*KEPT, *THEIRS], ids=name_of)
def test_header_names_both_original_modules(path: Path) -> None:
    origin = load(path).header.recorded_from
    assert origin.startswith("tutorial on asyncore, CPython 3.11")
    assert "the same bytes on pyasyncore" in origin
