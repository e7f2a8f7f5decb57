"""Lesson 4: half a Chinese character."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text
from legacy_chat.session import ChatSession

__all__ = ["LESSON", "Hasty"]

# Six bytes, three for each character.
GREETING = "你好".encode()

SESSION = "legacy_chat.session:ChatSession"


class Hasty(ChatSession):
    """A session that decodes each read by itself, as the tutorial's does."""

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)
        self.broadcasting(data.decode("utf8"))


def split_in_hasty_room(harness: Harness) -> None:
    ann, bob = harness.room_with("ann", "bob", session_class=Hasty)
    harness.send_last(ann, GREETING[:4])
    harness.facts["bob is in"] = harness.session(bob) is not None
    bob.receive_pending()


def split_in_ours(harness: Harness) -> None:
    cid, dan = harness.room_with("cid", "dan")
    cid.exchange(GREETING[:4], 4)
    dan.receive("说:你")


def send_rest(harness: Harness) -> None:
    cid, dan = harness.peers["cid"], harness.peers["dan"]
    cid.exchange(GREETING[4:], 2)
    dan.receive("说:好")
    harness.facts["echo"] = cid.got


def leave_in_the_middle(harness: Harness) -> None:
    cid = harness.peers["cid"]
    harness.send_last(cid, GREETING[:2] + b"out")
    harness.peers["dan"].receive("退出聊天")


LESSON = Lesson(
    Text("Half a Chinese character", "半个汉字"),
    Text(
        "A Chinese character has three bytes in UTF-8, and TCP may split the stream "
        "between any two bytes. So a read can end in the middle of a character.",
        "汉字的 UTF-8 编码有三个字节，TCP 可以在任意处切开：一次读取可能停在半个字上。",
    ),
    Step(
        "First a session that decodes each read by itself. Ann sends `你好`, and four "
        "of its six bytes arrive: `你`, and a third of `好`. The exception leaves the "
        "callback, so asyncore calls that channel's `handle_error`.",
        "先看一个“读到什么就解码什么”的会话。甲发送 `你好`，六个字节先到了四个：一个 "
        "`你`，加上三分之一个 `好`。异常离开回调，asyncore 于是调用 `handle_error`。",
        split_in_hasty_room,
        Excerpt(Hasty.collect_incoming_data, beside="collect_incoming_data"),
        Excerpt(
            f"{SESSION}.handle_error",
            ("logger.exception(", 'close_because("error")'),
            beside="handle_error",
        ),
        Claim(
            "`collect_incoming_data` raised UnicodeDecodeError; `handle_error` ran.",
            "`collect_incoming_data` 抛出 UnicodeDecodeError；`handle_error` 运行了。",
            lambda run: (
                run.errors("collect_incoming_data") == ["UnicodeDecodeError"]
                and len(run.calls("handle_error")) == 1
            ),
        ),
        Claim(
            "Ann is disconnected for a greeting. Bob stays, and receives nothing.",
            "甲只是问了声好，就被断开了。乙还在，但什么也没收到。",
            lambda run: (
                run.closed() == {"ann"}
                and run.facts["bob is in"]
                and run.received("bob") == b""
            ),
        ),
    ),
    Step(
        "The same bytes in this room. The sender's echo has every byte at once; for "
        "the other members, the first part of a character waits for the rest.",
        "同样的字节，换到我们的聊天室。发送者立刻收到全部回显；转发则等后半个字到齐。",
        split_in_ours,
        Excerpt(
            f"{SESSION}.collect_incoming_data",
            ("if self._partial or", "self.broadcasting(data)"),
            beside="collect_incoming_data",
        ),
        Claim(
            "Cid's echo has four bytes; Dan receives `你`, a complete character.",
            "丙的回显是四个字节；丁收到的是 `你`，一个完整的字。",
            lambda run: (
                run.received("cid") == GREETING[:4] and run.message("dan") == "你"
            ),
        ),
    ),
    Step(
        "The other two bytes arrive, and complete the character.",
        "剩下的两个字节到了，这个字完整了，可以转发了。",
        send_rest,
        Claim(
            "Dan receives `好`; Cid's echo is unchanged: six bytes.",
            "丁收到 `好`；丙的回显原样不动，一共六个字节。",
            lambda run: run.message("dan") == "好" and run.facts["echo"] == GREETING,
        ),
    ),
    question=Text(
        "Cid sends two thirds of `你`, then `out`. What do the others receive?",
        "丙发送了三分之二个 `你`，接着发送 `out`。其他人会收到什么？",
    ),
    answer=Step(
        "`\N{REPLACEMENT CHARACTER}`, U+FFFD, and the message that Cid has left. The "
        "character can no longer be completed, so the room sends U+FFFD for it.",
        "收到一个 `\N{REPLACEMENT CHARACTER}`（U+FFFD），然后是丙退出的消息：这个字再也"
        "凑不齐了，聊天室就发送替换字符。",
        leave_in_the_middle,
        Excerpt(
            f"{SESSION}.found_terminator",
            ("if self._partial:", "self.broadcasting(partial)"),
            beside="found_terminator",
        ),
        Claim(
            "Dan receives one U+FFFD, then the message that Cid has left.",
            "丁收到一个 U+FFFD，然后是丙退出的消息。",
            lambda run: (
                run.message("dan").startswith("\N{REPLACEMENT CHARACTER}用户")
                and run.message("dan").endswith("退出聊天")
            ),
        ),
    ),
    summary=Text(
        "A read is a piece of a stream, not a message, not even a whole character. "
        "Decode complete characters, and keep the rest.",
        "一次读取只是流的一段：不是消息，甚至不一定是完整的字。只解码完整的，其余留"
        "着。",
    ),
)
