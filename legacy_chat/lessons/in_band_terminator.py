"""Lesson 3: ``shout`` ends the session."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["LESSON"]

QUIT = b"/quit\r\n"

SESSION = "legacy_chat.session:ChatSession"


def shout(harness: Harness) -> None:
    ann, bob = harness.room_with("ann", "bob")
    harness.send_last(ann, "I shout")
    bob.receive("退出聊天")
    left = [each.user for each in harness.room.clients]
    harness.facts["only bob is left"] = left == [bob.user]


def shout_elsewhere(harness: Harness) -> None:
    cid, dan = harness.room_with("cid", "dan", terminator=QUIT)
    cid.exchange("I shout", "I shout")
    dan.receive("说:I shout")
    harness.send_last(cid, QUIT)
    dan.receive("退出聊天")


def send_more(harness: Harness) -> None:
    eve, fay = harness.room_with("eve", "fay")
    harness.send_last(eve, "Log out? No!")
    fay.receive("说:? No!")


def callbacks(run: StepRun) -> list[str]:
    """Return the two callbacks of asynchat, in the order of their calls."""
    kinds = ("collect_incoming_data", "found_terminator")
    calls = sorted(run.calls(), key=lambda call: call.line)
    return [call.name for call in calls if call.name in kinds]


LESSON = Lesson(
    Text("`shout` ends the session", "`shout` 结束了会话"),
    Text(
        "Lesson 2 showed that asynchat searches a stream for the terminator, not for "
        "words. It finds the terminator wherever its bytes are.",
        "上一课看到：终止符是在字节流里找的，而不是在“单词”里找，出现在哪里都算。",
    ),
    Step(
        "Ann sends `I shout`. `I sh` stands before `out` and is collected. Then "
        "`found_terminator` runs, and the room closes her session: `close_when_done` "
        "sends all queued data first.",
        "甲发送 `I shout`。`out` 前面的 `I sh` 被收集，接着运行 `found_terminator`，聊"
        "天室关闭甲的会话：`close_when_done` 先把排队的数据发完，再关闭连接。",
        shout,
        Excerpt(
            "compat._reader:LinearReader._compat_collect",
            "elif (end := buffer.find",
            "self.collect_incoming_data(buffer[begin:end])",
            "self.found_terminator()",
            beside="collect_incoming_data",
        ),
        Excerpt(
            f"{SESSION}.found_terminator",
            ('print_line("accept close")', 'self.close_when_flushed("out")'),
            beside="found_terminator",
        ),
        Excerpt(
            f"{SESSION}.close_when_flushed",
            ("self._leave()", "self.close_when_done()"),
            beside="found_terminator",
        ),
        Claim(
            "One read, two callbacks: first `collect_incoming_data`, then "
            "`found_terminator`.",
            "先 `collect_incoming_data`，后 `found_terminator`：一次读取，两个回调。",
            lambda run: callbacks(run) == ["collect_incoming_data", "found_terminator"],
        ),
        Claim(
            "Ann receives the complete echo `I sh`, and then EOF.",
            "甲先完整收到回显 `I sh`，然后收到 EOF。",
            lambda run: run.received("ann") == b"I sh" and run.closed() == {"ann"},
        ),
        Claim(
            "Only Bob is left in the room, and the server has printed `accept close`.",
            "聊天室里只剩下乙，服务器打印了 `accept close`。",
            lambda run: (
                run.facts["only bob is left"] and "accept close" in run.printed()
            ),
        ),
    ),
    Step(
        "Another room, with a terminator that is not typed by accident: `/quit` and "
        "the end of the line. Here a shout is a shout.",
        "换一个聊天室，终止符不会随口打出来：`/quit` 加换行。在这里 shout 只是 shout。",
        shout_elsewhere,
        Excerpt(f"{SESSION}.__init__", "set_terminator"),
        Claim(
            "Dan receives `I shout`; only `/quit` ends the session.",
            "丁收到了完整的 `I shout`；发送 `/quit` 才会结束会话。",
            lambda run: (
                run.received("cid") == b"I shout"
                and " 说:I shout" in run.received("dan").decode()
                and run.closed() == {"cid"}
                and callbacks(run) == ["collect_incoming_data", "found_terminator"]
            ),
        ),
    ),
    question=Text(
        "Back in the first kind of room, Eve sends `Log out? No!` in one segment. What "
        "happens to `? No!`, behind the terminator?",
        "回到第一种聊天室。戊一次发送了 `Log out? No!`。终止符后的 `? No!` 会怎么样？",
    ),
    answer=Step(
        "It was in the same read, so asynchat goes on and collects it, although the "
        "session is closing. The tutorial's room forwards it to the others, and so "
        "does this one; Eve receives no echo of it.",
        "它和前面的字节是同一次读到的，所以 asynchat 继续收集它，尽管会话正在关闭。教程"
        "里的聊天室会把它转发给其他人，这里也一样；戊收不到它的回显。",
        send_more,
        Excerpt(
            f"{SESSION}.collect_incoming_data",
            ("if not self._terminated:", "self.push(data)"),
            beside="found_terminator",
        ),
        Claim(
            "Eve receives the echo `Log ` and EOF; Fay receives `? No!` after the "
            "message that Eve has left.",
            "戊只收到回显 `Log ` 和 EOF；己在“退出聊天”之后还收到 `? No!`。",
            lambda run: (
                run.received("eve") == b"Log "
                and run.closed() == {"eve"}
                and "退出聊天" in run.received("fay").decode().partition("? No!")[0]
                and run.received("fay").endswith(b"? No!")
            ),
        ),
    ),
    summary=Text(
        "An in-band terminator must be data that no client sends. Otherwise send each "
        "message's length first, and set that number as the terminator.",
        "流里的终止符必须是客户端不会发送的字节；否则先发消息长度，再把它设成终止符。",
    ),
)
