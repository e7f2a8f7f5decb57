"""A lesson that has been played, for people: what happened beside what made it happen.

Rule 1: what is printed as having happened comes from the trace, or from what the peers
got. Code comes from the files that ran.
Rule 2: a turn like the one before it is counted, not shown. Of more turns that differ,
the first two and the last two are shown.
Rule 3: it fits into the columns that there are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from compat.trace.model import Call, Entry, Event, TracedChannel, Turn
from compat.trace.render.formatting import clip
from compat.trace.render.messages import title
from legacy_chat.baseline.report.text import readable, width
from legacy_chat.lessons.engine.cjk_wrap import (
    MIDDLE,
    beside,
    code_wrapped,
    filled,
    folded,
    spaced,
)
from legacy_chat.lessons.engine.harness import Note, user_of
from legacy_chat.lessons.engine.lesson import Excerpt, Lesson, Seen, Text
from legacy_chat.lessons.engine.runner import Scene

__all__ = ["WORDS", "Show"]

# Columns that are used at most, and at least: a narrower terminal wraps what it gets.
WIDEST = 116
LEAST = 40

# Columns of what happened beside code, unless the code leaves more.
LEFT = 42

# What code below begins with.
BELOW = "    "

# Where code has so many, it stands beside what happened even if a line of it has to be
# broken for that. Where it has fewer, and one had to be, it stands below.
ROOM = 60

# Characters of what somebody says or gets that are shown; of more, so many.
WORDS_SHOWN = 48
BEGINNING = 9

# Of more turns, those in the middle are left out; likewise lines of a turn.
MANY_TURNS = 5
MANY_CALLS = 20

# What is done before a turn; all other notes are what has come of one.
DONE_BEFORE = ("inside", "comes", "says", "drops")

# Of more names, the first and the last are shown.
MANY_NAMES = 3

# Columns of a line that the room prints, or writes to its log.
SAID = 72

NAMES = {
    "ann": Text("Ann", "甲"),
    "bob": Text("Bob", "乙"),
    "cid": Text("Cid", "丙"),
    "dan": Text("Dan", "丁"),
    "eve": Text("Eve", "戊"),
    "fay": Text("Fay", "己"),
    "gil": Text("Gil", "庚"),
}

NOTES = {
    "inside": Text("({who} in the room)", "（聊天室里有{who}）"),
    "comes": Text("{who} connects", "{who}连接"),
    "says": Text("{who} says {data}", "{who}说 {data}"),
    "hears": Text("{who} gets {data}", "{who}收到 {data}"),
    "ends": Text("{who} sees the end", "{who}看到连接结束"),
    "drops": Text("{who} hangs up", "{who}挂断"),
    "prints": Text("the server prints {data}", "服务器打印 {data}"),
    "logs": Text("the log says {data}", "日志：{data}"),
}

WORDS = {
    "lesson": Text("Lesson {number}: {title}", "第 {number} 课：{title}"),
    "loop": Text("on the loop {loop}", "循环：{loop}"),
    "turn": Text("turn {number}: {ready}", "第 {number} 轮：{ready}"),
    "read": Text("{who} can be read", "{who}可读"),
    "write": Text("{who} can be written to", "{who}可写"),
    "urgent": Text("{who} has urgent data", "{who}有紧急数据"),
    "nobody": Text("nobody is ready", "没有通道就绪"),
    "raised": Text("raises {error}", "抛出 {error}"),
    "handles": Text("for {error}", "处理 {error}"),
    "held": Text("held back: {count}", "扣住：{count}"),
    "backlog": Text("backlog: {count}", "积压：{count}"),
    "of": Text("{who}: {does}", "{who}：{does}"),
    "turn ends": Text("turn ends", "本轮结束"),
    "wants": Text("interest of {who}: {what}", "{who}关注：{what}"),
    "wants r": Text("read", "可读"),
    "wants w": Text("write", "可写"),
    "wants nothing": Text("none", "无"),
    "item": Text(", ", "、"),
    "and": Text(" and ", "、"),
    "comma": Text(", ", "，"),
    "guest": Text("guest", "客人"),
    "is": Text("{who} is {state}", "{who}：{state}"),
    "more turns": Text("… {count} more turns …", "……中间还有 {count} 轮……"),
    "like it": Text("… {count} more like it …", "……同样的还有 {count} 轮……"),
    "more calls": Text("… {count} more calls …", "……还有 {count} 次调用……"),
    "byte": Text("{count} byte", "{count} 字节"),
    "bytes": Text("{count:,} bytes", "{count:,} 字节"),
    "no source": Text("(its source is not installed)", "（没有安装源代码）"),
    "trace": Text("The trace", "跟踪记录"),
    "named": Text("{who} is {channel}", "{who}是 {channel}"),
    "more trace": Text(
        "… {count} more lines: --trace FILE keeps all of it, --html FILE shows it",
        "……还有 {count} 行：--trace FILE 保存全部，--html FILE 生成网页",
    ),
    "question": Text("Question", "提问"),
    "answer": Text("Answer", "答案"),
    "go on": Text("[Space or Enter: go on, q: quit] ", "［空格或回车：继续，q：退出］"),
    "enter": Text(
        "[Space or Enter: the answer, q: quit] ", "［空格或回车：看答案，q：退出］"
    ),
    "remember": Text("To remember", "记住"),
    "other": Text(
        "On another loop, it ends otherwise: legacy-chat lesson {number} --loop {loop}",
        "换一种循环，结局就不同：legacy-chat lesson {number} --loop {loop}",
    ),
    "next": Text(
        "Next: legacy-chat lesson {number}", "下一课：legacy-chat lesson {number}"
    ),
    "false": Text("NOT TRUE HERE: ", "在这里不成立："),
    "written": Text("{what}: {path}", "{what}：{path}"),
    "page": Text("The page", "网页"),
}

# A channel's state, as the trace has it.
STATES = {
    "new": Text("new", "新建"),
    "connecting": Text("connecting", "连接中"),
    "connected": Text("connected", "已连接"),
    "listening": Text("listening", "监听中"),
    "closing": Text("closing", "即将关闭"),
    "closed": Text("closed", "已关闭"),
}


class Row(NamedTuple):
    """A line of what happened.

    Attributes:
        call: the call that it is.
        is_once: a later turn without it still looks like this one.
    """

    text: str
    call: str = ""
    is_once: bool = False


class Block:
    """A turn as it is told, with the notes that belong to it.

    Attributes:
        before, rows, after: what was done for it; the turn; what has come of it.
        alike: how many turns follow that look like it.
    """

    def __init__(self, number: int, rows: list[Row]) -> None:
        self.number = number
        self.rows = rows
        self.before: list[Row] = []
        self.after: list[Row] = []
        self.alike = 0

    def looks_like(self, other: Block) -> bool:
        """Return whether it differs from an earlier *other* in figures only."""
        return _figureless(self._all()) in (
            _figureless(other._all()),
            _figureless(row for row in other._all() if not row.is_once),
        )

    def _all(self) -> list[Row]:
        return [*self.before, *self.rows, *self.after]


class Show:
    """How a played lesson is told.

    Args:
        lang: one of LANGUAGES.
        columns: of the terminal.
    """

    def __init__(self, lang: str, columns: int) -> None:
        self.lang = lang
        self.columns = max(min(columns, WIDEST), LEAST)

    def word(self, name: str, **values: object) -> str:
        """A phrase of WORDS, filled in."""
        return self._filled_in(WORDS[name], "", **values)

    def title(self, number: int, lesson: Lesson) -> str:
        """What a lesson is called."""
        return self.word("lesson", number=number, title=lesson.title.said_in(self.lang))

    def head(self, number: int, lesson: Lesson, loop: str) -> Iterator[str]:
        """The title, and what it is about."""
        title = self.title(number, lesson)
        loop = self.word("loop", loop=loop)
        gap = self.columns - width(title) - width(loop)
        if gap >= 2:
            yield f"{title}{' ' * gap}{loop}"
        else:
            yield from (*self.lines(title), loop)
        yield "═" * self.columns
        yield from self.prose(lesson.begins)

    def step(self, number: int, scene: Scene) -> Iterator[str]:
        """A step, from what is done to what is claimed."""
        yield ""
        yield f"── {number} " + "─" * (self.columns - 5)
        yield from self.scene(scene)

    def scene(self, scene: Scene) -> Iterator[str]:
        """What is said of a step, what happened, and what is claimed."""
        yield from self.prose(scene.step.text)
        yield ""
        yield from self._happened(scene)
        yield ""
        for claim, holds in scene.claims():
            text = claim.text.said_in(self.lang)
            text = text if holds else self.word("false") + text
            first, *rest = filled(text, self.columns - 4)
            yield f"  {'✓' if holds else '✗'} {first}"
            yield from ("    " + line for line in rest)

    def prose(self, text: Text) -> Iterator[str]:
        """A text, in lines."""
        for at, paragraph in enumerate(text.said_in(self.lang).split("\n\n")):
            if at:
                yield ""
            yield from self.lines(paragraph)

    def lines(self, text: str) -> list[str]:
        """One paragraph, in lines."""
        return filled(text, self.columns)

    def named(self, channels: Iterable[TracedChannel], seen: Seen) -> list[str]:
        """Who has which of these channels, in lines; none, if nobody has."""
        who = [
            self.word("named", who=self._name(peer), channel=channel.name)
            for channel in channels
            if (peer := seen.peer_of(channel))
        ]
        return self.lines(self.word("comma").join(who)) if who else []

    def _happened(self, scene: Scene) -> Iterator[str]:
        rows = list(self._rows(scene))
        code = [
            excerpt
            for excerpt in scene.step.code
            if scene.seen.loop in (excerpt.loops or (scene.seen.loop,))
        ]
        texts = [row.text for row in rows]
        left, room = self._divided(texts, code)
        if not room:
            yield from folded(texts, self.columns)
            yield from self._below(code)
            return
        for part, excerpts in _matched(rows, code):
            lines = self._code(excerpts, room)
            yield from beside([row.text for row in part], lines, left)

    def _divided(self, rows: list[str], code: list[Excerpt]) -> tuple[int, int]:
        """Columns for what happened and for code; 0 if there is none beside it."""
        widest = max(map(width, self._code(code, WIDEST)), default=0)
        all_but = self.columns - len(MIDDLE)
        left = min(max(map(width, rows), default=0), max(LEFT, all_but - widest))
        room = all_but - left
        return left, room if widest and room >= min(widest, ROOM) else 0

    def _below(self, code: list[Excerpt]) -> Iterator[str]:
        for excerpt in code:
            yield ""
            lines = self._code([excerpt], self.columns - len(BELOW))
            yield from (BELOW + line for line in lines)

    def _code(self, excerpts: list[Excerpt], columns: int) -> Iterator[str]:
        for excerpt in excerpts:
            yield from filled(excerpt.name, columns, BELOW)
            try:
                lines = excerpt.lines()
            except OSError:
                yield self.word("no source")
                continue
            for number, text in lines:
                first, *rest = code_wrapped(text, columns - 6)
                yield f"{number or '':>4}  {first}".rstrip()
                yield from (" " * 6 + part for part in rest)

    def _filled_in(self, text: Text, data: str, **values: object) -> str:
        """*data* as it is; and in Chinese, spaces where it meets another script."""
        said = text.said_in(self.lang).format(data="\0", **values)
        said = spaced(said) if self.lang == "zh" else said
        return said.replace("\0", data)

    # What happened.

    def turns_like_others(self, scene: Scene) -> set[int]:
        """Return the numbers of the turns that are counted, not shown."""
        shown = {block.number for block in self._blocks(scene)}
        return {turn.number for turn in scene.seen.turns} - shown

    def _rows(self, scene: Scene) -> Iterator[Row]:
        """Notes and turns, in their order."""
        blocks = self._blocks(scene)
        hidden = _middle(len(blocks), MANY_TURNS, 2)
        for at, block in enumerate(blocks):
            if at not in hidden:
                yield from (*block.before, *block.rows, *block.after)
                if block.alike:
                    yield Row(self.word("like it", count=block.alike))
            elif at == hidden[0]:
                count = sum(1 + blocks[each].alike for each in hidden)
                yield Row(self.word("more turns", count=count))

    def _blocks(self, scene: Scene) -> list[Block]:
        """The turns of a scene, those that look alike together."""
        seen = scene.seen
        told = [Block(each.number, list(self._turn(each, seen))) for each in seen.turns]
        # What is done after the last turn, or without any.
        told.append(Block(scene.last + 1, []))
        notes = list(scene.notes)
        for block, following in itertools.pairwise(told):
            while notes and notes[0].turn < block.number:
                block.before.append(self._note(notes.pop(0), seen))
            while (
                notes
                and notes[0].turn < following.number
                and notes[0].what not in DONE_BEFORE
            ):
                block.after.append(self._note(notes.pop(0), seen))
        told[-1].before = [self._note(note, seen) for note in notes]
        blocks: list[Block] = []
        for block in told:
            if blocks and block.rows and block.looks_like(blocks[-1]):
                blocks[-1].alike += 1
            elif block.rows or block.before:
                blocks.append(block)
        return blocks

    def _note(self, note: Note, seen: Seen) -> Row:
        if note.what in ("prints", "logs"):
            data = clip(self._with_names(readable(note.data), seen), SAID)
        else:
            data = self._data(note.data, None, seen)
        who = self._names([self._name(each) for each in note.who.split(",")])
        told = self._filled_in(NOTES[note.what], data, who=who)
        return Row(told, is_once=note.what == "inside")

    def _turn(self, turn: Turn, seen: Seen) -> Iterator[Row]:
        ready = [
            self.word(
                how, who=self._names([self._who(each, seen) for each in channels])
            )
            for how in ("read", "write", "urgent")
            if (channels := getattr(turn, how))
        ]
        said = self.word("comma").join(ready) or self.word("nobody")
        yield Row(self.word("turn", number=turn.number, ready=said))
        for event in turn.interests:
            yield Row("  " + self._interest(event, seen), is_once=True)
        rows = [
            row
            for entry in turn.entries
            if entry.channel not in _made_between(turn)
            for row in self._entry(entry, None, seen)
        ]
        hidden = _middle(len(rows), MANY_CALLS, 6)
        for at, row in enumerate(rows):
            if at not in hidden:
                yield row
            elif at == hidden[0]:
                yield Row("    " + self.word("more calls", count=len(hidden)))

    def _entry(
        self, entry: Entry, inside: TracedChannel | None, seen: Seen
    ) -> Iterator[Row]:
        """A call and what happened in it; *inside* is whose call it is in."""
        indent = "  " * (entry.depth + 1)
        if isinstance(entry, Call):
            other = entry.channel is not None and entry.channel is not inside
            yield Row(indent + self._call(entry, other, seen), entry.name)
            for inner in entry.children:
                yield from self._entry(inner, entry.channel or inside, seen)
        elif entry.kind == "state":
            for said in self._state(entry, seen):
                yield Row(indent + said)

    def _call(self, call: Call, other: bool, seen: Seen) -> str:
        does = self.word(call.name) if call.name in WORDS else title(call)
        if other and call.channel is not None:
            does = self.word("of", who=self._who(call.channel, seen), does=does)
        parts = [does]
        if call.data:
            size = call.received or call.sent if call.size is None else call.size
            parts.append(self._data(call.data, size, seen))
        if call.error:
            # What handle_error is called for, and does not raise.
            how = "handles" if call.name == "handle_error" else "raised"
            parts.append(self.word(how, error=call.error.partition(":")[0]))
        return " ".join(parts)

    def _state(self, event: Event, seen: Seen) -> Iterator[str]:
        for name in ("held", "backlog"):
            if name in event.fields:
                yield self.word(name, count=self._count(event.fields[name]))
        state = STATES.get(event.fields.get("is", ""))
        if state is not None and event.channel is not None:
            who = self._who(event.channel, seen)
            yield self.word("is", who=who, state=state.said_in(self.lang))

    def _interest(self, event: Event, seen: Seen) -> str:
        wants = [self.word(f"wants {each}") for each in "rw" if event.fields.get(each)]
        what = self.word("and").join(wants) or self.word("wants nothing")
        who = self._who(event.channel, seen) if event.channel else "?"
        return self.word("wants", who=who, what=what)

    def _data(self, data: bytes, size: int | None, seen: Seen) -> str:
        """Bytes, with names in the place of addresses; the first, if there are many."""
        text = self._with_names(readable(data), seen)
        size = len(data) if size is None else size
        if len(text) <= WORDS_SHOWN and size == len(data):
            return f'"{text}"'
        return f'"{text[:BEGINNING]}…" ({self._count(size)})'

    def _with_names(self, text: str, seen: Seen) -> str:
        """Whom the room calls by address, by name."""
        for name, port in seen.ports.items():
            text = text.replace(user_of(port), f"用户{{{self._name(name)}}}")
        return text

    def _count(self, size: int) -> str:
        return self.word("byte" if size == 1 else "bytes", count=size)

    def _who(self, channel: TracedChannel, seen: Seen) -> str:
        peer = seen.peer_of(channel)
        return self._name(peer) if peer else channel.class_name

    def _names(self, names: list[str]) -> str:
        if len(names) > MANY_NAMES:
            names = [f"{names[0]} … {names[-1]}"]
        return self._listed(names)

    def _listed(self, things: list[str]) -> str:
        """``Ann``, ``Ann and Bob``, ``Ann, Bob and Cid``."""
        *others, last = things
        others = [self.word("item").join(others)] if others else []
        return self.word("and").join([*others, last])

    def _name(self, who: str) -> str:
        if who in NAMES:
            return NAMES[who].said_in(self.lang)
        return who.replace("guest", self.word("guest"))


def _figureless(rows: Iterable[Row]) -> str:
    return re.sub(r"[0-9,]+", "0", "\n".join(row.text for row in rows))


def _made_between(turn: Turn) -> list[TracedChannel]:
    """What no callback has made: the scenario has, for what comes next."""
    return [
        entry.channel
        for entry in turn.entries
        if not isinstance(entry, Call) and entry.kind == "open" and entry.channel
    ]


def _middle(count: int, most: int, ends: int) -> range:
    """Which of so many are left out, if they are more than *most*."""
    return range(ends, count - ends) if count > most else range(0)


def _matched(
    rows: list[Row], code: list[Excerpt]
) -> Iterator[tuple[list[Row], list[Excerpt]]]:
    """What happened, divided where code belongs beside it."""
    left = list(code)
    part: list[Row] = []
    found = [excerpt for excerpt in left if not excerpt.beside]
    left = [excerpt for excerpt in left if excerpt.beside]
    for row in rows:
        begun = [excerpt for excerpt in left if row.call and excerpt.beside == row.call]
        if begun:
            if part or found:
                yield part, found
            part, found = [], begun
            left = [excerpt for excerpt in left if excerpt not in begun]
        part.append(row)
    yield part, found + left
