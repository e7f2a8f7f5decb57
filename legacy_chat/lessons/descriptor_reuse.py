"""Lesson 6: the descriptor that came back."""

from __future__ import annotations

import asynchat
import asyncore
import socket
from collections.abc import Callable
from typing import Any

from legacy_chat.lessons.engine.harness import Harness, ScenarioError
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

__all__ = ["LESSON"]

# The loops of asyncore itself.
ASYNCORE = ("select", "poll")

# Socket pairs to open, at most, until a number comes back; the lowest comes first.
MAX_PAIRS = 200


class Newcomer(asyncore.dispatcher):
    """A channel whose peer sends nothing."""

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(100)


class Neighbour(Newcomer):
    """Is readable in the same turn as Greedy."""


class Greedy(Newcomer):
    """Closes its neighbour, and opens a channel that gets the same number."""

    neighbour: asyncore.dispatcher
    open_another: Callable[[int], object]

    def handle_read(self) -> None:
        self.recv(100)
        number = self.neighbour.socket.fileno()
        self.neighbour.close()
        self.open_another(number)


class Listening(asynchat.async_chat):
    """As Newcomer, with asynchat."""

    def collect_incoming_data(self, data: bytes) -> None:
        """There is none."""

    def found_terminator(self) -> None:
        """There is none."""


def come_and_go(harness: Harness) -> None:
    harness.open_room()
    ann = harness.join("ann")
    session = harness.session(ann)
    harness.facts["ann's"] = session.socket.fileno()
    ann.disconnect()
    harness.turn()
    bob = harness.join("bob")
    harness.facts["bob's"] = harness.session(bob).socket.fileno()
    harness.facts["same"] = harness.session(bob) is session


def swap(harness: Harness, kind: Callable[..., Any]) -> None:
    """Two channels are ready; the first closes the second, and opens a third."""
    near_cid, cid = harness.socket_pair("cid")
    near_dan, dan = harness.socket_pair("dan")
    greedy = Greedy(near_cid, harness.map)
    greedy.neighbour = Neighbour(near_dan, harness.map)

    def open_another(number: int) -> None:
        channel = kind(_socket_with(number, harness), harness.map)
        harness.facts["numbers"] = (number, channel.socket.fileno())
        harness.on_exit(channel.close)

    greedy.open_another = open_another
    cid.send("now")
    dan.send("me too")
    harness.turn()
    harness.turn(timeout=0)
    greedy.close()


def _socket_with(number: int, harness: Harness) -> socket.socket:
    """Return a connected socket with this free number."""
    for _ in range(MAX_PAIRS):
        pair = socket.socketpair()
        for end in pair:
            harness.on_exit(end.close)
        for end in pair:
            if end.fileno() == number:
                return end
    raise ScenarioError(f"descriptor {number} does not come back")


LESSON = Lesson(
    Text("The descriptor that came back", "又回来的描述符"),
    Text(
        "A loop's map is keyed by descriptors. They are small numbers that the system "
        "reuses: it always returns the lowest free one.",
        "循环的 map 以描述符为键。描述符是会重新分配的小整数：总是当前空闲的最小的。",
    ),
    Step(
        "Ann joins and disconnects; then Bob joins. His channel gets the number that "
        "hers had. Between two turns that is harmless: `close` has removed her channel "
        "from the map before his is added.",
        "甲进来又断开，然后乙进来。乙的通道拿到的正是甲用过的号码。发生在两轮之间就没有"
        "问题：`close` 先把甲的通道移出 map，之后才加入乙的。",
        come_and_go,
        Excerpt(
            "asyncore:dispatcher.del_channel",
            ("if fd in map:", "self._fileno = None"),
            beside="handle_close",
        ),
        Claim(
            "The same number, but another channel.",
            "号码相同，通道却是另一个。",
            lambda run: (
                run.facts["ann's"] == run.facts["bob's"] and not run.facts["same"]
            ),
        ),
    ),
    Step(
        "Now within one turn, with three asyncore channels. `Greedy` and `Neighbour` "
        "are both in the ready set. Greedy is called first, closes Neighbour, and "
        "opens `Newcomer`, which gets Neighbour's number. No data was sent to "
        "Newcomer. Does the loop call it?",
        "现在让它发生在同一轮里，用三个普通的 asyncore 通道。`Greedy` 和 `Neighbour` 都"
        "在就绪集里。先回调 Greedy，它关掉 Neighbour，又打开 `Newcomer`，后者拿到了 "
        "Neighbour 的号码。没有人向 Newcomer 发送过数据。循环会回调它吗？",
        lambda harness: swap(harness, Newcomer),
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
            "compat.registration:Registration.is_current",
            "map.get(self.key) is self.channel",
            "is self.socket",
            beside="handle_read",
            loops=("selectors",),
        ),
        Claim(
            "Newcomer has Neighbour's number.",
            "Newcomer 的号码就是 Neighbour 的号码。",
            lambda run: len(set(run.facts["numbers"])) == 1,
        ),
        Claim(
            "On this loop, yes: it gets Neighbour's event, because it has the same "
            "number. There is nothing to read, `recv` raises BlockingIOError, and "
            "`handle_error` closes a channel that did nothing wrong.",
            "在这个循环上，会。它收到 Neighbour 的事件，只因为号码相同。没有数据可读，"
            "`recv` 抛出 BlockingIOError，`handle_error` 关掉一个没有犯错的通道。",
            lambda run: (
                run.errors("handle_read", of="Newcomer") == ["BlockingIOError"]
                and len(run.calls("handle_error", of="Newcomer")) == 1
            ),
            ASYNCORE,
        ),
        Claim(
            "On this loop, no, and it does not call Neighbour either: it dispatches an "
            "event only to the channel and socket that were registered for it.",
            "在这个循环上，不会，Neighbour 也不会：事件只给当初注册的通道和套接字。",
            lambda run: (
                run.calls("handle_read", of="Greedy")
                and not run.calls("handle_read", of="Newcomer")
                and not run.calls("handle_read", of="Neighbour")
                and not run.calls("handle_error", of="Newcomer")
            ),
            ("selectors",),
        ),
    ),
    question=Text(
        "The same again, but the newcomer is an `asynchat.async_chat`. What happens to "
        "it on asyncore's own loops?",
        "再来一遍，但新来的是 `asynchat.async_chat`。在 asyncore 自己的循环上会怎样？",
    ),
    answer=Step(
        "Nothing. It is called there, too, but its `handle_read` expects spurious "
        "events, and returns at BlockingIOError. Your `handle_read` should do the "
        "same: readiness is a hint, not a promise.",
        "不会怎样。它同样被回调，但它的 `handle_read` 知道事件可能是虚假的，遇到 "
        "BlockingIOError 就返回。自己的 `handle_read` 也该这样：“就绪”不是保证。",
        lambda harness: swap(harness, Listening),
        Excerpt(
            "asynchat:async_chat.handle_read",
            ("data = self.recv(", "return"),
            beside="handle_read",
        ),
        Claim(
            "It was called, and there was no error.",
            "它被回调了，但没有出错。",
            lambda run: (
                run.calls("handle_read", of="Listening")
                and not run.calls("handle_error")
            ),
            ASYNCORE,
        ),
        Claim(
            "On this loop it was not even called, and there was no error.",
            "在这个循环上它根本没被回调，也没有出错。",
            lambda run: (
                not run.calls("handle_read", of="Listening")
                and not run.calls("handle_error")
            ),
            ("selectors",),
        ),
    ),
    summary=Text(
        "A descriptor is a number, not a channel. Before you use one that you have "
        "kept, check whose it is now.",
        "描述符只是一个号码，不是通道。用记下的号码之前，先检查它现在属于谁。",
    ),
    loop="select",
)
