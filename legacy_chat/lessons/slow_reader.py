"""Lesson 5: the slow reader."""

from __future__ import annotations

import socket

from legacy_chat.lessons.engine.harness import Peer, Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

__all__ = ["LESSON"]

# Bytes that Ann says at a time.
PIECE = b"=" * 16384

# What the kernel is asked to keep for Bob, on either side; it takes twice of it.
KERNEL = 32768

# Bytes that may wait for a client in this room.
LIMIT = 65536


def fill_the_kernel(stage: Stage) -> None:
    stage.open_room(send_queue=LIMIT)
    ann = stage.enter("ann")
    bob = stage.enter("bob", receive_buffer=KERNEL)
    keep_little(stage, bob)
    stage.begin()
    stage.repeat(lambda: say(stage, ann), lambda: stage.session(bob).ac_backlog_size())
    pieces = len(ann.got) // len(PIECE)
    stage.facts["told"] = pieces * len(f"{ann.user} 说:".encode() + PIECE)
    stage.facts["backlog"] = stage.session(bob).ac_backlog_size()
    stage.facts["ann's backlog"] = stage.session(ann).ac_backlog_size()


def read_it_all(stage: Stage) -> None:
    bob = stage.peer("bob")
    session = stage.session(bob)

    def is_taken() -> bool:
        bob.hear_all()
        return not session.ac_backlog_size()

    stage.turn_until(is_taken)
    while len(bob.got) < stage.facts["told"]:
        bob.hear(1)
    stage.turn(timeout=0)
    stage.facts["got"] = len(bob.got)
    stage.facts["backlog"] = session.ac_backlog_size()


def fall_behind(stage: Stage) -> None:
    ann, bob = stage.peer("ann"), stage.peer("bob")
    stage.repeat(lambda: say(stage, ann), lambda: stage.session(bob) is None)
    stage.facts["peak"] = stage.room.counters.backlog_peak
    stage.facts["slow"] = stage.room.counters.closed["slow"]
    say(stage, ann)


def never_hear_the_echo(stage: Stage) -> None:
    cid = stage.enter("cid", receive_buffer=KERNEL)
    keep_little(stage, cid)
    stage.begin()

    def talk() -> None:
        cid.say(PIECE)
        stage.turn()

    stage.repeat(talk, lambda: stage.session(cid) is None)
    stage.facts["slow"] = stage.room.counters.closed["slow"]


def say(stage: Stage, ann: Peer) -> None:
    """Ann says a piece, and hears it."""
    ann.say(PIECE)
    stage.turn()
    ann.hear(len(PIECE))


def keep_little(stage: Stage, peer: Peer) -> None:
    """Or it would take megabytes until the kernel is full."""
    sock = stage.session(peer).socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)


LESSON = Lesson(
    Text("The slow reader", "慢读者"),
    Text(
        "Sending does not wait either. `send` takes what the kernel has room for; the "
        "rest is the channel's backlog, and what is queued in a program has no limit "
        "unless somebody sets one.",
        "发送也不会等待。`send` 只收下内核缓冲区装得下的部分，其余的就成了通道的积压；"
        "而程序里的队列是没有上限的，除非有人给它设一个。",
    ),
    (
        Step(
            Text(
                "Ann says 16 KiB at a time; Bob does not read. His kernel's buffer "
                "fills, then the server's, and then `send` takes less than it is "
                "given. What is left is queued, and from now on his channel is "
                "interested in writing.",
                "甲一次说 16 KiB，乙一个字节也不读。先是乙那边的内核缓冲区满了，再是"
                "服务器这边的，然后 `send` 收下的就比给它的少。剩下的进了队列，"
                "从这时起，他的通道开始关注可写事件。",
            ),
            fill_the_kernel,
            (
                Excerpt(
                    "compat.audience:_leave",
                    ("channel._compat_queue", "announce(channel)"),
                    beside="turn ends",
                ),
                Excerpt("compat.chat:async_chat.writable", "return bool("),
            ),
            (
                Claim(
                    Text(
                        "Bob has a backlog, smaller than what he was told: the rest is "
                        "in the two kernel buffers.",
                        "乙有了积压，但比对他说过的总量少：其余的在两端的内核缓冲区"
                        "里。",
                    ),
                    lambda seen: 0 < seen.facts["backlog"] < seen.facts["told"],
                ),
                Claim(
                    Text(
                        "Ann, who reads, has none: she heard every echo in its turn.",
                        "甲一直在读，所以没有积压：每一句回显她都在当轮收到。",
                    ),
                    lambda seen: (
                        seen.facts["ann's backlog"] == 0
                        and set(seen.heard["ann"]) == set(PIECE)
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Bob wakes up and reads. Whenever there is room again, his channel is "
                "in the ready set for writing, and `handle_write` sends the next "
                "piece; until the queue is empty, and the interest is gone.",
                "乙醒过来开始读。内核一有空位，他的通道就进入可写的就绪集，"
                "`handle_write` 再发出一段；直到队列发空，对可写事件的关注也就取消了。",
            ),
            read_it_all,
            (
                Excerpt(
                    "compat.chat:async_chat.initiate_send",
                    ("if len(fifo) > 1:", "self._compat_send_first(fifo)"),
                    beside="handle_write",
                ),
            ),
            (
                Claim(
                    Text(
                        "`handle_write` of Bob's channel was called.",
                        "乙的通道的 `handle_write` 被回调了。",
                    ),
                    lambda seen: seen.calls("handle_write", of="bob"),
                ),
                Claim(
                    Text(
                        "Bob has every byte that he was told, and no backlog.",
                        "对乙说过的每个字节都到了，积压为零。",
                    ),
                    lambda seen: (
                        seen.facts["got"] == seen.facts["told"]
                        and seen.facts["backlog"] == 0
                    ),
                ),
                Claim(
                    Text(
                        "There was interest in writing while there was a queue, and in "
                        "the last turn there is none: nobody is ready.",
                        "队列里有数据时，关注可写；到最后一轮就不再关注，"
                        "没有通道就绪。",
                    ),
                    lambda seen: (
                        [event.fields["w"] for event in seen.interests("bob")]
                        == [True, False]
                        and seen.turns[-1].why == "timeout"
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Bob falls asleep again. This room lets 64 KiB wait for a client "
                "(`--send-queue`), so when a turn has added to a backlog, it is looked "
                "at, and who has too much is closed.",
                "乙又睡着了。这个聊天室最多让一个客户端积压 64 KiB（`--send-queue`）。"
                "每当一轮给某个通道的积压又添了数据，就检查一次，超过上限的就关掉。",
            ),
            fall_behind,
            (
                Excerpt(
                    "compat.chat:async_chat._compat_look_at_backlog",
                    beside="handle_backlog",
                ),
                Excerpt(
                    "legacy_chat.session:ChatSession.handle_backlog",
                    'close_because("slow")',
                    beside="handle_backlog",
                ),
            ),
            (
                Claim(
                    Text(
                        "Bob was closed, and the log says why: slow.",
                        "乙被关闭，日志里写着原因：slow。",
                    ),
                    lambda seen: (
                        seen.facts["slow"] == 1
                        and any("closed: slow" in line for line in seen.logged)
                    ),
                ),
                Claim(
                    Text(
                        "More than 64 KiB were waiting for him, and not much more: a "
                        "few pieces.",
                        "当时他的积压超过 64 KiB，但没有超过太多：至多再加几段。",
                    ),
                    lambda seen: LIMIT < seen.facts["peak"] < LIMIT + 4 * len(PIECE),
                ),
                Claim(
                    Text(
                        "Ann still hears her echo: a slow reader costs nobody else "
                        "anything.",
                        "甲照样收到回显：慢读者不拖累任何人。",
                    ),
                    lambda seen: seen.heard["ann"].endswith(PIECE),
                ),
            ),
        ),
    ),
    Text(
        "Cid is alone in the room with Ann. He talks and talks, and never reads. "
        "Nobody says a word to him. Is he a slow reader?",
        "丙进来了。他说个不停，但从来不读；也没有人对他说话。他算慢读者吗？",
    ),
    Step(
        Text(
            "Yes. The room echoes what he says, and the echo waits for him like "
            "anything else. Whoever talks to an echo has to listen.",
            "算。聊天室会回显他说的话，回显和别的数据一样，要等他来读。"
            "对着会回显的服务器说话，就得自己听着。",
        ),
        never_hear_the_echo,
        (),
        (
            Claim(
                Text("Cid is closed, too: slow.", "丙也被关闭了，原因同样是 slow。"),
                lambda seen: seen.facts["slow"] == 2,
            ),
        ),
    ),
    Text(
        "Between a fast speaker and a slow reader there is a queue. Know who owns it, "
        "and set its limit.",
        "说得快的和读得慢的之间总有一个队列。要知道它在谁那里，并给它设上限。",
    ),
)
