"""What the text of a trace says, in each language.

Rule 1: a phrase is there in every language, with the same blanks.
Rule 2: what a program has named or said, and units, are the same in all of them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LANGUAGES", "PHRASES", "Phrase", "said"]

LANGUAGES = ("en", "zh")


class Phrase(NamedTuple):
    """Words in each language; ``{blanks}`` are filled in."""

    en: str
    zh: str


def said(phrase: str, lang: str = "en", **values: object) -> str:
    """A phrase of PHRASES in one of LANGUAGES, filled in."""
    words: str = getattr(PHRASES[phrase], lang)
    return words.format(**values) if values else words


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
