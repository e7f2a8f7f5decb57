"""Lesson 4: half a Chinese character."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Seen, Step, Text
from legacy_chat.session import ChatSession

__all__ = ["LESSON", "Hasty"]

# Six bytes, three for each.
GREETING = "你好".encode()


class Hasty(ChatSession):
    """A session that decodes whatever a read brings, as the tutorial's does."""

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)
        self.broadcasting(data.decode("utf8"))


def cut_in_a_hasty_room(stage: Stage) -> None:
    stage.open_room(session_class=Hasty)
    ann, bob = stage.enter("ann"), stage.enter("bob")
    stage.begin()
    ann.say(GREETING[:4])
    stage.turn_until(lambda: stage.session(ann) is None)
    ann.hear_end()
    stage.facts["bob is in"] = stage.session(bob) is not None
    stage.facts["bob heard"] = bob.hear_all()


def cut_in_ours(stage: Stage) -> None:
    stage.open_room()
    cid, dan = stage.enter("cid"), stage.enter("dan")
    stage.begin()
    cid.say(GREETING[:4])
    stage.turn()
    cid.hear(4)
    dan.hear("说:你")


def say_the_rest(stage: Stage) -> None:
    cid, dan = stage.peer("cid"), stage.peer("dan")
    cid.say(GREETING[4:])
    stage.turn()
    cid.hear(2)
    dan.hear("说:好")
    stage.facts["echo"] = cid.got


def leave_in_the_middle(stage: Stage) -> None:
    cid = stage.peer("cid")
    cid.say(GREETING[:2] + b"out")
    stage.turn_until(lambda: stage.session(cid) is None)
    cid.hear_end()
    stage.peer("dan").hear("退出聊天")


def words(seen: Seen, who: str) -> str:
    """What a peer was told, without the name before it."""
    return seen.heard.get(who, b"").decode().partition(" 说:")[2]


LESSON = Lesson(
    Text("Half a Chinese character", "半个汉字"),
    Text(
        "In UTF-8 a Chinese character has three bytes, and TCP may cut between any two "
        "bytes. A read can therefore end in the middle of a character.",
        "汉字的 UTF-8 编码有三个字节，而 TCP 可以在任意两个字节之间切开。"
        "所以一次读取完全可能停在半个汉字上。",
    ),
    (
        Step(
            Text(
                "First a session that decodes what each read brings. Ann says `你好`, "
                "of whose six bytes the first four arrive: `你`, and a third of `好`. "
                "The exception leaves the callback, so it goes to `handle_error` of "
                "that channel.",
                "先看一个“读到什么就解码什么”的会话。甲说 `你好`，六个字节先到了四个："
                "一个 `你`，加上三分之一个 `好`。解码抛出的异常离开回调，"
                "就落到这个通道的 `handle_error` 里。",
            ),
            cut_in_a_hasty_room,
            (
                Excerpt(Hasty.collect_incoming_data, beside="collect_incoming_data"),
                Excerpt(
                    "legacy_chat.session:ChatSession.handle_error",
                    ("logger.exception(", 'close_because("error")'),
                    beside="handle_error",
                ),
            ),
            (
                Claim(
                    Text(
                        "`collect_incoming_data` raised UnicodeDecodeError, and "
                        "`handle_error` was called, once.",
                        "`collect_incoming_data` 抛出 UnicodeDecodeError，"
                        "`handle_error` 被回调一次。",
                    ),
                    lambda seen: (
                        [
                            call.error.partition(":")[0]
                            for call in seen.calls("collect_incoming_data")
                        ]
                        == ["UnicodeDecodeError"]
                        and len(seen.calls("handle_error")) == 1
                    ),
                ),
                Claim(
                    Text(
                        "Ann is thrown out for saying hello. Bob stays, and has heard "
                        "nothing.",
                        "甲只是问了声好，就被赶了出去。乙还在，但什么也没听到。",
                    ),
                    lambda seen: (
                        seen.ended == {"ann"}
                        and seen.facts["bob is in"]
                        and seen.facts["bob heard"] == b""
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "The same bytes in this room. Who speaks gets every byte back at once; "
                "for the others, the beginning of a character waits for its end.",
                "同样的字节，换到我们这个聊天室。说话的人立刻收到每一个字节的回显；"
                "转发给别人的，则让半个字先等着后半个。",
            ),
            cut_in_ours,
            (
                Excerpt(
                    "legacy_chat.session:ChatSession.collect_incoming_data",
                    ("if self._cut or", "self.broadcasting(data)"),
                    beside="collect_incoming_data",
                ),
            ),
            (
                Claim(
                    Text(
                        "Cid's echo has four bytes; Dan hears `你`, a whole character.",
                        "丙的回显是四个字节；丁听到的是 `你`，一个完整的字。",
                    ),
                    lambda seen: (
                        seen.heard["cid"] == GREETING[:4] and words(seen, "dan") == "你"
                    ),
                ),
                Claim(
                    Text(
                        "The byte of `好` that has arrived is not forwarded yet.",
                        "`好` 已到的那一个字节还没有转发。",
                    ),
                    lambda seen: seen.heard["dan"].endswith("说:你".encode()),
                ),
            ),
        ),
        Step(
            Text(
                "The other two bytes come, and now there is something to tell.",
                "剩下的两个字节到了，这下可以转发了。",
            ),
            say_the_rest,
            (),
            (
                Claim(
                    Text(
                        "Dan hears `好`; Cid's echo was never touched: six bytes.",
                        "丁听到 `好`；丙的回显原样不动，一共六个字节。",
                    ),
                    lambda seen: (
                        words(seen, "dan") == "好" and seen.facts["echo"] == GREETING
                    ),
                ),
            ),
        ),
    ),
    Text(
        "Cid says two thirds of `你`, and `out`. What do the others hear?",
        "丙说了三分之二个 `你`，接着就说 `out`。其他人会听到什么？",
    ),
    Step(
        Text(
            "`\N{REPLACEMENT CHARACTER}`, U+FFFD, and the farewell: that character "
            "will never be whole, so it is told as what it is, a broken one.",
            "听到一个 `\N{REPLACEMENT CHARACTER}`（U+FFFD），然后是告别：这个字再也"
            "凑不齐了，只好照实说：它是坏的。",
        ),
        leave_in_the_middle,
        (
            Excerpt(
                "legacy_chat.session:ChatSession.found_terminator",
                ("if self._cut:", "self.broadcasting(cut)"),
                beside="found_terminator",
            ),
        ),
        (
            Claim(
                Text(
                    "Dan hears one U+FFFD, then the farewell.",
                    "丁听到一个 U+FFFD，然后是告别。",
                ),
                lambda seen: (
                    words(seen, "dan").startswith("\N{REPLACEMENT CHARACTER}用户")
                    and seen.heard["dan"].decode().endswith("退出聊天")
                ),
            ),
        ),
    ),
    Text(
        "A read is a piece of a stream: not a message, not even a whole character. "
        "Decode what is whole, keep the rest.",
        "一次读取只是流的一段：不是一条消息，甚至不一定是完整的字。"
        "完整的才解码，剩下的留着。",
    ),
)
