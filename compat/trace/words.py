"""What a trace has, in words: for a terminal, a diagram, a time line.

Rule 1: what a program or its peers wrote neither steers a terminal nor ends a line:
what cannot be seen is escaped, so that two different things never look the same.
Rule 2: text of a trace may hold U+DC80 to U+DCFF, bytes that are not UTF-8. They leave
here as ``\\xff``, so what leaves here can be encoded.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath, PureWindowsPath

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

WHY = {
    "ready": "ready",
    "timer": "a timer is due",
    "wake-up": "another thread or a signal woke it",
    "timeout": "nothing happened in that time",
}

STATUS = {
    "new": "is new",
    "connecting": "is connecting",
    "connected": "is connected",
    "listening": "listens",
    "closing": "closes when its queue is empty",
    "closed": "is closed",
}

# What is written otherwise in a string of Python, too.
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def readable(text: str) -> str:
    """*text* on one line, with escapes for what cannot be seen, and for ``\\``."""
    if text.isprintable() and "\\" not in text:
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


def counted(data: bytes, size: int | None = None, columns: int = 1 << 30) -> str:
    """As quoted, with its size where that cannot be seen: ``"用户", 6 bytes``."""
    size = len(data) if size is None else size
    text = quoted(data, size)
    if data.isascii() and size <= len(data) and len(text) <= columns:
        return text
    after = f", {count(size, 'byte')}"
    return quoted(data, size, columns - len(after)) + after


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


def count(number: float, thing: str) -> str:
    """``1 byte``, ``4,096 bytes``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


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


def title(call: Call) -> str:
    """What is called, for people: ``push``, ``timer 3: resume_accepting``."""
    name = readable(call.do)
    if "to" in call.fields and call.channel is None:
        name = f"Audience.{name}"
    if call.do == "timer" and isinstance(call.fields.get("id"), int):
        name = f"timer {call.fields['id']}"
    if call.code is not None and call.do in ("timer", "soon"):
        name += f": {readable(call.code.do)}"
    return name


def traffic(call: Call) -> str:
    """What went through the channel's socket: ``read 5``, ``sent 4``, or ""."""
    read = f"read {call.taken:,}" if call.taken else ""
    sent = f"sent {call.given:,}" if call.given else ""
    return ", ".join(filter(None, (read, sent)))


def why(reason: str) -> str:
    """Why a wait was over."""
    return WHY.get(reason, readable(reason))


def became(state: State) -> list[str]:
    """What a state says, a few words for each thing."""
    fields, said = state.fields, []
    if "is" in fields or "local" in fields or "peer" in fields:
        said.append(_status(state))
    if "terminator" in fields:
        said.append(f"waits for {_awaited(fields['terminator'])}")
    if "held" in fields:
        said.append(_held(state))
    if "backlog" in fields or "queued" in fields:
        said.append(_backlog(fields))
    if "unseen" in fields:
        said.append(f"cannot be looked at: {readable(fields['unseen'])}")
    return said


def happened(event: Event) -> list[str]:
    """As became, of any event."""
    fields = event.fields
    if isinstance(event, State):
        return became(event)
    if event.what == "open":
        kind = f"{fields.get('module', '')}.{fields.get('class', '?')}".lstrip(".")
        return [f"is opened: descriptor {fields.get('fd', '?')}, {readable(kind)}"]
    if event.what == "interest":
        return [f"wants {wanted(fields.get('r'), fields.get('w'))}"]
    if event.what == "timer":
        after = fields.get("in")
        then = "is cancelled" if after is None else f"is set: in {after:g} s"
        return [f"timer {fields.get('id', '?')} {then}"]
    if event.what == "turn":
        return [f"turns a loop inside of this: turn {fields.get('n', '?')}"]
    if event.what == "woke":
        waited = duration(fields.get("waited", 0))
        return [f"waited {waited}: {why(fields.get('why', ''))}"]
    if event.what == "end":
        return [_end(fields.get("why", ""))]
    return [readable(event.what)]


def wanted(reads: object, writes: object) -> str:
    """An interest."""
    wants = [name for name, on in (("to read", reads), ("to write", writes)) if on]
    return " and ".join(wants) or "nothing"


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


def _status(state: State) -> str:
    fields = state.fields
    status = fields.get("is", "")
    said = STATUS.get(status, f"is {readable(status)}" if status else "has addresses")
    ends = [f"at {fields['local']}"] if fields.get("local") else []
    ends += [f"to {fields['peer']}"] if fields.get("peer") else []
    return " ".join([said, *map(readable, ends)])


def _awaited(terminator: str | int | None) -> str:
    if isinstance(terminator, str):
        return quoted(_bytes(terminator)) if terminator else "no terminator"
    return count(terminator, "byte") if terminator else "no terminator"


def _held(state: State) -> str:
    size, terminator = state.fields["held"], state.terminator
    if not size:
        return "holds nothing back any more"
    what = count(size, "byte") if state.holds is None else quoted(state.holds)
    whole = _bytes(terminator) if isinstance(terminator, str) else b""
    if state.holds is None or not whole.startswith(state.holds):
        return f"holds back {what}"
    return f"holds back {what}: it may begin the terminator {quoted(whole)}"


def _backlog(fields: dict[str, int]) -> str:
    if not fields.get("backlog") and not fields.get("queued"):
        return "backlog empty"
    said = []
    if "backlog" in fields:
        said.append(f"backlog {count(fields['backlog'], 'byte')}")
    if "queued" in fields:
        said.append(f"{fields['queued']:,} in its queue")
    return ", ".join(said)


def _end(reason: str) -> str:
    if reason == "full":
        return "the trace is full: there was more"
    return f"the trace ends: {readable(reason)}"


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
    if character in _SHORT or not character.isprintable():
        return _SHORT.get(character) or character.encode("unicode_escape").decode()
    return character
