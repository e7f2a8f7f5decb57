"""The transcripts of the tutorial's server, by their names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

from legacy_chat.baseline.errors import FormatError

__all__ = ["EXPECTED", "TRANSCRIPTS", "find_transcripts", "name_of"]

TRANSCRIPTS = Path(str(files("legacy_chat.baseline") / "transcripts"))

# What this installation's server, and every rewrite of the room, is held against.
EXPECTED = ("kept", "repaired/ours")


def find_transcripts(name: str) -> list[Path]:
    """The files that *name* means: a path, a folder's, or shipped ones.

    Args:
        name: ``talk.jsonl``, ``folder``, ``kept``, ``repaired/original``,
            ``k2-held-back`` …; ``-`` is standard input.

    Raises:
        FormatError: it means none.
    """
    if name == "-":
        return [Path(name)]
    for path in (Path(name), TRANSCRIPTS / name):
        if path.is_file():
            return [path]
        if path.is_dir():
            found = sorted(path.rglob("*.jsonl"))
            if found:
                return found
    shipped = sorted(TRANSCRIPTS.rglob("*.jsonl"))
    # Not by rglob, which raises for an absolute path and for some patterns.
    found = [each for each in shipped if fnmatchcase(f"/{name_of(each)}", f"*/{name}")]
    if not found:
        raise FormatError(
            f"{name}: no such file, no folder with transcripts, and none of the "
            f"shipped ones (legacy-chat baseline show --list)"
        )
    return found


def name_of(path: Path) -> str:
    """What people call it: the shipped ones by their names, others by their paths."""
    if path.is_relative_to(TRANSCRIPTS):
        return path.relative_to(TRANSCRIPTS).with_suffix("").as_posix()
    return str(path)
