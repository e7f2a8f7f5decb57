"""Actions and received data as text, with escapes; and the width of a text."""

from __future__ import annotations

from compat.characters import is_printable
from compat.trace.render.formatting import width
from legacy_chat.baseline.model.errors import OUTPUT_PREFIX
from legacy_chat.baseline.model.transcript import Action, Received

__all__ = [
    "action_text",
    "escaped",
    "escaped_error",
    "fitted",
    "plural",
    "readable",
    "received_text",
    "sentence",
    "width",
    "wrapped",
]

# The verbs for a client's actions other than send.
VERBS = {
    "open": "connects",
    "drop": "closes",
    "reset": "resets",
    "half-close": "half-closes",
    "wait": "acts",
}
ENDS = {"eof": "EOF", "reset": "reset", "refused": "refused", "": ""}


def readable(data: bytes) -> str:
    """Return *data* as text; invalid and invisible bytes as ``\\xff``, ``\\n``."""
    return escaped(data.decode("utf8", "backslashreplace"))


def escaped(text: str) -> str:
    """Return *text* on one line, with invisible and control characters escaped.

    All printed text from a file, a server or a command line passes through here.
    """
    if is_printable(text):
        return text
    return "".join(
        each if is_printable(each) else each.encode("unicode_escape").decode()
        for each in text
    )


def escaped_error(message: str) -> str:
    """Escape as *escaped* does, but keep a server's last output on separate lines."""
    return OUTPUT_PREFIX.join(map(escaped, message.split(OUTPUT_PREFIX)))


def action_text(action: Action) -> str:
    """Return a short text for an action: ``"hello"``, ``"bye" and closes``."""
    data = f'"{readable(action.data)}"' if action.data or action.do == "send" else ""
    if action.cut:
        data += f" (cut: {action.cut})"
    return " and ".join(filter(None, (data, VERBS.get(action.do))))


def sentence(action: Action) -> str:
    """Return the client and its action: ``a sends "hello"``."""
    verb = "sends " if action.data or action.do == "send" else ""
    return f"{action.client} {verb}{action_text(action)}"


def received_text(received: Received) -> str:
    """Return a short text for received data: ``"hell"``, ``"bye", EOF``."""
    data = f'"{readable(received.data)}"' if received.data else ""
    return ", ".join(filter(None, (data, ENDS[received.end]))) or "nothing"


def plural(number: int, noun: str) -> str:
    """Return the number with its noun: ``1 step``, ``2 steps``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


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
