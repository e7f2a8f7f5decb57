"""Bytes for people: text as text, the rest escaped; and how wide that is."""

from __future__ import annotations

from compat.characters import is_printable
from compat.trace.words import width
from legacy_chat.baseline.errors import LAST_WORDS
from legacy_chat.baseline.format import Action, Got

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

# What a client does, apart from sending.
DEEDS = {
    "open": "comes",
    "drop": "drops",
    "reset": "resets",
    "half-close": "says no more",
    "wait": "does anything",
}
ENDS = {"eof": "the end", "reset": "a reset", "refused": "refused", "": ""}


def readable(data: bytes) -> str:
    """*data* as text; what is not UTF-8 or cannot be seen as ``\\xff``, ``\\n``."""
    return seen(data.decode("utf8", "surrogateescape"))


def seen(text: str) -> str:
    """*text* on one line: what cannot be seen, or steers a terminal, as an escape.

    Everything goes through here that comes from a file, a server or a command line.
    """
    if is_printable(text):
        return text
    return "".join(each if is_printable(each) else _escape(each) for each in text)


def seen_error(message: str) -> str:
    """As seen, but the last words of a server stay on lines of their own."""
    return LAST_WORDS.join(map(seen, message.split(LAST_WORDS)))


def deed(action: Action) -> str:
    """What a client does, in a few words: ``"hello"``, ``"bye" and drops``."""
    said = f'"{readable(action.data)}"' if action.data else ""
    if action.cut:
        said += f" (cut: {action.cut})"
    does = DEEDS.get(action.do, "" if said else '""')
    return " and ".join(filter(None, (said, does)))


def does(action: Action) -> str:
    """As deed, with a verb: ``sends "hello"``, ``sends "bye" and drops``."""
    return f"{'sends ' if action.data else ''}{deed(action)}"


def got(got: Got) -> str:
    """What a client got: ``"hell"``, ``"bye", the end``."""
    said = f'"{readable(got.data)}"' if got.data else ""
    return ", ".join(filter(None, (said, ENDS[got.end]))) or "nothing"


def wrapped(text: str, columns: int) -> list[str]:
    """*text* in lines of so many columns at most, two at least."""
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
    """*text* with spaces up to so many columns."""
    return text + " " * (columns - width(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
