"""Lesson 2: why ``hello`` loses its ``o``."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Seen, Step, Text

__all__ = ["LESSON"]


def say_hello(stage: Stage) -> None:
    stage.open_room()
    ann, bob = stage.enter("ann"), stage.enter("bob")
    stage.begin()
    ann.say("hello")
    stage.turn()
    ann.hear("hell")
    bob.hear("说:hell")
    stage.facts["held"] = stage.session(ann).ac_in_buffer


def say_world(stage: Stage) -> None:
    ann, bob = stage.peer("ann"), stage.peer("bob")
    ann.say(" world")
    stage.turn()
    ann.hear("o world")
    bob.hear("说:o world")
    stage.facts["held"] = stage.session(ann).ac_in_buffer
    stage.facts["echo"] = ann.got


def say_out_in_pieces(stage: Stage) -> None:
    ann = stage.peer("ann")
    for letter in "out":
        ann.say(letter)
        stage.turn()
    ann.hear_end()
    stage.peer("bob").hear("退出聊天")


def say_hellou(stage: Stage) -> None:
    cid = stage.enter("cid")
    stage.begin()
    cid.say("hellou")
    stage.turn()
    cid.hear("hell")
    stage.facts["held"] = stage.session(cid).ac_in_buffer


def collected(seen: Seen) -> list[bytes | None]:
    """What the program was given."""
    return [call.data for call in seen.calls("collect_incoming_data")]


def told(seen: Seen, words: str) -> bool:
    """Did Bob hear that, said by somebody, and nothing else?"""
    heard = seen.heard.get("bob", b"").decode()
    return heard.partition(" 说:")[2] == words


HOLDS_BACK = Excerpt(
    "compat.chat:async_chat._compat_collect",
    ("held = (", "else 0"),
    ("if held:", "return"),
    beside="collect_incoming_data",
)

LESSON = Lesson(
    Text("Why `hello` loses its `o`", "为什么 `hello` 丢了 `o`"),
    Text(
        "TCP is a stream of bytes. It says nothing about where a message ends, so "
        "asynchat looks for a terminator in what it reads. In this room the terminator "
        "is `out`, and it may come in any number of pieces.",
        "TCP 是字节流，并不告诉你一条消息在哪里结束，所以 asynchat 在读到的字节里"
        "找终止符。这个聊天室的终止符是 `out`，而它可能被切成好几段到达。",
    ),
    (
        Step(
            Text(
                "Ann says `hello`. Its last letter may be the first of `out`, and who "
                "has only read `o` cannot know. So asynchat holds it back, and your "
                "`collect_incoming_data` is given `hell`.",
                "甲说 `hello`。末尾的 `o` 可能正是 `out` 的第一个字母，只读到 `o` 时"
                "谁也说不准。于是 asynchat 先把它扣住，交给 `collect_incoming_data` 的"
                "只有 `hell`。",
            ),
            say_hello,
            (
                Excerpt("legacy_chat.session:ChatSession._keep", "set_terminator"),
                HOLDS_BACK,
                Excerpt("asynchat:find_prefix_at_end", beside="collect_incoming_data"),
            ),
            (
                Claim(
                    Text(
                        "The program was given `hell`; so that is what Ann and Bob "
                        "get.",
                        "程序拿到的是 `hell`，甲和乙收到的因此也只有 `hell`。",
                    ),
                    lambda seen: (
                        collected(seen) == [b"hell"]
                        and seen.heard["ann"] == b"hell"
                        and told(seen, "hell")
                    ),
                ),
                Claim(
                    Text(
                        "One byte, the `o`, stays in the channel's `ac_in_buffer`.",
                        "一个字节，也就是那个 `o`，留在通道的 `ac_in_buffer` 里。",
                    ),
                    lambda seen: seen.facts["held"] == b"o",
                ),
            ),
        ),
        Step(
            Text(
                "Ann says ` world`. Now it is clear that the `o` began no `out`, and "
                "it comes out in front of what was just read. It was late, not lost.",
                "甲接着说 ` world`。现在清楚了：那个 `o` 不是 `out` 的开头，"
                "于是它排在新读到的字节前面一起交了出来。它只是迟到，并没有丢。",
            ),
            say_world,
            (
                Excerpt(
                    "compat.chat:async_chat._compat_collect",
                    "self._compat_read + data",
                    beside="collect_incoming_data",
                ),
            ),
            (
                Claim(
                    Text(
                        "The program was given `o world`, and Bob heard that.",
                        "程序拿到的是 `o world`，乙听到的也是它。",
                    ),
                    lambda seen: (
                        collected(seen) == [b"o world"] and told(seen, "o world")
                    ),
                ),
                Claim(
                    Text(
                        "Ann's echo is whole, `hello world`, and nothing is held back.",
                        "甲的回显是完整的 `hello world`，不再扣住任何字节。",
                    ),
                    lambda seen: (
                        seen.facts["echo"] == b"hello world"
                        and seen.facts["held"] == b""
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "And what it is good for: Ann says `o`, `u` and `t`, in three "
                "segments. Twice there is nothing to give out; with the third the "
                "terminator is whole. Had the `o` been given out at once, nobody "
                "would have found it.",
                "这样做有什么用？甲把 `o`、`u`、`t` 分三段发出。前两次都没有可以交出的"
                "字节，第三次终止符凑齐了。要是 `o` 当时就交了出去，"
                "这个终止符就再也找不到了。",
            ),
            say_out_in_pieces,
            (
                Excerpt(
                    "compat.chat:async_chat._compat_collect",
                    "(end := read.find(terminator, begin))",
                    "self.found_terminator()",
                    beside="found_terminator",
                ),
            ),
            (
                Claim(
                    Text(
                        "Three turns, three reads, and not a byte for "
                        "`collect_incoming_data`.",
                        "三轮，读了三次，`collect_incoming_data` 一个字节也没拿到。",
                    ),
                    lambda seen: (
                        [seen.readers(turn) for turn in seen.turns[:3]]
                        == [["ann"], ["ann"], ["ann"]]
                        and collected(seen) == []
                    ),
                ),
                Claim(
                    Text(
                        "`found_terminator` was called once, and Ann's connection "
                        "ends.",
                        "`found_terminator` 被回调一次，甲的连接随之结束。",
                    ),
                    lambda seen: (
                        len(seen.calls("found_terminator")) == 1
                        and seen.ended == {"ann"}
                    ),
                ),
            ),
        ),
    ),
    Text(
        "Cid comes and says `hellou`. What does the program get, and what is held "
        "back?",
        "丙进来说了 `hellou`。程序拿到什么？扣住的又是什么？",
    ),
    Step(
        Text(
            "It gets `hell`. The longest end that could begin `out` is held back, and "
            "here that is `ou`. At most two bytes can be: one less than the terminator "
            "has.",
            "程序拿到 `hell`。扣住的是末尾最长的、可能是 `out` 开头的那一段，"
            "这里就是 `ou`。最多扣两个字节：比终止符的长度少一个。",
        ),
        say_hellou,
        (),
        (
            Claim(
                Text(
                    "`hell` was collected, `ou` is held back.",
                    "收集到的是 `hell`，扣住的是 `ou`。",
                ),
                lambda seen: (
                    collected(seen) == [b"hell"] and seen.facts["held"] == b"ou"
                ),
            ),
        ),
    ),
    Text(
        "A stream has no messages. Who looks for a terminator must hold back what may "
        "begin one.",
        "字节流里没有“消息”。要找终止符，就得先扣住可能是它开头的字节。",
    ),
)
