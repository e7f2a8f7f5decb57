"""The shipped transcripts of the tutorial's server, by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from legacy_chat.baseline.model.errors import FormatError

__all__ = ["EXPECTED", "TRANSCRIPTS", "find_transcript", "find_transcripts", "name_of"]

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"

# The default of check: the expected behaviour of this installation and every rewrite.
EXPECTED = ("kept", "repaired/ours")


def find_transcripts(name: str) -> list[Path]:
    """Return the files for *name*: a path, the files of a folder, or shipped ones.

    Args:
        name: ``talk.jsonl``, ``folder``, ``kept``, ``repaired/original``,
            ``k2-held-back`` …; ``-`` is standard input.

    Raises:
        FormatError: no file has the name.
    """
    if name == "-":
        return [Path(name)]
    for path in (Path(name), TRANSCRIPTS / name):
        if path.is_file():
            return [path]
        if path.is_dir() and (found := sorted(path.rglob("*.jsonl"))):
            return found
    shipped = sorted(TRANSCRIPTS.rglob("*.jsonl"))
    # Not with rglob(name), which raises for an absolute path and for some patterns.
    found = [each for each in shipped if fnmatchcase(f"/{name_of(each)}", f"*/{name}")]
    if not found:
        raise FormatError(
            f"{name}: no such file, no folder with transcripts, and not among the "
            f"shipped ones (legacy-chat baseline show --list)"
        )
    return found


def find_transcript(name: str) -> Path:
    """Return the only file for *name*; raise FormatError for none, or for several."""
    path, *others = find_transcripts(name)
    if others:
        raise FormatError(f"{name} means {len(others) + 1} transcripts: name one")
    return path


def name_of(path: Path) -> str:
    """Return the name of a shipped transcript, or the path of another one."""
    if path.is_relative_to(TRANSCRIPTS):
        return path.relative_to(TRANSCRIPTS).with_suffix("").as_posix()
    return str(path)
