"""The messages of the text views in each language, and sentences made of them.

Rule 1: every language has every message, with the same fields.
Rule 2: names and data of the program, and units, are the same in all languages.
"""

from __future__ import annotations

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


# A message in each of LANGUAGES, with fields in braces.
MESSAGES = {
    "comma": (", ", "，"),
    "colon": (": ", "："),
    "semicolon": ("; ", "；"),
    "beside": (" ", "，"),
    "between names": (", ", "、"),
    "more names": (" and {count:,} more", "，另有 {count:,} 个"),
    # In English, count() adds the plural.
    "byte": ("{count:,} byte", "{count:,} 字节"),
    "channel": ("{count:,} channel", "{count:,} 个通道"),
    # A turn.
    "before": ("before the first turn", "第一轮之前"),
    "turn": ("turn {number}", "第 {number} 轮"),
    "checked": (
        "{loop}: interest of {channels} in {span}, ",
        "{loop} 检查了 {channels}（{span}），",
    ),
    "timeout": ("timeout {seconds:g} s", "最多等 {seconds:g} s"),
    "no timeout": ("no timeout", "不限时"),
    "thread": (", thread {number}", "，线程 {number}"),
    "interest of": ("interest {what}", "{what}"),
    "interest r": ("read", "关注可读"),
    "interest w": ("write", "关注可写"),
    "interest rw": ("read+write", "关注可读与可写"),
    "interest": ("none", "不关注读写"),
    "waiting": ("still waiting", "仍在等待"),
    "waited": ("waited {span}: {why}", "等待了 {span}：{why}"),
    "why ready": ("ready", "有通道就绪"),
    "why timer": ("a timer is due", "定时器到期"),
    "why wake-up": ("woken by another thread or a signal", "被其他线程或信号唤醒"),
    "why timeout": ("timeout", "等待超时"),
    "ready to": (" {what}: ", "；{what}："),
    "ready read": ("to read", "可读"),
    "ready write": ("to write", "可写"),
    "ready urgent": ("with urgent data", "有紧急数据"),
    "ready and": (";", ""),
    # A call.
    "flush": ("flush", "轮末发送"),
    "timer": ("timer {number}", "定时器 {number}"),
    "read": ("read {count:,}", "读入 {count:,}"),
    "sent": ("sent {count:,}", "发出 {count:,}"),
    "to": (" to {count:,}", " 发给 {count:,} 个"),
    "to other": (" to {count:,} other", " 发给另外 {count:,} 个"),
    "to others": (" to {count:,} others", " 发给另外 {count:,} 个"),
    "except": (", except {who}", "，{who} 除外"),
    "for": (" for {error}", " 处理 {error}"),
    "raises": ("raises {error}", "抛出 {error}"),
    "depth": ("depth {level}: ", "第 {level} 层："),
    # The state of a channel.
    "is": ("is {status}", "状态 {status}"),
    "is new": ("is new", "新建"),
    "is connecting": ("is connecting", "连接中"),
    "is connected": ("is connected", "已连接"),
    "is listening": ("listens", "监听中"),
    "is closing": ("closes when its queue is empty", "队列清空后关闭"),
    "is closed": ("is closed", "已关闭"),
    "addresses": ("has addresses", "地址"),
    "local": ("at {address}", "本端 {address}"),
    "peer": ("to {address}", "对端 {address}"),
    "terminator": ("terminator {what}", "终止符 {what}"),
    "size": ("terminator after {what}", "收满 {what}"),
    "no terminator": ("no terminator", "无终止符"),
    "held": ("holds back {what}", "扣住 {what}"),
    "held nothing": ("holds back nothing", "不再扣住任何字节"),
    "held because": (
        "holds back {what}: it may begin the terminator {terminator}",
        "扣住 {what}：可能是终止符 {terminator} 的开头",
    ),
    "backlog": ("backlog {what}", "积压 {what}"),
    "backlog empty": ("backlog empty", "积压已清空"),
    "queued": ("{count:,} queued", "队列中 {count:,} 项"),
    "unseen": ("state unknown: {why}", "状态未知：{why}"),
    # Other events.
    "opened": ("opened: descriptor {fd}, {kind}", "已打开：描述符 {fd}，{kind}"),
    "timer set": (
        "timer {number} set: in {seconds:g} s",
        "定时器 {number}：{seconds:g} s 之后",
    ),
    "timer cancelled": ("timer {number} cancelled", "定时器 {number} 已取消"),
    "nested turn": ("nested loop: turn {number}", "嵌套的事件循环：第 {number} 轮"),
    "full": (
        "the trace is full: later events are missing",
        "跟踪记录已满：后面的事件没有记下",
    ),
    "lost": (
        "{count:,} lines of the trace are missing here: its reader was too slow",
        "此处缺少 {count:,} 行跟踪记录：读取方太慢",
    ),
    "end": ("the trace ends: {why}", "跟踪记录结束：{why}"),
}
