"""The messages of the text views in each language, and sentences made of them.

messages.json has the messages.

Rule 1: every language has every message, with the same fields.
Rule 2: names and data of the program, and units, are the same in all languages.
"""

from __future__ import annotations

import json
import pkgutil

from compat.trace.model import Call, Event, StateChange, TracedChannel
from compat.trace.render.formatting import duration, quoted, readable, width

__all__ = [
    "LANGUAGES",
    "MESSAGES",
    "call_title",
    "channel_name",
    "count",
    "describe",
    "interest",
    "message",
    "quoted_with_size",
    "traffic",
    "wake_reason",
]

LANGUAGES = ("en", "zh")

# A message in each of LANGUAGES, with fields in braces. In English, count() adds the
# plural.
MESSAGES: dict[str, list[str]] = json.loads(
    pkgutil.get_data("compat.trace.render", "messages.json") or "{}"
)


def message(key: str, lang: str = "en", **values: object) -> str:
    """Return a message of MESSAGES in one of LANGUAGES, with its fields filled in."""
    words = MESSAGES[key][LANGUAGES.index(lang)]
    return words.format(**values) if values else words


def count(number: float, thing: str, lang: str = "en") -> str:
    """Return ``1 byte``, ``4,096 bytes``; in Chinese, only bytes and channels."""
    things = f"{number:,} {thing}{'' if number == 1 else 's'}"
    return things if lang == "en" else message(thing, lang, count=number)


def quoted_with_size(
    data: bytes, size: int | None = None, columns: int = 1 << 30, lang: str = "en"
) -> str:
    """Quote bytes; add their number unless it is visible: ``"用户", 6 bytes``."""
    size = len(data) if size is None else size
    text = quoted(data, size)
    if data.isascii() and size <= len(data) and len(text) <= columns:
        return text
    after = message("comma", lang) + count(size, "byte", lang)
    return quoted(data, size, columns - width(after)) + after


def call_title(call: Call, lang: str = "en") -> str:
    """Return the name of a call: ``push``, ``timer 3: resume_accepting``."""
    name = readable(call.name)
    if "to" in call.fields and call.channel is None:
        name = f"BroadcastGroup.{name}"
    if call.name == "timer" and isinstance(call.fields.get("id"), int):
        name = message("timer", lang, number=call.fields["id"])
    if call.name == "turn ends":
        name = message("flush", lang)
    if call.code is not None and call.name in ("timer", "soon"):
        name += message("colon", lang) + readable(call.code.name)
    return name


def channel_name(channel: TracedChannel) -> str:
    """Return a channel's name; its class may have any name."""
    return readable(channel.name)


def traffic(call: Call, lang: str = "en") -> str:
    """Return the bytes of a call at the channel's socket: ``read 5, sent 4``, or ""."""
    read = message("read", lang, count=call.received) if call.received else ""
    sent = message("sent", lang, count=call.sent) if call.sent else ""
    return message("comma", lang).join(filter(None, (read, sent)))


def wake_reason(reason: str, lang: str = "en") -> str:
    """Return why a wait ended."""
    return _known("why", reason, lang) or readable(reason)


def interest(reads: object, writes: object, lang: str = "en") -> str:
    """Return the name of an interest."""
    key = f"interest {'r' * bool(reads)}{'w' * bool(writes)}"
    return message(key.rstrip(), lang)


def describe(event: Event, lang: str = "en") -> list[str]:
    """Return the phrases that describe an event."""
    if isinstance(event, StateChange):
        return _state_change(event, lang)
    return [_event(event, lang)]


def _event(event: Event, lang: str) -> str:
    fields, number = event.fields, event.fields.get("n", "?")
    if event.kind == "open":
        kind = f"{fields.get('module', '')}.{fields.get('class', '?')}".lstrip(".")
        fd = fields.get("fd", "?")
        return message("opened", lang, fd=fd, kind=readable(kind))
    if event.kind == "interest":
        wanted = interest(fields.get("r"), fields.get("w"), lang)
        return message("interest of", lang, what=wanted)
    if event.kind == "timer":
        timer, after = fields.get("id", "?"), fields.get("in")
        key = "timer cancelled" if after is None else "timer set"
        return message(key, lang, number=timer, seconds=after)
    if event.kind == "turn":
        return message("nested turn", lang, number=number)
    if event.kind == "woke":
        span, why = duration(fields.get("waited", 0)), fields.get("why", "")
        return message("waited", lang, span=span, why=wake_reason(why, lang))
    if event.kind == "lost":
        return message("lost", lang, count=fields.get("n") or 0)
    if event.kind == "end":
        why = fields.get("why", "")
        return message("full" if why == "full" else "end", lang, why=readable(why))
    return readable(event.kind)


def _state_change(state: StateChange, lang: str) -> list[str]:
    fields, phrases = state.fields, []
    if "is" in fields or "local" in fields or "peer" in fields:
        phrases.append(_status(fields, lang))
    if "terminator" in fields:
        phrases.append(_terminator(fields["terminator"], lang))
    if "held" in fields:
        phrases.append(_held(state, lang))
    if "backlog" in fields or "queued" in fields:
        phrases.append(_backlog(fields, lang))
    if "unseen" in fields:
        phrases.append(message("unseen", lang, why=readable(fields["unseen"])))
    return phrases


def _known(prefix: str, name: str, lang: str) -> str:
    """Return a message; "" if a trace has a name without one."""
    key = f"{prefix} {name}"
    return message(key, lang) if key in MESSAGES else ""


def _status(fields: dict[str, str], lang: str) -> str:
    status = fields.get("is", "")
    words = message("is", lang, status=readable(status))
    phrases = [_known("is", status, lang) or words if status else ""]
    for end in ("local", "peer"):
        if fields.get(end):
            phrases.append(message(end, lang, address=readable(fields[end])))
    phrases[0] = phrases[0] or message("addresses", lang)
    return message("beside", lang).join(phrases)


def _terminator(terminator: str | int | None, lang: str) -> str:
    if not terminator:
        return message("no terminator", lang)
    if isinstance(terminator, str):
        return message("terminator", lang, what=quoted(_bytes(terminator)))
    return message("size", lang, what=count(terminator, "byte", lang))


def _held(state: StateChange, lang: str) -> str:
    size, terminator = state.fields["held"], state.terminator
    if not size:
        return message("held nothing", lang)
    if state.held_bytes is None:
        return message("held", lang, what=count(size, "byte", lang))
    what = quoted(state.held_bytes)
    whole = _bytes(terminator) if isinstance(terminator, str) else b""
    if not whole.startswith(state.held_bytes):
        return message("held", lang, what=what)
    return message("held because", lang, what=what, terminator=quoted(whole))


def _backlog(fields: dict[str, int], lang: str) -> str:
    if not fields.get("backlog") and not fields.get("queued"):
        return message("backlog empty", lang)
    phrases = []
    if "backlog" in fields:
        size = count(fields["backlog"], "byte", lang)
        phrases.append(message("backlog", lang, what=size))
    if "queued" in fields:
        phrases.append(message("queued", lang, count=fields["queued"]))
    return message("comma", lang).join(phrases)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # A terminator may be any text that the program sets.
        return text.encode("utf-8", "backslashreplace")
