"""Lesson 9: sixty sends or one."""

from __future__ import annotations

import socket
from typing import Any

from compat.async_chat import async_chat
from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text
from legacy_chat.session import ChatSession

__all__ = ["LESSON"]

# Lines of the menu, and clients that send in one turn.
LINES = 60
CROWD = 8

MENU = [f"{number}. tea\n".encode() for number in range(1, LINES + 1)]

CHANNEL = "compat.async_chat:async_chat"


class CountingSocket(socket.socket):
    """A socket that counts its sends."""

    sends = 0

    def send(self, *args: Any) -> int:
        self.sends += 1
        return super().send(*args)


class Guest(ChatSession):
    """A session of the room whose sends are counted."""

    def __init__(self, server: Any, conn: socket.socket, *rest: Any) -> None:
        super().__init__(server, CountingSocket(fileno=conn.detach()), *rest)


class EagerGuest(Guest):
    """Sends each message at once."""

    ac_coalesce_writes = False


class Waiter(Guest):
    """Answers any data with a menu."""

    def collect_incoming_data(self, data: bytes) -> None:
        for line in MENU:
            self.push(line)


class EagerWaiter(Waiter):
    """Sends each line at once."""

    ac_coalesce_writes = False


class Impatient(ChatSession):
    """Bypasses its queue."""

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(b"first ")
        self.socket.send(b"second ")


class EagerImpatient(Impatient):
    """The same, without coalesced writes."""

    ac_coalesce_writes = False


class Polite(ChatSession):
    """Uses the channel's own send."""

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(b"first ")
        self.send(b"second ")


def order(harness: Harness, name: str, kind: type[Waiter]) -> None:
    """One client requests the menu."""
    (peer,) = harness.room_with(name, session_class=kind)
    sock = harness.session(peer).socket
    peer.exchange("menu?", sum(map(len, MENU)))
    harness.facts[kind.__name__] = sock.sends, peer.got


def chat(harness: Harness, kind: type[Guest]) -> None:
    """All clients send in the same turn."""
    names = [f"guest {number + 1}" for number in range(CROWD)]
    guests = harness.room_with(*names, session_class=kind)
    for guest in guests:
        guest.send("hi")
    sockets = [harness.session(guest).socket for guest in guests]
    harness.turn()
    for guest in guests:
        others = [each.user for each in guests if each is not guest]
        guest.receive(sum(len(f"{user} 说:hi".encode()) for user in others) + 2)
    harness.facts[kind.__name__] = sum(each.sends for each in sockets)


def bypass_queue(harness: Harness) -> None:
    kinds = {"cid": EagerImpatient, "dan": Impatient, "eve": Polite}
    for name, kind in kinds.items():
        harness.open_room(session_class=kind)
        harness.join(name)
    harness.end_setup()
    for name in kinds:
        harness.peers[name].exchange("hi", len(b"first second "))


LESSON = Lesson(
    Text("Sixty sends or one", "发六十次，还是一次"),
    Text(
        "asynchat's `push` sends at once if possible: one system call for each `push`. "
        "A channel with coalesced writes (`ac_coalesce_writes = True`, as in the "
        "room's sessions) only queues, and flushes at the end of the turn.",
        "asynchat 的 `push` 能发就立刻发：每次 `push` 一个系统调用。合并写出的通道"
        "（`ac_coalesce_writes = True`，如聊天室的会话）只管排队，轮末一起写出去。",
    ),
    Step(
        f"Ann requests the menu. It has {LINES} lines, and the waiter calls `push` for "
        "each. This waiter does not coalesce writes.",
        f"甲要菜单。菜单有 {LINES} 行，服务员逐行 `push`。这个服务员不合并写出。",
        lambda harness: order(harness, "ann", EagerWaiter),
        Excerpt(EagerWaiter),
        Excerpt(Waiter.collect_incoming_data, beside="collect_incoming_data"),
        Excerpt(
            f"{CHANNEL}._compat_send_at_once",
            "sent = self.socket.send(data)",
            beside="collect_incoming_data",
        ),
        Claim(
            f"{LINES} calls of `send`.",
            f"调用了 {LINES} 次 `send`。",
            lambda run: run.facts["EagerWaiter"] == (LINES, b"".join(MENU)),
        ),
    ),
    Step(
        "Bob requests it from a waiter that does. The handler is the same.",
        "乙向另一个服务员要，这一个会合并写出。处理函数一字不差。",
        lambda harness: order(harness, "bob", Waiter),
        Excerpt("legacy_chat.session:ChatSession", "ac_coalesce_writes = True"),
        Excerpt(Waiter.collect_incoming_data, beside="collect_incoming_data"),
        Excerpt(
            f"{CHANNEL}.push",
            "if self.ac_coalesce_writes is True:",
            "outbox.push(self, data)",
            beside="collect_incoming_data",
        ),
        Claim(
            "One call of `send`; the same bytes, in the same order.",
            "只调用一次 `send`；字节相同，顺序也相同。",
            lambda run: run.facts["Waiter"] == (1, run.facts["EagerWaiter"][1]),
        ),
        Claim(
            "It came after all handlers, at the end of the turn.",
            "这次发送在所有回调之后，也就是这一轮结束时进行。",
            lambda run: (
                not any(
                    inner.sent
                    for call in run.calls("collect_incoming_data")
                    for inner in call.calls()
                )
            ),
        ),
    ),
    Step(
        f"Now a room without coalesced writes: {CROWD} clients send in the same turn, "
        "and each message goes to every member.",
        f"再看不合并写出的聊天室：{CROWD} 个客户端同一轮发送，每条消息发给所有人。",
        lambda harness: chat(harness, EagerGuest),
        Excerpt(
            "compat.broadcast:BroadcastGroup._push_to",
            ("for member in list(members)", "member.push(data)"),
            beside="push",
        ),
        Claim(
            f"{CROWD} × {CROWD} = {CROWD * CROWD} sends: one per message and receiver.",
            f"{CROWD} × {CROWD} = {CROWD * CROWD} 次发送：每条消息对每个接收者发一次。",
            lambda run: run.facts["EagerGuest"] == CROWD * CROWD,
        ),
    ),
    Step(
        "The same with coalesced writes, as in this room. The broadcast group keeps "
        "the turn's messages once, and at its end each member gets them in one send.",
        "同样的事，换到合并写出的聊天室。一轮的消息只记一份，轮末一次发给每个成员。",
        lambda harness: chat(harness, Guest),
        Excerpt(
            "compat.broadcast:BroadcastGroup._send_log",
            "for channel, outbox in others.items():",
            "sent = channel.socket.send(log)",
            beside="turn ends",
        ),
        Claim(
            f"{CROWD} sends: one for each member, for any number of messages.",
            f"{CROWD} 次发送：每个成员一次，不管有多少条消息。",
            lambda run: run.facts["Guest"] == CROWD,
        ),
    ),
    question=Text(
        "A handler calls `push` with `first`, then writes `second` to `self.socket`. "
        "What does the peer receive, without and with coalesced writes?",
        "某个处理函数先 `push` 了 `first`，又绕过队列，直接向 `self.socket` 写了 "
        "`second`。不合并时和合并时，对方各收到什么？",
    ),
    answer=Step(
        "`first second`, and `second first`: coalesced data leaves at the end of the "
        "turn, after data that bypasses the queue. A program that writes to its socket "
        "must leave `ac_coalesce_writes` off, the default. `self.send` flushes first.",
        "分别是 `first second` 和 `second first`：合并的数据要到轮末才发，绕过队列的就"
        "插了队。直接写套接字的程序不要打开 `ac_coalesce_writes`（默认关闭）。"
        "`self.send` 可以用：它会先把排队的写出去。",
        bypass_queue,
        Excerpt(Impatient.collect_incoming_data, beside="collect_incoming_data"),
        Claim(
            "Cid's session does not coalesce: `first second`. Dan's: `second first`.",
            "丙的会话不合并：`first second`。丁的会话合并：`second first`。",
            lambda run: (
                run.received("cid") == b"first second "
                and run.received("dan") == b"second first "
            ),
        ),
        Claim(
            "Eve's coalesces, and uses `self.send`: `first second`. By default, "
            "`ac_coalesce_writes` is off.",
            "戊的合并，用 `self.send`：`first second`。`ac_coalesce_writes` 默认关闭。",
            lambda run: (
                run.received("eve") == b"first second "
                and not async_chat.ac_coalesce_writes
            ),
        ),
    ),
    summary=Text(
        "A system call costs more than its bytes. Queue in the turn, flush at its end.",
        "系统调用的开销，远大于它捎带的那点字节。轮中排队，轮末写出。",
    ),
)
