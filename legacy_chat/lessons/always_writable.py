"""Lesson 7: ``writable()`` is always true."""

from __future__ import annotations

import asyncore

from legacy_chat.lessons.engine.harness import PATIENCE, Harness
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

__all__ = ["LESSON"]

# Turns that are shown.
TURNS = 3


class Echo(asyncore.dispatcher):
    """Sends back all received data. It has no ``writable``."""

    queue = b""

    def handle_read(self) -> None:
        self.queue += self.recv(1024)

    def handle_write(self) -> None:
        sent = self.send(self.queue)
        self.queue = self.queue[sent:]


class Calm(Echo):
    """Is writable while its queue has data."""

    def writable(self) -> bool:
        return bool(self.queue)


class Mute(Echo):
    """Is never writable."""

    def writable(self) -> bool:
        return False


def spin(harness: Harness) -> None:
    near, _ = harness.socket_pair("ann")
    echo = Echo(near, harness.map)
    for _ in range(TURNS):
        harness.turn(timeout=PATIENCE)
    echo.close()


def wait_and_echo(harness: Harness) -> None:
    near, bob = harness.socket_pair("bob")
    calm = Calm(near, harness.map)
    harness.turn(timeout=0)
    bob.send("hi")
    harness.turn()
    harness.turn()
    bob.receive("hi")
    harness.turn(timeout=0)
    calm.close()


def echo_in_room(harness: Harness) -> None:
    (cid,) = harness.room_with("cid")
    harness.turn(timeout=0)
    cid.exchange("hi", "hi")
    harness.turn(timeout=0)


def never_write(harness: Harness) -> None:
    near, dan = harness.socket_pair("dan")
    mute = Mute(near, harness.map)
    dan.send("hi")
    harness.turn()
    harness.turn(timeout=0)
    dan.receive_pending()
    harness.facts["queue"] = mute.queue
    mute.close()


LESSON = Lesson(
    Text("`writable()` is always true", "`writable()` 总是返回真"),
    Text(
        "`writable()` does not mean that the socket has room. It nearly always has. It "
        "means that the channel has data to send.",
        "`writable()` 问的不是“套接字有没有空间”（几乎总有），而是“有没有数据要发送”。",
    ),
    Step(
        "An asyncore dispatcher without a `writable` inherits this one. Its socket has "
        "room, so it is always in the ready set, and no turn ever waits. This is the "
        "asyncore program that uses 100 % CPU.",
        "普通的 asyncore dispatcher 如果没有定义 `writable`，就继承这一个。套接字总有空"
        "间，于是它永远就绪，没有哪一轮会等待。asyncore 程序吃满一个核，多半因此。",
        spin,
        Excerpt("asyncore:dispatcher.writable"),
        Excerpt(Echo.handle_write, beside="handle_write"),
        Claim(
            f"{TURNS} turns could have waited {PATIENCE:g} seconds each; none did.",
            f"{TURNS} 轮，每轮本可以等 {PATIENCE:g} 秒，结果每一轮都立刻就绪。",
            lambda run: (
                [turn.why for turn in run.turns] == ["ready"] * TURNS
                and run.writable() == [["Echo"]] * TURNS
                and all((turn.waited or 0) < PATIENCE * 1e6 for turn in run.turns)
            ),
        ),
        Claim(
            f"`handle_write` ran {TURNS} times, and sent not a single byte.",
            f"`handle_write` 运行了 {TURNS} 次，一个字节也没发出去。",
            lambda run: (
                len(run.calls("handle_write")) == TURNS
                and not any(call.sent for call in run.calls())
            ),
        ),
    ),
    Step(
        "One more method: return true while there is data to send. Now it waits. Bob "
        "sends `hi`: one turn reads it and adds interest in writing; the next turn "
        "writes it and removes the interest.",
        "加一个方法：有数据要发送时才返回真。现在它会等待了。乙发送 `hi`：一轮读进来，"
        "从此关注可写；下一轮写出去，不再关注。",
        wait_and_echo,
        Excerpt(Calm.writable),
        Excerpt(Echo.handle_read, beside="handle_read"),
        Claim(
            "Timeout, read, write, timeout.",
            "四轮依次是：超时、读、写、超时。",
            lambda run: (
                [turn.why for turn in run.turns]
                == ["timeout", "ready", "ready", "timeout"]
                and run.readable() == [[], ["Calm"], [], []]
                and run.writable() == [[], [], ["Calm"], []]
            ),
        ),
        Claim(
            "Bob receives his echo.",
            "乙收到了回显。",
            lambda run: run.received("bob") == b"hi",
        ),
    ),
    Step(
        "In the room, asynchat defines `writable`: true while data is queued.",
        "在聊天室里，asynchat 已经定义了 `writable`：队列里有数据时才返回真。",
        echo_in_room,
        Excerpt("compat.async_chat:wants_to_write", "return bool("),
        Claim(
            "Before and after Cid sends data, the room waits.",
            "丙发送数据之前和之后，聊天室都在等待。",
            lambda run: (
                [turn.why for turn in run.turns] == ["timeout", "ready", "timeout"]
                and run.received("cid") == b"hi"
            ),
        ),
    ),
    question=Text(
        "And if `writable()` always returns false? Dan sends `hi` to such a channel.",
        "那如果 `writable()` 总是返回假呢？丁向这样的通道发送 `hi`。",
    ),
    answer=Step(
        "It is read, and queued for ever: the loop never polls the socket for writing, "
        "so `handle_write` never runs.",
        "读了，却永远留在队列里：循环从不查询套接字是否可写，`handle_write` 永不运行。",
        never_write,
        Excerpt(Mute.writable),
        Claim(
            "`hi` stays queued, `handle_write` did not run, Dan receives nothing.",
            "`hi` 留在队列里，`handle_write` 没有运行，丁什么也没收到。",
            lambda run: (
                run.facts["queue"] == b"hi"
                and not run.calls("handle_write")
                and not run.received("dan")
            ),
        ),
    ),
    summary=Text(
        "Keep interest in writing while there is data to send, not a turn longer. "
        "`python -m compat.trace doctor FILE` finds channels that keep it longer.",
        "关注可写，意思是“有数据要发送”：队列非空时才关注，一轮也不要多。"
        "`python -m compat.trace doctor FILE` 能找出不守规矩的通道。",
    ),
)
