"""Bytes and actions as text for people, with escapes; and the width of a text."""

from __future__ import annotations

from compat.characters import is_printable
from compat.trace.render.formatting import width
from legacy_chat.baseline.model.errors import LAST_WORDS
from legacy_chat.baseline.model.format import Action, Received

__all__ = [
    "deed",
    "does",
    "fitted",
    "got",
    "readable",
    "seen",
    "seen_error",
    "width",
    "wrapped",
]

# The words for a client's actions other than send.
DEEDS = {
    "open": "comes",
    "drop": "drops",
    "reset": "resets",
    "half-close": "says no more",
    "wait": "does anything",
}
ENDS = {"eof": "the end", "reset": "a reset", "refused": "refused", "": ""}


def readable(data: bytes) -> str:
    """Return *data* as text; invalid and invisible bytes as ``\\xff``, ``\\n``."""
    return seen(data.decode("utf8", "surrogateescape"))


def seen(text: str) -> str:
    """Return *text* on one line, with invisible and control characters escaped.

    All printed text from a file, a server or a command line passes through here.
    """
    if is_printable(text):
        return text
    return "".join(each if is_printable(each) else _escape(each) for each in text)


def seen_error(message: str) -> str:
    """Escape as *seen* does, but keep a server's last output on separate lines."""
    return LAST_WORDS.join(map(seen, message.split(LAST_WORDS)))


def deed(action: Action) -> str:
    """Return a short text for an action: ``"hello"``, ``"bye" and drops``."""
    said = f'"{readable(action.data)}"' if action.data else ""
    if action.cut:
        said += f" (cut: {action.cut})"
    does = DEEDS.get(action.do, "" if said else '""')
    return " and ".join(filter(None, (said, does)))


def does(action: Action) -> str:
    """Return the same with a verb: ``sends "hello"``, ``sends "bye" and drops``."""
    return f"{'sends ' if action.data else ''}{deed(action)}"


def got(got: Received) -> str:
    """Return a short text for received data: ``"hell"``, ``"bye", the end``."""
    said = f'"{readable(got.data)}"' if got.data else ""
    return ", ".join(filter(None, (said, ENDS[got.end]))) or "nothing"


def wrapped(text: str, columns: int) -> list[str]:
    """Split *text* into lines of at most *columns* columns; the minimum is two."""
    if text.isascii():
        step = max(columns, 2)
        return [text[at : at + step] for at in range(0, len(text), step)] or [""]
    lines, line, used = [], "", 0
    for each in text:
        if used + width(each) > max(columns, 2):
            lines.append(line)
            line, used = "", 0
        line += each
        used += width(each)
    return [*lines, line]


def fitted(text: str, columns: int) -> str:
    """Pad *text* with spaces to *columns* columns."""
    return text + " " * (columns - width(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
