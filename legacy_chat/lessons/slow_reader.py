"""Lesson 5: the slow reader."""

from __future__ import annotations

import socket

from legacy_chat.lessons.engine.harness import Harness, Peer
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

__all__ = ["LESSON"]

# Bytes that a client sends at a time.
PIECE = b"=" * 16384

# Requested bytes of each kernel buffer between the room and Bob; Linux doubles it.
# With the default, it takes megabytes to fill them.
KERNEL = 32768

# Bytes of a client's backlog that this room allows.
LIMIT = 65536


def fill_kernel_buffers(harness: Harness) -> None:
    harness.open_room(send_queue=LIMIT)
    ann, bob = harness.join("ann"), join_with_small_buffers(harness, "bob")
    session = harness.session(bob)
    harness.repeat(lambda: ann.exchange(PIECE, len(PIECE)), session.ac_backlog_size)
    pieces = len(ann.got) // len(PIECE)
    harness.facts["sent"] = pieces * len(f"{ann.user} 说:".encode() + PIECE)
    harness.facts["backlog"] = session.ac_backlog_size()
    harness.facts["ann's backlog"] = harness.session(ann).ac_backlog_size()


def read_everything(harness: Harness) -> None:
    bob = harness.peers["bob"]
    session = harness.session(bob)

    def is_flushed() -> bool:
        bob.receive_pending()
        return not session.ac_backlog_size()

    harness.turn_until(is_flushed)
    while len(bob.got) < harness.facts["sent"]:
        bob.receive(1)
    harness.turn(timeout=0)
    harness.facts["received"] = len(bob.got)
    harness.facts["backlog"] = session.ac_backlog_size()


def fall_behind(harness: Harness) -> None:
    ann, bob = harness.peers["ann"], harness.peers["bob"]

    def send() -> None:
        ann.exchange(PIECE, len(PIECE))

    harness.repeat(send, lambda: not harness.session(bob))
    harness.facts["peak"] = harness.room.counters.backlog_peak
    harness.facts["slow"] = harness.room.counters.closed["slow"]
    send()


def ignore_own_echo(harness: Harness) -> None:
    cid = join_with_small_buffers(harness, "cid")
    harness.repeat(lambda: cid.exchange(PIECE, 0), lambda: not harness.session(cid))
    harness.facts["slow"] = harness.room.counters.closed["slow"]


def join_with_small_buffers(harness: Harness, name: str) -> Peer:
    """Let a peer join whose connection buffers little, as the end of the setup."""
    peer = harness.join(name, receive_buffer=KERNEL)
    sock = harness.session(peer).socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
    harness.end_setup()
    return peer


LESSON = Lesson(
    Text("The slow reader", "慢读者"),
    Text(
        "Sending does not wait either. `send` accepts as much as the kernel has room "
        "for. The rest is the channel's backlog, without a limit unless you set one.",
        "发送也不会等待。`send` 只收下内核缓冲区装得下的部分，其余的就成了通道的积压；"
        "而程序里的队列是没有上限的，除非你给它设一个。",
    ),
    Step(
        "Ann sends 16 KiB at a time; Bob does not read. His kernel's buffer fills, "
        "then the server's, and then `send` accepts less than it is given. The rest is "
        "queued, and from now on his channel is interested in writing.",
        "甲一次发送 16 KiB，乙不读。先是乙那边的内核缓冲区满了，再是服务器这边的，然后 "
        "`send` 收下的就比给它的少。剩下的进了队列，从此他的通道关注可写。",
        fill_kernel_buffers,
        Excerpt(
            "compat._outbox:Outbox.put_back",
            ("insert(", "self.wait_for_peer(channel)"),
            beside="turn ends",
        ),
        Excerpt("compat.async_chat:wants_to_write", "return bool("),
        Claim(
            "Bob's backlog is less than the sent data: kernel buffers have the rest.",
            "乙有了积压，但比发给他的总量少：其余的在两端的内核缓冲区里。",
            lambda run: 0 < run.facts["backlog"] < run.facts["sent"],
        ),
        Claim(
            "Ann reads, so she has no backlog: she received every echo in its turn.",
            "甲一直在读，所以没有积压：每一次回显她都在当轮收到。",
            lambda run: (
                run.facts["ann's backlog"] == 0
                and set(run.received("ann")) == set(PIECE)
            ),
        ),
    ),
    Step(
        "Bob starts to read. Whenever the kernel has room again, his channel is in the "
        "ready set for writing, and `handle_write` sends the next piece. When the "
        "queue is empty, the interest ends.",
        "乙开始读了。内核缓冲区一有空间，他的通道就进入可写的就绪集，`handle_write` 再"
        "发出一段；队列一空，就不再关注可写事件。",
        read_everything,
        Excerpt(
            "compat._outbox:Outbox.send_first",
            ("if len(queue) > 1:", "self._send_entry(channel, queue)"),
            beside="handle_write",
        ),
        Claim(
            "`handle_write` of Bob's channel ran.",
            "乙的通道的 `handle_write` 运行了。",
            lambda run: run.calls("handle_write", of="bob"),
        ),
        Claim(
            "Bob has received every byte sent to him, and has no backlog.",
            "发给乙的每个字节都到了，积压为零。",
            lambda run: (
                run.facts["received"] == run.facts["sent"] and run.facts["backlog"] == 0
            ),
        ),
        Claim(
            "The channel was interested in writing while data was queued. In the last "
            "turn it is not, and no channel is ready.",
            "队列里有数据时，通道关注可写；到最后一轮就不再关注，没有通道就绪。",
            lambda run: (
                [event.fields["w"] for event in run.interests("bob")] == [True, False]
                and run.turns[-1].why == "timeout"
            ),
        ),
    ),
    Step(
        "Bob stops reading again. This room allows a backlog of 64 KiB "
        "(`--send-queue`). It checks a backlog after each turn that added to it, and "
        "disconnects a client that exceeds the limit.",
        "乙又不读了。这个聊天室最多让一个客户端积压 64 KiB（`--send-queue`）。每当一轮"
        "给某个通道的积压添了数据，就检查一次，超过上限就断开。",
        fall_behind,
        Excerpt("compat._outbox:Outbox.check_backlog", beside="handle_backlog"),
        Excerpt(
            "legacy_chat.session:ChatSession.handle_backlog",
            'close_because("slow")',
            beside="handle_backlog",
        ),
        Claim(
            "Bob was disconnected, and the log has the reason: slow.",
            "乙被断开，日志里写着原因：slow。",
            lambda run: (
                run.facts["slow"] == 1
                and any("closed: slow" in line for line in run.logged())
            ),
        ),
        Claim(
            "His backlog exceeded 64 KiB by a few pieces at most.",
            "当时他的积压超过 64 KiB，但没有超过太多：至多再加几段。",
            lambda run: LIMIT < run.facts["peak"] < LIMIT + 4 * len(PIECE),
        ),
        Claim(
            "Ann still receives her echo: a slow reader does not affect the others.",
            "甲照样收到回显：慢读者不影响别人。",
            lambda run: run.received("ann").endswith(PIECE),
        ),
    ),
    question=Text(
        "Cid is alone in the room with Ann. He sends and sends, and never reads. Ann "
        "sends nothing. Is he a slow reader?",
        "丙进来了，房间里只有他和甲。他不停地发送，从来不读；甲不发送。他算慢读者吗？",
    ),
    answer=Step(
        "Yes. The room echoes his data, and the echo is queued like any other data. A "
        "client that is echoed has to read.",
        "算。聊天室会回显他发送的数据，回显同样要排队等他来读。有回显，就得自己读。",
        ignore_own_echo,
        Claim(
            "Cid is disconnected as well: slow.",
            "丙也被断开了，原因同样是 slow。",
            lambda run: run.facts["slow"] == 2,
        ),
    ),
    summary=Text(
        "Between a fast sender and a slow reader is a queue. Find it, and limit it.",
        "发得快的和读得慢的之间总有一个队列。要知道它在哪里，并给它设上限。",
    ),
)
