"""Lesson 6: the descriptor that came back."""

from __future__ import annotations

import asynchat
import asyncore
import socket
from collections.abc import Callable
from typing import Any

from legacy_chat.lessons.engine.harness import Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

__all__ = ["LESSON"]

# What asyncore itself does.
ASYNCORES = ("select", "poll")

# Sockets that are opened at most until a number comes back; the lowest is given first.
MANY = 200


class Newcomer(asyncore.dispatcher):
    """Nobody has said anything to it."""

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(100)


class Greedy(asyncore.dispatcher):
    """Closes its neighbour, and opens something that gets the same number."""

    neighbour: asyncore.dispatcher
    open_another: Callable[[int], object]

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(100)
        number = self.neighbour.socket.fileno()
        self.neighbour.close()
        self.open_another(number)


class Neighbour(asyncore.dispatcher):
    """Has something to read, too, in the same turn."""

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(100)


class Listening(asynchat.async_chat):
    """As Newcomer, on asynchat."""

    def collect_incoming_data(self, data: bytes) -> None:
        """There is none."""

    def found_terminator(self) -> None:
        """Nor this."""


def come_and_go(stage: Stage) -> None:
    stage.open_room()
    ann = stage.enter("ann")
    session = stage.session(ann)
    stage.facts["ann's"] = session.socket.fileno()
    ann.drop()
    stage.turn()
    bob = stage.enter("bob")
    stage.facts["bob's"] = stage.session(bob).socket.fileno()
    stage.facts["same"] = stage.session(bob) is session


def swap(stage: Stage) -> None:
    swap_with(stage, Newcomer)


def swap_on_asynchat(stage: Stage) -> None:
    swap_with(stage, Listening)


def swap_with(stage: Stage, kind: Callable[..., Any]) -> None:
    """Two channels are ready; the first closes the second, and opens a third."""
    greedys, cid = stage.pair("cid")
    neighbours, dan = stage.pair("dan")
    greedy = Greedy(greedys, stage.map)
    greedy.neighbour = Neighbour(neighbours, stage.map)

    def open_another(number: int) -> None:
        made = kind(_socket_with(number, stage), stage.map)
        stage.facts["numbers"] = (number, made.socket.fileno())
        stage.at_end(made.close)

    greedy.open_another = open_another
    cid.say("now")
    dan.say("me too")
    stage.turn()
    stage.turn(timeout=0)
    greedy.close()


def _socket_with(number: int, stage: Stage) -> socket.socket:
    """A connected socket with that number, which is free."""
    for _ in range(MANY):
        for end in _connected(stage):
            if end.fileno() == number:
                return end
    raise OSError(f"descriptor {number} does not come back")


def _connected(stage: Stage) -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        stage.at_end(end.close)
    return pair


LESSON = Lesson(
    Text("The descriptor that came back", "又回来的描述符"),
    Text(
        "The map of a loop goes by descriptors, and those are small numbers that the "
        "system gives out again: always the lowest that is free.",
        "循环的 map 以描述符为键。描述符是些小整数，关闭之后系统会再发出去："
        "每次都发当前空闲的最小的那个。",
    ),
    (
        Step(
            Text(
                "Ann comes, and hangs up; then Bob comes. His channel has the number "
                "that hers had. Between two turns that is harmless: `close` has taken "
                "hers out of the map, and he is put in.",
                "甲进来又挂断，然后乙进来。乙的通道拿到的正是甲用过的号码。"
                "发生在两轮之间就没有问题：`close` 已经把甲的通道移出 map，"
                "再把乙的放进去。",
            ),
            come_and_go,
            (
                Excerpt(
                    "asyncore:dispatcher.del_channel",
                    ("if fd in map:", "self._fileno = None"),
                    beside="handle_close",
                ),
            ),
            (
                Claim(
                    Text(
                        "The same number, but another channel.",
                        "号码相同，通道却是另一个。",
                    ),
                    lambda seen: (
                        seen.facts["ann's"] == seen.facts["bob's"]
                        and not seen.facts["same"]
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Now within one turn, with three channels of plain asyncore. `Greedy` "
                "and `Neighbour` are both in the ready set. Greedy is called first, "
                "closes Neighbour, and opens `Newcomer`, which gets Neighbour's "
                "number. Nobody has said anything to Newcomer. Is it called?",
                "现在让它发生在同一轮里，用三个普通的 asyncore 通道。`Greedy` 和 "
                "`Neighbour` 都在就绪集里。先回调 Greedy，它关掉 Neighbour，又打开 "
                "`Newcomer`，后者拿到了 Neighbour 的号码。没有人对 Newcomer 说过话。"
                "它会被回调吗？",
            ),
            swap,
            (
                Excerpt(
                    Greedy.handle_read,
                    ("number =", "self.open_another(number)"),
                    beside="handle_read",
                ),
                Excerpt(
                    "asyncore:poll",
                    ("for fd in r:", "read(obj)"),
                    beside="handle_read",
                    loops=("select",),
                ),
                Excerpt(
                    "asyncore:poll2",
                    ("for fd, flags in r:", "readwrite(obj, flags)"),
                    beside="handle_read",
                    loops=("poll",),
                ),
                Excerpt(
                    "compat.selector_loop:Known.is_still_in",
                    ("channel = self.channel", "return map.get"),
                    beside="handle_read",
                    loops=("selectors",),
                ),
            ),
            (
                Claim(
                    Text(
                        "Newcomer has Neighbour's number.",
                        "Newcomer 的号码就是 Neighbour 的号码。",
                    ),
                    lambda seen: len(set(seen.facts["numbers"])) == 1,
                ),
                Claim(
                    Text(
                        "On this loop it is: for Neighbour's event, whose number it "
                        "has. There is nothing to read, `recv` raises BlockingIOError, "
                        "and `handle_error` closes a channel that had done nothing "
                        "wrong.",
                        "在这个循环上，会。它是替 Neighbour 的事件被回调的，只因为号码"
                        "相同。没有数据可读，`recv` 抛出 BlockingIOError，"
                        "`handle_error` 就把一个什么错也没犯的通道关掉了。",
                    ),
                    lambda seen: (
                        [
                            call.error.partition(":")[0]
                            for call in seen.calls("handle_read", of="Newcomer")
                        ]
                        == ["BlockingIOError"]
                        and len(seen.calls("handle_error", of="Newcomer")) == 1
                    ),
                    ASYNCORES,
                ),
                Claim(
                    Text(
                        "On this loop it is not, nor is Neighbour: a channel is "
                        "called only while it, and its socket, are the ones that were "
                        "asked.",
                        "在这个循环上，不会，Neighbour 也不会："
                        "只有当通道和它的套接字还是当初问过的那一个时，才会回调。",
                    ),
                    lambda seen: (
                        seen.calls("handle_read", of="Greedy")
                        and not seen.calls("handle_read", of="Newcomer")
                        and not seen.calls("handle_read", of="Neighbour")
                        and not seen.calls("handle_error", of="Newcomer")
                    ),
                    ("selectors",),
                ),
            ),
        ),
    ),
    Text(
        "The same again, but the newcomer is an `asynchat.async_chat`. On asyncore's "
        "own loops, what happens to it?",
        "再来一遍，但新来的是一个 `asynchat.async_chat`。在 asyncore 自己的循环上，"
        "它会怎样？",
    ),
    Step(
        Text(
            "Nothing. It is called there, too, but its `handle_read` knows that a "
            "callback may come in vain, and returns at BlockingIOError. Whoever "
            "writes a `handle_read` should do the same: ready is a hint, not a "
            "promise.",
            "不会怎样。在那里它同样被回调，但它的 `handle_read` 知道回调可能落空，"
            "遇到 BlockingIOError 就直接返回。自己写 `handle_read` 时也该这样："
            "“就绪”只是提示，不是保证。",
        ),
        swap_on_asynchat,
        (
            Excerpt(
                "asynchat:async_chat.handle_read",
                ("data = self.recv(", "return"),
                beside="handle_read",
            ),
        ),
        (
            Claim(
                Text(
                    "It was called, and there was no error.",
                    "它被回调了，但没有出错。",
                ),
                lambda seen: (
                    seen.calls("handle_read", of="Listening")
                    and not seen.calls("handle_error")
                ),
                ASYNCORES,
            ),
            Claim(
                Text(
                    "On this loop it was not even called, and there was no error.",
                    "在这个循环上它根本没被回调，也没有出错。",
                ),
                lambda seen: (
                    not seen.calls("handle_read", of="Listening")
                    and not seen.calls("handle_error")
                ),
                ("selectors",),
            ),
        ),
    ),
    Text(
        "A descriptor is a number, not a channel. Whoever remembers one has to ask "
        "whose it is now.",
        "描述符只是一个号码，不是通道。谁记下了号码，用之前就得先问一句：它现在是谁"
        "的？",
    ),
    loop="select",
)
