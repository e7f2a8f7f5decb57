"""Lesson 7: ``writable()`` is always true."""

from __future__ import annotations

import asyncore

from legacy_chat.lessons.engine.harness import PATIENCE, Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

__all__ = ["LESSON"]

# Turns that are looked at.
TURNS = 3


class Echo(asyncore.dispatcher):
    """Says back what it hears. It has forgotten something."""

    waiting = b""

    def handle_read(self) -> None:
        self.waiting += self.recv(1024)

    def handle_write(self) -> None:
        sent = self.send(self.waiting)
        self.waiting = self.waiting[sent:]


class Calm(Echo):
    """And has remembered it."""

    def writable(self) -> bool:
        return bool(self.waiting)


class Mute(Echo):
    """And has overdone it."""

    def writable(self) -> bool:
        return False


def spin(stage: Stage) -> None:
    ours, _ = stage.pair("ann")
    echo = Echo(ours, stage.map)
    for _ in range(TURNS):
        stage.turn(timeout=PATIENCE)
    echo.close()


def be_calm(stage: Stage) -> None:
    ours, bob = stage.pair("bob")
    calm = Calm(ours, stage.map)
    stage.turn(timeout=0)
    bob.say("hi")
    stage.turn()
    stage.turn()
    bob.hear("hi")
    stage.turn(timeout=0)
    calm.close()


def be_in_the_room(stage: Stage) -> None:
    stage.open_room()
    cid = stage.enter("cid")
    stage.begin()
    stage.turn(timeout=0)
    cid.say("hi")
    stage.turn()
    cid.hear("hi")
    stage.turn(timeout=0)


def be_mute(stage: Stage) -> None:
    ours, dan = stage.pair("dan")
    mute = Mute(ours, stage.map)
    dan.say("hi")
    stage.turn()
    stage.turn(timeout=0)
    dan.hear_all()
    stage.facts["waiting"] = mute.waiting
    mute.close()


LESSON = Lesson(
    Text("`writable()` is always true", "`writable()` 总是返回真"),
    Text(
        "`writable()` does not ask whether a socket could be written to. It could, "
        "nearly always. It asks whether the channel has something to write.",
        "`writable()` 问的不是“这个套接字能不能写”——它几乎随时都能写。"
        "它问的是：这个通道有没有东西要写？",
    ),
    (
        Step(
            Text(
                "A dispatcher of plain asyncore without a `writable` of its own has "
                "this one. Its socket has room, so it is always in the ready set, and "
                "no turn ever waits. This is the asyncore program that eats a core.",
                "普通的 asyncore dispatcher 如果没有自己的 `writable`，用的就是这个。"
                "套接字总有空位，于是它永远在就绪集里，没有哪一轮会等待。那种吃满"
                "一个核的 asyncore 程序，多半就是这么来的。",
            ),
            spin,
            (
                Excerpt("asyncore:dispatcher.writable"),
                Excerpt(Echo.handle_write, beside="handle_write"),
            ),
            (
                Claim(
                    Text(
                        f"{TURNS} turns that might have waited {PATIENCE:g} seconds "
                        "each, and all of them were ready at once.",
                        f"{TURNS} 轮，每轮本可以等 {PATIENCE:g} 秒，结果每一轮都立刻就"
                        "绪。",
                    ),
                    lambda seen: (
                        [(turn.why, seen.writers(turn)) for turn in seen.turns]
                        == [("ready", ["Echo"])] * TURNS
                        and all(
                            (turn.waited or 0) < PATIENCE * 1e6 for turn in seen.turns
                        )
                    ),
                ),
                Claim(
                    Text(
                        f"`handle_write` was called {TURNS} times, and not a byte was "
                        "written.",
                        f"`handle_write` 被回调 {TURNS} 次，一个字节也没写出去。",
                    ),
                    lambda seen: (
                        len(seen.calls("handle_write")) == TURNS
                        and not any(
                            call.sent for turn in seen.turns for call in turn.calls()
                        )
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "One method more: yes, while there is something to write. Now it "
                "waits. Bob says `hi`: one turn reads it, and from then on there is "
                "interest in writing; the next turn writes it, and the interest is "
                "gone.",
                "加一个方法：有东西要写时才返回真。现在它会等了。乙说 `hi`："
                "一轮读进来，从此开始关注可写；下一轮写出去，关注也就取消了。",
            ),
            be_calm,
            (Excerpt(Calm.writable), Excerpt(Echo.handle_read, beside="handle_read")),
            (
                Claim(
                    Text(
                        "Nothing; read; write; nothing.",
                        "四轮依次是：无事、读、写、无事。",
                    ),
                    lambda seen: (
                        [
                            (turn.why, seen.readers(turn), seen.writers(turn))
                            for turn in seen.turns
                        ]
                        == [
                            ("timeout", [], []),
                            ("ready", ["Calm"], []),
                            ("ready", [], ["Calm"]),
                            ("timeout", [], []),
                        ]
                    ),
                ),
                Claim(
                    Text("Bob gets his echo.", "乙收到了回显。"),
                    lambda seen: seen.heard["bob"] == b"hi",
                ),
            ),
        ),
        Step(
            Text(
                "In the room, asynchat answers for you: yes, while something is "
                "queued.",
                "在聊天室里，asynchat 已经替你回答好了：队列里有东西，才返回真。",
            ),
            be_in_the_room,
            (Excerpt("compat.chat:async_chat.writable", "return bool("),),
            (
                Claim(
                    Text(
                        "Before and after Cid speaks, the room waits.",
                        "丙说话之前和之后，聊天室都在等待。",
                    ),
                    lambda seen: (
                        [turn.why for turn in seen.turns]
                        == ["timeout", "ready", "timeout"]
                        and seen.heard["cid"] == b"hi"
                    ),
                ),
            ),
        ),
    ),
    Text(
        "And if `writable()` always says no? Dan says `hi` to such a channel.",
        "那如果 `writable()` 总是返回假呢？丁对这样的通道说了 `hi`。",
    ),
    Step(
        Text(
            "It is read, and kept for ever: the loop never looks whether the socket "
            "has room, so `handle_write` is never called.",
            "读是读了，却永远留在队列里：循环从不去看这个套接字能不能写，"
            "`handle_write` 也就永远不会被回调。",
        ),
        be_mute,
        (Excerpt(Mute.writable),),
        (
            Claim(
                Text(
                    "`hi` waits in the channel, `handle_write` was not called, and Dan "
                    "hears nothing.",
                    "`hi` 留在通道里，`handle_write` 没有被回调，丁什么也没听到。",
                ),
                lambda seen: (
                    seen.facts["waiting"] == b"hi"
                    and not seen.calls("handle_write")
                    and "dan" not in seen.heard
                ),
            ),
        ),
    ),
    Text(
        "Interest in writing means: I have something to write. Have it while the "
        "queue is not empty, and not a turn longer. "
        "`python -m compat.trace doctor FILE` finds channels that do otherwise.",
        "关注可写，意思是“我有东西要写”：队列非空时才关注，一轮也不要多。"
        "`python -m compat.trace doctor FILE` 能找出不守规矩的通道。",
    ),
)
