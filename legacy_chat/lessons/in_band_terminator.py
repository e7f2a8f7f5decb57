"""Lesson 3: ``shout`` ends the session."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Seen, Step, Text

__all__ = ["LESSON"]

QUIT = b"/quit\r\n"


def shout(stage: Stage) -> None:
    stage.open_room()
    ann, bob = stage.enter("ann"), stage.enter("bob")
    stage.begin()
    ann.say("I shout")
    stage.turn_until(lambda: stage.session(ann) is None)
    ann.hear_end()
    bob.hear("退出聊天")
    stage.facts["clients"] = [each.user for each in stage.room.clients]
    stage.facts["bob"] = [bob.user]


def shout_elsewhere(stage: Stage) -> None:
    stage.open_room(terminator=QUIT)
    cid, dan = stage.enter("cid"), stage.enter("dan")
    stage.begin()
    cid.say("I shout")
    stage.turn()
    cid.hear("I shout")
    dan.hear("说:I shout")
    cid.say(QUIT)
    stage.turn_until(lambda: stage.session(cid) is None)
    cid.hear_end()
    dan.hear("退出聊天")


def say_more(stage: Stage) -> None:
    stage.open_room()
    eve, fay = stage.enter("eve"), stage.enter("fay")
    stage.begin()
    eve.say("Log out? No!")
    stage.turn_until(lambda: stage.session(eve) is None)
    eve.hear_end()
    fay.hear("说:? No!")


def whats_done(seen: Seen) -> list[str]:
    """The two callbacks of asynchat, in the order of their calls."""
    kinds = ("collect_incoming_data", "found_terminator")
    calls = [call for turn in seen.turns for call in turn.calls()]
    calls.sort(key=lambda call: call.line)
    return [call.name for call in calls if call.name in kinds]


LEAVES = Excerpt(
    "legacy_chat.session:ChatSession.found_terminator",
    ('say("accept close")', 'self.finish("out")'),
    beside="found_terminator",
)

LESSON = Lesson(
    Text("`shout` ends the session", "`shout` 结束了会话"),
    Text(
        "Lesson 2 has shown that the terminator is looked for in a stream, not in "
        "words. So it is found wherever its bytes are.",
        "上一课看到：终止符是在字节流里找的，不是在“单词”里找的。"
        "因此它的字节出现在哪里，就在哪里被找到。",
    ),
    (
        Step(
            Text(
                "Ann says `I shout`. `I sh` stands before `out` and is collected; then "
                "`found_terminator` is called, and the room takes its leave of her: "
                "`close_when_done` lets her have what is queued, and closes then.",
                "甲说 `I shout`。`out` 前面的 `I sh` 被收集，接着回调 "
                "`found_terminator`，聊天室就当甲要走：`close_when_done` "
                "先把排队的数据发完，再关闭连接。",
            ),
            shout,
            (
                Excerpt(
                    "compat.chat:async_chat._compat_collect",
                    ("elif (end := read.find", "self.found_terminator()"),
                    beside="collect_incoming_data",
                ),
                LEAVES,
                Excerpt(
                    "legacy_chat.session:ChatSession.finish",
                    ("self._leave()", "self.close_when_done()"),
                    beside="found_terminator",
                ),
            ),
            (
                Claim(
                    Text(
                        "`collect_incoming_data`, then `found_terminator`: one read, "
                        "two callbacks.",
                        "先 `collect_incoming_data`，后 `found_terminator`："
                        "一次读取，两个回调。",
                    ),
                    lambda seen: (
                        whats_done(seen)
                        == ["collect_incoming_data", "found_terminator"]
                    ),
                ),
                Claim(
                    Text(
                        "Ann gets the echo `I sh`, whole, and then the end.",
                        "甲先完整收到回显 `I sh`，然后连接才结束。",
                    ),
                    lambda seen: seen.heard["ann"] == b"I sh" and seen.ended == {"ann"},
                ),
                Claim(
                    Text(
                        "Only Bob is left in the room, and the server has printed "
                        "`accept close`.",
                        "聊天室里只剩下乙，服务器打印了 `accept close`。",
                    ),
                    lambda seen: (
                        seen.facts["clients"] == seen.facts["bob"]
                        and "accept close" in seen.printed
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Another room, whose terminator nobody says by accident: `/quit` at "
                "the end of a line. Here a shout is a shout.",
                "换一个聊天室，用一个谁都不会随口说出来的终止符：`/quit` 加换行。"
                "在这里，shout 就只是 shout。",
            ),
            shout_elsewhere,
            (Excerpt("legacy_chat.session:ChatSession._keep", "set_terminator"),),
            (
                Claim(
                    Text(
                        "Dan hears `I shout`; and `/quit` ends the session.",
                        "丁听到了完整的 `I shout`；说 `/quit` 才会结束会话。",
                    ),
                    lambda seen: (
                        seen.heard["cid"] == b"I shout"
                        and " 说:I shout" in seen.heard["dan"].decode()
                        and seen.ended == {"cid"}
                        and whats_done(seen)
                        == ["collect_incoming_data", "found_terminator"]
                    ),
                ),
            ),
        ),
    ),
    Text(
        "Back in the first kind of room, Eve says `Log out? No!` in one go. What "
        "becomes of `? No!`, which stands behind the terminator?",
        "回到第一种聊天室。戊一口气说了 `Log out? No!`。终止符后面的 `? No!` "
        "会怎么样？",
    ),
    Step(
        Text(
            "It was in the same read, so asynchat goes on with it: it is collected "
            "from somebody who has already left. The tutorial's room passes that on "
            "to the others, and so does this one; Eve gets no echo of it.",
            "它和前面的字节是同一次读到的，asynchat 会继续处理：从一个已经离开的人那里"
            "收集数据。教程里的聊天室会把它转发给其他人，这里也一样；戊自己收不到它的"
            "回显。",
        ),
        say_more,
        (
            Excerpt(
                "legacy_chat.session:ChatSession.collect_incoming_data",
                ("if self._leaving:", "self.push(data)"),
                beside="found_terminator",
            ),
        ),
        (
            Claim(
                Text(
                    "Eve gets `Log ` back and the end; Fay hears `? No!` after the "
                    "farewell.",
                    "戊只收到 `Log ` 和连接结束；己在告别之后还听到 `? No!`。",
                ),
                lambda seen: (
                    seen.heard["eve"] == b"Log "
                    and seen.ended == {"eve"}
                    and "退出聊天" in seen.heard["fay"].decode().partition("? No!")[0]
                    and seen.heard["fay"].endswith(b"? No!")
                ),
            ),
        ),
    ),
    Text(
        "A terminator in the stream has to be something that nobody says; or say first "
        "how long a message is, and set that number as the terminator.",
        "流里的终止符必须是谁都不会说的字节；要不就先说明消息有多长，"
        "再把这个长度设成终止符。",
    ),
)
