"""Lesson 9: sixty sends or one."""

from __future__ import annotations

import socket
from typing import Any

from compat.chat import async_chat
from legacy_chat.lessons.engine.harness import Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text
from legacy_chat.session import ChatSession

__all__ = ["LESSON"]

# Lines of the menu; and how many talk in one turn.
LINES = 60
CROWD = 8

MENU = [f"{number}. tea\n".encode() for number in range(1, LINES + 1)]


class Counted(socket.socket):
    """A socket that counts how often it is asked to send."""

    sends = 0

    def send(self, *args: Any) -> int:
        self.sends += 1
        return super().send(*args)


class Waiter(ChatSession):
    """Shows a menu to whoever says a word."""

    def __init__(self, server: Any, conn: socket.socket, *rest: Any) -> None:
        super().__init__(server, Counted(fileno=conn.detach()), *rest)

    def collect_incoming_data(self, data: bytes) -> None:
        for line in MENU:
            self.push(line)


class EagerWaiter(Waiter):
    """Sends each line at once."""

    ac_gather = False


class Guest(ChatSession):
    """A session of the room whose sends are counted."""

    def __init__(self, server: Any, conn: socket.socket, *rest: Any) -> None:
        super().__init__(server, Counted(fileno=conn.detach()), *rest)


class EagerGuest(Guest):
    """Sends each message at once."""

    ac_gather = False


class Impatient(ChatSession):
    """Writes one thing itself, past its queue."""

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(b"first ")
        self.socket.send(b"second ")


class Polite(ChatSession):
    """Gathers, and uses the channel's own send."""

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(b"first ")
        self.send(b"second ")


class EagerImpatient(Impatient):
    """The same, and does not gather."""

    ac_gather = False


def ask_eager(stage: Stage) -> None:
    ask(stage, "ann", EagerWaiter)


def ask_gathering(stage: Stage) -> None:
    ask(stage, "bob", Waiter)


def ask(stage: Stage, name: str, kind: type[Waiter]) -> None:
    stage.open_room(session_class=kind)
    peer = stage.enter(name)
    session = stage.session(peer)
    stage.begin()
    peer.say("menu?")
    stage.turn()
    peer.hear(sum(map(len, MENU)))
    stage.facts[kind.__name__] = session.socket.sends, peer.got


def talk_eagerly(stage: Stage) -> None:
    all_talk(stage, EagerGuest)


def talk_gathering(stage: Stage) -> None:
    all_talk(stage, Guest)


def all_talk(stage: Stage, kind: type[Guest]) -> None:
    room = stage.open_room(session_class=kind)
    guests = [stage.enter(f"guest {number + 1}") for number in range(CROWD)]
    stage.begin()
    for guest in guests:
        guest.say("hi")
    sockets = [session.socket for session in room.clients]
    stage.turn()
    for guest in guests:
        others = [each.user for each in guests if each is not guest]
        guest.hear(sum(len(f"{user} 说:hi".encode()) for user in others) + 2)
    stage.facts[kind.__name__] = sum(each.sends for each in sockets)


def write_past(stage: Stage) -> None:
    kinds = {"cid": EagerImpatient, "dan": Impatient, "eve": Polite}
    peers = []
    for name, kind in kinds.items():
        stage.open_room(session_class=kind)
        peers.append(stage.enter(name))
    stage.begin()
    for peer in peers:
        peer.say("hi")
        stage.turn()
        peer.hear(len(b"first second "))
    stage.facts["foreign"] = async_chat.ac_gather


LESSON = Lesson(
    Text("Sixty sends or one", "发六十次，还是一次"),
    Text(
        "`push` of asynchat sends at once, if it can: a system call for each `push`. "
        "A channel that gathers only queues, and writes when the turn is over: "
        "`ac_gather = True`, as the room's sessions have it.",
        "asynchat 的 `push` 能发就立刻发：每次 `push` 一个系统调用。"
        "会合并发送的通道（gather，`ac_gather = True`，聊天室的会话就是这样）"
        "只管排队，等这一轮结束时一起写出去。",
    ),
    (
        Step(
            Text(
                f"Ann asks a waiter for the menu. It has {LINES} lines, and he calls "
                "`push` for each. This waiter does not gather.",
                f"甲向服务员要菜单。菜单有 {LINES} 行，服务员一行一行地 `push`。"
                "这个服务员不合并发送。",
            ),
            ask_eager,
            (
                Excerpt(EagerWaiter),
                Excerpt(Waiter.collect_incoming_data, beside="collect_incoming_data"),
                Excerpt(
                    "compat.chat:async_chat.push",
                    "self._compat_push_at_once(data)",
                    beside="collect_incoming_data",
                ),
            ),
            (
                Claim(
                    Text(
                        f"{LINES} calls of `send`.",
                        f"调用了 {LINES} 次 `send`。",
                    ),
                    lambda seen: seen.facts["EagerWaiter"] == (LINES, b"".join(MENU)),
                ),
            ),
        ),
        Step(
            Text(
                "Bob asks another one, who does gather. The handler is the same.",
                "乙问了另一个服务员，这一个会合并发送。处理函数一字不差。",
            ),
            ask_gathering,
            (
                Excerpt("legacy_chat.session:ChatSession", "ac_gather = True"),
                Excerpt(Waiter.collect_incoming_data, beside="collect_incoming_data"),
                Excerpt(
                    "compat.chat:async_chat.push",
                    ("elif self.ac_gather is True:", "self._compat_wait()"),
                    beside="collect_incoming_data",
                ),
            ),
            (
                Claim(
                    Text(
                        "One call of `send`; the same bytes, in the same order.",
                        "只调用一次 `send`；字节相同，顺序也相同。",
                    ),
                    lambda seen: (
                        seen.facts["Waiter"] == (1, seen.facts["EagerWaiter"][1])
                    ),
                ),
                Claim(
                    Text(
                        "It was made when the handlers were through, as the turn "
                        "ended.",
                        "这次发送在所有回调之后，也就是这一轮结束时进行。",
                    ),
                    lambda seen: (
                        not any(
                            inner.sent
                            for call in seen.calls("collect_incoming_data")
                            for inner in call.calls()
                        )
                    ),
                ),
            ),
        ),
        Step(
            Text(
                f"What it costs a room not to gather: {CROWD} people talk in the same "
                "turn, and each message is for everybody.",
                f"聊天室不合并会怎样？{CROWD} 个人在同一轮里说话，"
                "每句话都要发给所有人。",
            ),
            talk_eagerly,
            (
                Excerpt(
                    "compat.audience:Audience._push_to",
                    ("for member in list(members)", "member.push(data)"),
                    beside="push",
                ),
            ),
            (
                Claim(
                    Text(
                        f"{CROWD} × {CROWD} = {CROWD * CROWD} sends: one for each "
                        "message and listener.",
                        f"{CROWD} × {CROWD} = {CROWD * CROWD} 次发送："
                        "每句话对每个听众发一次。",
                    ),
                    lambda seen: seen.facts["EagerGuest"] == CROWD * CROWD,
                ),
            ),
        ),
        Step(
            Text(
                "The same in a room that gathers, as this one does. What was said in "
                "the turn is written down once, and when it ends, each listener gets "
                "that in one piece.",
                "同样的事，换到会合并的聊天室（我们的就是）。一轮里说过的话只记一份，"
                "轮末一次性发给每个听众。",
            ),
            talk_gathering,
            (
                Excerpt(
                    "compat.audience:Audience._compat_turn_ends",
                    "for channel, part in list(parts.items()):",
                    "for channel, reads_log in members:",
                    "sent = channel.socket.send(log)",
                    beside="turn ends",
                ),
            ),
            (
                Claim(
                    Text(
                        f"{CROWD} sends: one for each listener, however much was said.",
                        f"{CROWD} 次发送：每个听众一次，不管说了多少句。",
                    ),
                    lambda seen: seen.facts["Guest"] == CROWD,
                ),
            ),
        ),
    ),
    Text(
        "A handler calls `push` with `first` and then writes `second` to "
        "`self.socket` itself. What does the peer get, without gathering and with it?",
        "某个处理函数先 `push` 了 `first`，又绕过队列，自己往 `self.socket` 写了 "
        "`second`。不合并时和合并时，对方各收到什么？",
    ),
    Step(
        Text(
            "`first second`, and `second first`: what is gathered leaves with the end "
            "of the turn, and is overtaken by whoever goes past the queue. A program "
            "that does that leaves `ac_gather` off, and off is what it is for foreign "
            "programs. `self.send` may be used: it writes first what waits.",
            "分别是 `first second` 和 `second first`：合并的数据要到这一轮结束才发，"
            "谁绕过队列，谁就插了队。这样写的程序不要打开 `ac_gather`；"
            "对外来的程序，它默认就是关的。`self.send` 可以用：它会先把排队的写出去。",
        ),
        write_past,
        (Excerpt(Impatient.collect_incoming_data, beside="collect_incoming_data"),),
        (
            Claim(
                Text(
                    "Cid, of a session that does not gather: `first second`. Dan, of "
                    "one that does: `second first`.",
                    "丙的会话不合并：`first second`。丁的会话合并：`second first`。",
                ),
                lambda seen: (
                    seen.heard["cid"] == b"first second "
                    and seen.heard["dan"] == b"second first "
                ),
            ),
            Claim(
                Text(
                    "Eve's session gathers and uses `self.send`: `first second`. And "
                    "`ac_gather` is off unless a class turns it on.",
                    "戊的会话合并，但用的是 `self.send`：`first second`。"
                    "而 `ac_gather` 默认是关的，要由类自己打开。",
                ),
                lambda seen: (
                    seen.heard["eve"] == b"first second "
                    and seen.facts["foreign"] is False
                ),
            ),
        ),
    ),
    Text(
        "A system call costs more than the bytes in it. Queue during the turn, write "
        "at its end.",
        "系统调用的开销，远大于它捎带的那点字节。轮中排队，轮末写出。",
    ),
)
