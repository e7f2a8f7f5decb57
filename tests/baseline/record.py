"""``python -m tests.baseline.record``: record the shipped transcripts anew.

The lines with "do" are written by hand. The answers are recorded from the tutorial's
server, on the original modules of each given interpreter; those of repaired behaviour
also from ours.

Rule 1: the answers of the first interpreter are written if all the others give the same
bytes; the header names them all. Otherwise nothing is written, and that is an error.
Rule 2: a transcript whose conversation is unchanged is not written, so that its header
still names the first recording.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import compat
from legacy_chat.baseline import (
    Step,
    Transcript,
    find_profile,
    load,
    play,
    save,
    started,
)
from legacy_chat.baseline.model.compare import differences
from legacy_chat.baseline.model.shipped import TRANSCRIPTS, name_of
from legacy_chat.baseline.replay.server import Target
from legacy_chat.baseline.report.results import mismatch_lines
from tests.original import COMMAND, MISSING

OURS = TRANSCRIPTS / "repaired" / "ours"

# Prints the version of an interpreter, and the origin of its asyncore.
ASK = """\
import platform, sys
modules = "asyncore"
if sys.version_info >= (3, 12):
    from importlib.metadata import version
    modules = f"pyasyncore {version('pyasyncore')}"
print(f"{modules}, CPython {platform.python_version()}")
"""


def main(argv: list[str] | None = None) -> int:
    """Record or compare; return 1 if a comparison found a change."""
    parser = argparse.ArgumentParser(prog="python -m tests.baseline.record")
    parser.add_argument("--check", action="store_true", help="compare without writing")
    parser.add_argument(
        "--python",
        action="append",
        help="an interpreter with asyncore; repeatable, and all must agree",
    )
    parser.add_argument("files", nargs="*", type=Path, help="default: every transcript")
    given = parser.parse_args(argv)
    if MISSING:
        parser.error(MISSING)
    files = [path.resolve() for path in given.files or TRANSCRIPTS.rglob("*.jsonl")]
    ours = [path for path in files if path.is_relative_to(OURS)]
    theirs = [path for path in files if path not in ours]
    changed = [
        *_update(theirs, dict(_originals(given.python or [sys.executable])), given),
        *_update(ours, dict(_rooms()), given),
    ]
    print(f"{len(files)} transcripts, {len(changed)} changed")
    return 1 if changed and given.check else 0


def _originals(pythons: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each original, and the command that starts it."""
    for python in pythons:
        ask = [python, "-W", "ignore", "-c", ASK]
        printed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        name = f"tutorial on {printed.strip()}"
        yield name, COMMAND.replace("{python}", python)


def _rooms() -> Iterator[tuple[str, str]]:
    command = find_profile("tutorial").server
    for loop in compat.LOOPS:
        yield f"legacy-chat on {loop}", command.replace("{loop}", loop)


def _update(
    paths: list[Path], commands: dict[str, str], given: argparse.Namespace
) -> list[Path]:
    """Record and write each transcript; print and return those that have changed."""
    changed = []
    for path in sorted(paths):
        old = load(path)
        new = _agreed(old, commands)
        found = ["\n".join(mismatch_lines(each)) for each in differences(old, new)]
        if not found and old.header.recorded_from:
            continue
        changed.append(path)
        print(name_of(path), *found, sep="\n")
        if not given.check:
            save(path, new)
    return changed


def _agreed(old: Transcript, commands: dict[str, str]) -> Transcript:
    """Return the transcript on which all servers agree."""
    answers = {name: _record(old, command) for name, command in commands.items()}
    (first, steps), *others = answers.items()
    new = Transcript(old.header, steps)
    for name, each in others:
        for found in differences(new, Transcript(old.header, each)):
            raise SystemExit(f"{old.header.title}: {first} and {name} differ: {found}")
    same = ", ".join(name.partition(" on ")[2] for name, _ in others)
    called = f"{first}; the same bytes on {same}" if same else first
    return Transcript(replace(old.header, recorded_from=called), steps)


def _record(old: Transcript, command: str) -> list[Step]:
    profile = find_profile("tutorial")
    # The original has one fixed address, and refuses connections to another one.
    host = old.header.host if "{host}" in command else ""
    with started(Target(command), host) as endpoint:
        endpoint.connect().close()
        return list(play(old, endpoint, profile))


if __name__ == "__main__":
    sys.exit(main())
