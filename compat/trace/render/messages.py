"""What the views say, in each language: phrases, and sentences made of them.

Rule 1: a phrase is there in every language, with the same blanks.
Rule 2: what a program has named or said, and units, are the same in all of them.
Rule 3: whatever says something in a language has a ``lang``, one of LANGUAGES.
"""

from __future__ import annotations

from typing import NamedTuple

from compat.trace.model import Call, Event, StateChange, TracedChannel
from compat.trace.render.formatting import duration, quoted, readable, width

__all__ = [
    "LANGUAGES",
    "PHRASES",
    "Phrase",
    "became",
    "count",
    "counted",
    "happened",
    "named",
    "said",
    "title",
    "traffic",
    "wanted",
    "why",
]

LANGUAGES = ("en", "zh")


class Phrase(NamedTuple):
    """Words in each language; ``{blanks}`` are filled in."""

    en: str
    zh: str


def said(phrase: str, lang: str = "en", **values: object) -> str:
    """A phrase of PHRASES in one of LANGUAGES, filled in."""
    words: str = getattr(PHRASES[phrase], lang)
    return words.format(**values) if values else words


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


def count(number: float, thing: str, lang: str = "en") -> str:
    """``1 byte``, ``4,096 bytes``; in other languages, only bytes and channels."""
    things = f"{number:,} {thing}{'' if number == 1 else 's'}"
    return things if lang == "en" else said(thing, lang, count=number)


def title(call: Call, lang: str = "en") -> str:
    """What is called, for people: ``push``, ``timer 3: resume_accepting``."""
    name = readable(call.name)
    if "to" in call.fields and call.channel is None:
        name = f"Audience.{name}"
    if call.name == "timer" and isinstance(call.fields.get("id"), int):
        name = said("timer", lang, number=call.fields["id"])
    if call.name == "turn ends":
        name = said("turn ends", lang)
    if call.code is not None and call.name in ("timer", "soon"):
        name += said("colon", lang) + readable(call.code.name)
    return name


def traffic(call: Call, lang: str = "en") -> str:
    """What went through the channel's socket: ``read 5``, ``sent 4``, or ""."""
    read = said("read", lang, count=call.received) if call.received else ""
    sent = said("sent", lang, count=call.sent) if call.sent else ""
    return said("comma", lang).join(filter(None, (read, sent)))


def why(reason: str, lang: str = "en") -> str:
    """Why a wait was over."""
    return _said_of("why", reason, lang) or readable(reason)


def became(state: StateChange, lang: str = "en") -> list[str]:
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
    return (
        became(event, lang) if isinstance(event, StateChange) else [_did(event, lang)]
    )


def wanted(reads: object, writes: object, lang: str = "en") -> str:
    """An interest."""
    return said(f"wanted {'r' * bool(reads)}{'w' * bool(writes)}".rstrip(), lang)


def named(channel: TracedChannel) -> str:
    """A channel's name, which a program may have made of anything."""
    return readable(channel.name)


def _did(event: Event, lang: str) -> str:
    fields = event.fields
    if event.kind == "open":
        kind = f"{fields.get('module', '')}.{fields.get('class', '?')}".lstrip(".")
        fd = fields.get("fd", "?")
        return said("opened", lang, fd=fd, kind=readable(kind))
    if event.kind == "interest":
        what = wanted(fields.get("r"), fields.get("w"), lang)
        return said("wants", lang, what=what)
    if event.kind == "timer":
        number, after = fields.get("id", "?"), fields.get("in")
        if after is None:
            return said("timer cancelled", lang, number=number)
        return said("timer set", lang, number=number, seconds=after)
    if event.kind == "turn":
        return said("inner turn", lang, number=fields.get("n", "?"))
    if event.kind == "woke":
        span, reason = duration(fields.get("waited", 0)), fields.get("why", "")
        return said("waited", lang, span=span, why=why(reason, lang))
    if event.kind == "lost":
        return said("lost", lang, count=fields.get("n") or 0)
    if event.kind == "end":
        return _end(fields.get("why", ""), lang)
    return readable(event.kind)


def _said_of(kind: str, what: str, lang: str) -> str:
    """A phrase of a kind; "" for what a trace has that there is no phrase for."""
    phrase = f"{kind} {what}"
    return said(phrase, lang) if phrase in PHRASES else ""


def _status(state: StateChange, lang: str) -> str:
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


def _held(state: StateChange, lang: str) -> str:
    size, terminator = state.fields["held"], state.terminator
    if not size:
        return said("held nothing", lang)
    if state.held_bytes is None:
        return said("held", lang, what=count(size, "byte", lang))
    what = quoted(state.held_bytes)
    whole = _bytes(terminator) if isinstance(terminator, str) else b""
    if not whole.startswith(state.held_bytes):
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


PHRASES = {
    # Between things.
    "comma": Phrase(", ", "，"),
    "colon": Phrase(": ", "："),
    "semicolon": Phrase("; ", "；"),
    "beside": Phrase(" ", "，"),
    "between names": Phrase(", ", "、"),
    "more names": Phrase(" and {count:,} more", "，另有 {count:,} 个"),
    # Numbers; in English, count() knows of more than one.
    "byte": Phrase("{count:,} byte", "{count:,} 字节"),
    "channel": Phrase("{count:,} channel", "{count:,} 个通道"),
    # A turn.
    "before": Phrase("before the first turn", "第一轮之前"),
    "turn": Phrase("turn {number}", "第 {number} 轮"),
    "asked": Phrase(
        "{by} asked {channels} in {span}, ", "{by} 询问了 {channels}（{span}），"
    ),
    "limit": Phrase("may wait {seconds:g} s", "最多等 {seconds:g} s"),
    "no limit": Phrase("may wait without limit", "不限时"),
    "thread": Phrase(", thread {number}", "，线程 {number}"),
    "wants": Phrase("wants {what}", "{what}"),
    "wanted r": Phrase("to read", "关注可读"),
    "wanted w": Phrase("to write", "关注可写"),
    "wanted rw": Phrase("to read and to write", "关注可读与可写"),
    "wanted": Phrase("nothing", "不关注读写"),
    "waits": Phrase("waits still", "仍在等待"),
    "waited": Phrase("waited {span}: {why}", "等待了 {span}：{why}"),
    "why ready": Phrase("ready", "有通道就绪"),
    "why timer": Phrase("a timer is due", "定时器到期"),
    "why wake-up": Phrase("another thread or a signal woke it", "被其他线程或信号唤醒"),
    "why timeout": Phrase("nothing happened in that time", "其间什么都没有发生"),
    "ready to": Phrase(" {what}: ", "；{what}："),
    "ready read": Phrase("to read", "可读"),
    "ready write": Phrase("to write", "可写"),
    "ready urgent": Phrase("with urgent data", "有紧急数据"),
    "ready and": Phrase(";", ""),
    # A call.
    "turn ends": Phrase("turn ends", "本轮结束"),
    "timer": Phrase("timer {number}", "定时器 {number}"),
    "read": Phrase("read {count:,}", "读入 {count:,}"),
    "sent": Phrase("sent {count:,}", "发出 {count:,}"),
    "to": Phrase(" to {count:,}", " 发给 {count:,} 个"),
    "to other": Phrase(" to {count:,} other", " 发给另外 {count:,} 个"),
    "to others": Phrase(" to {count:,} others", " 发给另外 {count:,} 个"),
    "but": Phrase(", not {who}", "，不含 {who}"),
    "for": Phrase(" for {error}", " 处理 {error}"),
    "raises": Phrase("raises {error}", "抛出 {error}"),
    "deep": Phrase("{level} deep: ", "第 {level} 层："),
    # What a channel has become.
    "is": Phrase("is {status}", "状态 {status}"),
    "is new": Phrase("is new", "新建"),
    "is connecting": Phrase("is connecting", "连接中"),
    "is connected": Phrase("is connected", "已连接"),
    "is listening": Phrase("listens", "监听中"),
    "is closing": Phrase("closes when its queue is empty", "队列清空后关闭"),
    "is closed": Phrase("is closed", "已关闭"),
    "addresses": Phrase("has addresses", "有了地址"),
    "local": Phrase("at {address}", "本端 {address}"),
    "peer": Phrase("to {address}", "对端 {address}"),
    "awaits": Phrase("waits for {what}", "终止符 {what}"),
    "awaits bytes": Phrase("waits for {what}", "等待 {what}"),
    "awaits nothing": Phrase("waits for no terminator", "无终止符"),
    "held": Phrase("holds back {what}", "扣住 {what}"),
    "held nothing": Phrase("holds nothing back any more", "不再扣住任何字节"),
    "held because": Phrase(
        "holds back {what}: it may begin the terminator {terminator}",
        "扣住 {what}：可能是终止符 {terminator} 的开头",
    ),
    "backlog": Phrase("backlog {what}", "积压 {what}"),
    "backlog empty": Phrase("backlog empty", "积压已清空"),
    "queued": Phrase("{count:,} in its queue", "队列中 {count:,} 项"),
    "unseen": Phrase("cannot be looked at: {why}", "无法查看：{why}"),
    # Whatever else has happened.
    "opened": Phrase(
        "is opened: descriptor {fd}, {kind}", "已打开：描述符 {fd}，{kind}"
    ),
    "timer set": Phrase(
        "timer {number} is set: in {seconds:g} s", "定时器 {number}：{seconds:g} s 之后"
    ),
    "timer cancelled": Phrase("timer {number} is cancelled", "定时器 {number} 已取消"),
    "inner turn": Phrase(
        "turns a loop inside of this: turn {number}",
        "在此调用内部又运行了事件循环：第 {number} 轮",
    ),
    "full": Phrase(
        "the trace is full: there was more", "跟踪记录已满：后面还有，没有记下"
    ),
    "lost": Phrase(
        "{count:,} lines of the trace are missing here: the reader was too slow",
        "此处缺少 {count:,} 行跟踪记录：读取方太慢",
    ),
    "end": Phrase("the trace ends: {why}", "跟踪记录结束：{why}"),
}
