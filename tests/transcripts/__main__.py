"""``python -m tests.transcripts``: record the transcripts anew, and say what changed.

Rule: a transcript whose conversation is still the same is not written, so that it goes
on saying where it was recorded first.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import sys
from pathlib import Path

from tests.conversation import WITNESS, Conversation
from tests.original import MISSING, original_room
from tests.transcripts import HERE, Step, Transcript, parse, unparse

# The standard library had the modules up to here.
BACKPORT = "" if sys.version_info < (3, 12) else "pyasyncore"


def main(argv: list[str] | None = None) -> int:
    """Record, or compare; 1 if something changed that was to be compared only."""
    parser = argparse.ArgumentParser(prog="python -m tests.transcripts")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("files", nargs="*", type=Path, help="default: every transcript")
    given = parser.parse_args(argv)
    if MISSING:
        parser.error(MISSING)
    files = given.files or sorted(HERE.glob("*.jsonl"))
    with original_room() as (_, address):
        changed = [path for path in files if _update(path, address, given.check)]
    print(f"{len(files)} transcripts, {len(changed)} changed, from {recorded_from()}")
    return 1 if changed and given.check else 0


def recorded_from() -> str:
    """What stands in the header: the script, the modules, the interpreter."""
    modules = "asyncore"
    if BACKPORT:
        modules = f"{BACKPORT} {importlib.metadata.version(BACKPORT)}"
    major, minor, *_ = sys.version_info
    return f"tutorial on {modules}, CPython {major}.{minor}"


def record(old: Transcript, address: tuple[str, int]) -> Transcript:
    """The same actions, and what the server at *address* makes of them now."""
    with Conversation(address) as conversation:
        steps = []
        for action, _ in old.steps:
            heard = conversation.step(action)
            heard.pop(WITNESS, None)
            steps.append(Step(action, heard))
    return Transcript(old.title, recorded_from(), steps)


def _update(path: Path, address: tuple[str, int], check: bool) -> bool:
    """Record one; print the difference; write it. True if there was any."""
    before = path.read_text("utf8")
    old = parse(before)
    new = record(old, address)
    if old.recorded_from:
        new = new._replace(recorded_from=old.recorded_from)
    after = unparse(new)
    if before == after:
        return False
    after = unparse(new._replace(recorded_from=recorded_from()))
    was, now = before.split("\n"), after.split("\n")
    print(*difflib.unified_diff(was, now, str(path), "now", lineterm=""), sep="\n")
    if not check:
        path.write_text(after, "utf8", newline="\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
