"""What a trace has, in words: for a terminal, a diagram, a time line.

Rule 1: what a program or its peers wrote neither steers a terminal nor ends a line:
what cannot be seen is escaped, so that two different things never look the same.
Rule 2: text of a trace may hold U+DC80 to U+DCFF, bytes that are not UTF-8. They leave
here as ``\\xff``, so what leaves here can be encoded.
Rule 3: whatever says something in a language has a ``lang``, one of phrases.LANGUAGES.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath, PureWindowsPath

from compat.characters import is_printable
from compat.trace.phrases import PHRASES, said
from compat.trace.reading import Call, Channel, Code, Event, State

__all__ = [
    "became",
    "clip",
    "count",
    "counted",
    "duration",
    "happened",
    "named",
    "packed",
    "place",
    "quoted",
    "readable",
    "seconds",
    "title",
    "traffic",
    "wanted",
    "where",
    "why",
    "width",
]

# What is written otherwise in a string of Python, too.
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def readable(text: str) -> str:
    """*text* on one line, with escapes for what cannot be seen, and for ``\\``."""
    if is_printable(text) and "\\" not in text:
        return text
    return "".join(map(_seen, text))


def quoted(data: bytes, size: int | None = None, columns: int = 1 << 30) -> str:
    """Bytes for people: ``"hell"``, or ``"he…"``, which is not all of them.

    Args:
        size: bytes that there were; None if they are all here.
        columns: that it may take, if that is ten or more.
    """
    text = readable(data.decode("utf-8", "surrogateescape")).replace('"', '\\"')
    room = max(columns, 10) - len('""')
    if size is not None and len(data) < size:
        text = clip(text, room - 1).removesuffix("…") + "…"
    return f'"{clip(text, room)}"'


def counted(
    data: bytes, size: int | None = None, columns: int = 1 << 30, lang: str = "en"
) -> str:
    """As quoted, with its size where that cannot be seen: ``"用户", 6 bytes``."""
    size = len(data) if size is None else size
    text = quoted(data, size)
    if data.isascii() and size <= len(data) and len(text) <= columns:
        return text
    after = said("comma", lang) + count(size, "byte", lang)
    return quoted(data, size, columns - width(after)) + after


def width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def clip(text: str, columns: int) -> str:
    """*text*, or its beginning and ``…`` in so many columns; "" in none."""
    # No character takes more than two.
    if 2 * len(text) <= columns or width(text) <= columns:
        return text
    if columns < 1:
        return ""
    used = 0
    for at, each in enumerate(text):
        used += _columns(each)
        if used > columns - 1:
            # What ends in one already has no need of another.
            return text[:at].rstrip("…") + "…"
    return text


def count(number: float, thing: str, lang: str = "en") -> str:
    """``1 byte``, ``4,096 bytes``; in other languages, only bytes and channels."""
    things = f"{number:,} {thing}{'' if number == 1 else 's'}"
    return things if lang == "en" else said(thing, lang, count=number)


def duration(us: int) -> str:
    """Microseconds in three figures or more: ``61 µs``, ``12.1 ms``, ``1.20 s``."""
    if us < 1_000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1_000:.{_decimals(us)}f} ms"
    return f"{us / 1_000_000:,.{_decimals(us / 1_000)}f} s"


def seconds(us: int) -> str:
    """When something was: ``1.204318 s``."""
    return f"{us / 1_000_000:.6f} s"


def place(code: Code | None) -> str:
    """``server.py:71``; "" if it is none of the program's code."""
    return f"{_base(code.file)}:{code.line}" if code is not None else ""


def where(error: str) -> str:
    """``server.py:71`` of a call's ``where``."""
    return _base(error)


def title(call: Call, lang: str = "en") -> str:
    """What is called, for people: ``push``, ``timer 3: resume_accepting``."""
    name = readable(call.do)
    if "to" in call.fields and call.channel is None:
        name = f"Audience.{name}"
    if call.do == "timer" and isinstance(call.fields.get("id"), int):
        name = said("timer", lang, number=call.fields["id"])
    if call.do == "turn ends":
        name = said("turn ends", lang)
    if call.code is not None and call.do in ("timer", "soon"):
        name += said("colon", lang) + readable(call.code.do)
    return name


def traffic(call: Call, lang: str = "en") -> str:
    """What went through the channel's socket: ``read 5``, ``sent 4``, or ""."""
    read = said("read", lang, count=call.taken) if call.taken else ""
    sent = said("sent", lang, count=call.given) if call.given else ""
    return said("comma", lang).join(filter(None, (read, sent)))


def why(reason: str, lang: str = "en") -> str:
    """Why a wait was over."""
    return _said_of("why", reason, lang) or readable(reason)


def became(state: State, lang: str = "en") -> list[str]:
    """What a state says, a few words for each thing."""
    fields, words = state.fields, []
    if "is" in fields or "local" in fields or "peer" in fields:
        words.append(_status(state, lang))
    if "terminator" in fields:
        words.append(_awaited(fields["terminator"], lang))
    if "held" in fields:
        words.append(_held(state, lang))
    if "backlog" in fields or "queued" in fields:
        words.append(_backlog(fields, lang))
    if "unseen" in fields:
        words.append(said("unseen", lang, why=readable(fields["unseen"])))
    return words


def happened(event: Event, lang: str = "en") -> list[str]:
    """As became, of any event."""
    return became(event, lang) if isinstance(event, State) else [_did(event, lang)]


def wanted(reads: object, writes: object, lang: str = "en") -> str:
    """An interest."""
    return said(f"wanted {'r' * bool(reads)}{'w' * bool(writes)}".rstrip(), lang)


def named(channel: Channel) -> str:
    """A channel's name, which a program may have made of anything."""
    return readable(channel.name)


def packed(phrases: list[str], room: int, between: str = "; ") -> Iterator[str]:
    """The phrases, as many on a line as go in *room* columns."""
    line = ""
    for phrase in phrases:
        longer = f"{line}{between}{phrase}" if line else phrase
        if line and width(longer) > room:
            yield line
            longer = phrase
        line = longer
    if line:
        yield line


def _did(event: Event, lang: str) -> str:
    fields = event.fields
    if event.what == "open":
        kind = f"{fields.get('module', '')}.{fields.get('class', '?')}".lstrip(".")
        fd = fields.get("fd", "?")
        return said("opened", lang, fd=fd, kind=readable(kind))
    if event.what == "interest":
        what = wanted(fields.get("r"), fields.get("w"), lang)
        return said("wants", lang, what=what)
    if event.what == "timer":
        number, after = fields.get("id", "?"), fields.get("in")
        if after is None:
            return said("timer cancelled", lang, number=number)
        return said("timer set", lang, number=number, seconds=after)
    if event.what == "turn":
        return said("inner turn", lang, number=fields.get("n", "?"))
    if event.what == "woke":
        span, reason = duration(fields.get("waited", 0)), fields.get("why", "")
        return said("waited", lang, span=span, why=why(reason, lang))
    if event.what == "lost":
        return said("lost", lang, count=fields.get("n") or 0)
    if event.what == "end":
        return _end(fields.get("why", ""), lang)
    return readable(event.what)


def _said_of(kind: str, what: str, lang: str) -> str:
    """A phrase of a kind; "" for what a trace has that there is no phrase for."""
    phrase = f"{kind} {what}"
    return said(phrase, lang) if phrase in PHRASES else ""


def _status(state: State, lang: str) -> str:
    fields = state.fields
    status = fields.get("is", "")
    words = [said("addresses", lang)]
    if status:
        of_any = said("is", lang, status=readable(status))
        words = [_said_of("is", status, lang) or of_any]
    for end in ("local", "peer"):
        if fields.get(end):
            words.append(said(end, lang, address=readable(fields[end])))
    return said("beside", lang).join(words)


def _awaited(terminator: str | int | None, lang: str) -> str:
    if not terminator:
        return said("awaits nothing", lang)
    if isinstance(terminator, str):
        return said("awaits", lang, what=quoted(_bytes(terminator)))
    return said("awaits bytes", lang, what=count(terminator, "byte", lang))


def _held(state: State, lang: str) -> str:
    size, terminator = state.fields["held"], state.terminator
    if not size:
        return said("held nothing", lang)
    if state.holds is None:
        return said("held", lang, what=count(size, "byte", lang))
    what = quoted(state.holds)
    whole = _bytes(terminator) if isinstance(terminator, str) else b""
    if not whole.startswith(state.holds):
        return said("held", lang, what=what)
    return said("held because", lang, what=what, terminator=quoted(whole))


def _backlog(fields: dict[str, int], lang: str) -> str:
    if not fields.get("backlog") and not fields.get("queued"):
        return said("backlog empty", lang)
    words = []
    if "backlog" in fields:
        what = count(fields["backlog"], "byte", lang)
        words.append(said("backlog", lang, what=what))
    if "queued" in fields:
        words.append(said("queued", lang, count=fields["queued"]))
    return said("comma", lang).join(words)


def _end(reason: str, lang: str) -> str:
    if reason == "full":
        return said("full", lang)
    return said("end", lang, why=readable(reason))


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # No bytes were ever so: a program may set anything.
        return text.encode("utf-8", "backslashreplace")


def _base(file: str) -> str:
    """The last part of a path of any system."""
    name = PureWindowsPath(file).name if "\\" in file else PurePosixPath(file).name
    return readable(name or file)


def _decimals(thousands: float) -> int:
    return 2 if thousands < 10_000 else 1 if thousands < 100_000 else 0


@lru_cache(4096)
def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _seen(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in _SHORT or not is_printable(character):
        return _SHORT.get(character) or character.encode("unicode_escape").decode()
    return character
