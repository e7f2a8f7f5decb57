"""Lesson 1: one turn of the loop."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["LESSON"]


def open_room(harness: Harness) -> None:
    harness.open_room()
    harness.facts["accepting"] = [each.accepting for each in harness.map.values()]


def accept_ann(harness: Harness) -> None:
    harness.join("ann")
    harness.facts["accepting"] = [each.accepting for each in harness.map.values()]


def send_both(harness: Harness) -> None:
    bob = harness.join("bob")
    harness.end_setup()
    bob.send("me first")
    harness.peers["ann"].send("no, me")
    harness.turn()
    bob.receive("no, me")


def collecting(run: StepRun) -> list[str]:
    """Return the peers whose data was collected, in that order."""
    calls = run.calls("collect_incoming_data")
    return run.names([call.channel for call in calls if call.channel])


LESSON = Lesson(
    Text("One turn of the loop", "一轮循环"),
    Text(
        "A reactor is a loop around one system call. Each turn (iteration) polls every "
        "channel for its interest, waits in the kernel until some are ready, and "
        "dispatches their events. There is one thread, and only the loop waits in it.",
        "reactor（反应器）就是围着一个系统调用转的循环。每一轮先询问每个通道关注什么事"
        "件，再在内核里等到有通道就绪，然后逐个分派。程序只有一个线程，只有循环会等"
        "待。",
    ),
    Step(
        "A server is a channel, too: its listening socket is in the map "
        "`{fd: channel}`. The loop has not run yet, so no callback has run either.",
        "服务器本身也是一个通道：它的监听套接字登记在 map（描述符到通道的字典，"
        "`{fd: channel}`）里。循环一轮都还没转，所以还没有任何回调。",
        open_room,
        Excerpt(
            "asyncore:dispatcher.set_socket",
            ("self.socket = sock", "self.add_channel(map)"),
        ),
        Excerpt("asyncore:dispatcher.add_channel", "map[self._fileno] = self"),
        Claim(
            "The map has one channel, the listening one.",
            "map 里只有一个通道，就是正在监听的那个。",
            lambda run: run.facts["accepting"] == [True],
        ),
    ),
    Step(
        "Ann connects, so the listening socket becomes readable. Poll, wait, dispatch: "
        "the ready set of this turn has one channel. Its callback `handle_accept` "
        "creates a second channel, Ann's.",
        "甲连接，监听套接字变为可读。询问、等待、分派：这一轮的就绪集里只有一个通道，它"
        "的回调 `handle_accept` 创建第二个通道，也就是甲的通道。",
        accept_ann,
        Excerpt(
            "asyncore:poll",
            ("for fd, obj in list", "is_w = obj.writable()"),
            "select.select(r, w, e, timeout)",
            ("for fd in r:", "read(obj)"),
            loops=("select",),
        ),
        Excerpt(
            "asyncore:poll2",
            ("for fd, obj in list", "flags |= select.POLLIN"),
            ("r = pollster.poll(timeout)", "readwrite(obj, flags)"),
            loops=("poll",),
        ),
        Excerpt(
            "compat.registrations:Registrations._poll",
            ("interest = READ_ONLY if", "if channel.writable()"),
            loops=("selectors",),
        ),
        Excerpt(
            "compat.selector_loop:SelectorLoop.turn",
            ("self.prepare()", "self.dispatch(*self.wait(timeout))"),
            loops=("selectors",),
        ),
        Excerpt(
            "legacy_chat.listener:Listener._accept_from",
            "pair = channel.accept()",
            "self.handle_accepted(*pair)",
            beside="handle_accept",
        ),
        Claim(
            "The ready set was the listening channel alone.",
            "就绪集里只有监听通道。",
            lambda run: run.readable() == [["ChatServer"]],
        ),
        Claim(
            "`handle_accept` ran once, and now the map has two channels.",
            "`handle_accept` 运行了一次，map 里现在有两个通道。",
            lambda run: (
                len(run.calls("handle_accept")) == 1
                and run.facts["accepting"] == [True, False]
            ),
        ),
    ),
    Step(
        "Ann sends `hi`. Now her channel is ready, and the listening one is not. The "
        "received data goes to `collect_incoming_data`, where your program begins: "
        "here it sends the data back with `push`.",
        "甲发送 `hi`。这次就绪的是她的通道，监听通道没有就绪。收到的数据交给 "
        "`collect_incoming_data`，你的程序从这里开始：它用 `push` 原样发回。",
        lambda harness: harness.peers["ann"].exchange("hi", "hi"),
        Excerpt(
            "legacy_chat.session:ChatSession.collect_incoming_data",
            "self.push(data)",
            "self.broadcasting(data)",
            beside="collect_incoming_data",
        ),
        Claim(
            "Only Ann's channel was ready; the listening one was not called.",
            "就绪的只有甲的通道，监听通道没有被回调。",
            lambda run: run.readable() == [["ann"]] and not run.calls("handle_accept"),
        ),
        Claim(
            "Received, collected and echoed in one turn.",
            "接收、收集、回显，全在一轮里完成。",
            lambda run: (
                len(run.turns) == 1
                and collecting(run) == ["ann"]
                and run.received("ann") == b"hi"
            ),
        ),
    ),
    Step(
        "No client sends anything. The ready set stays empty until the timeout ends "
        "the turn (asyncore: 30 seconds; here: 0). An idle server costs nothing.",
        "没有客户端发送数据。就绪集一直为空，直到超时（asyncore 默认 30 秒；这里设成 "
        "0，免得你干等），这一轮就结束了。空闲的服务器几乎不花 CPU。",
        lambda harness: harness.turn(timeout=0),
        Excerpt(
            "compat.loop:loop",
            ("if not (map or", "turn(scheduler.next_timeout("),
        ),
        Claim(
            "No channel was ready, and no callback ran.",
            "没有通道就绪，也没有任何回调。",
            lambda run: (
                [turn.why for turn in run.turns] == ["timeout"]
                and run.readable() == run.writable() == [[]]
                and not run.calls()
            ),
        ),
    ),
    question=Text(
        "Bob joins. He sends data, then Ann does, both before the next turn. How many "
        "turns does that need, and which handler runs first?",
        "乙也进来了。在下一轮之前，乙先发送数据，甲随后发送。要几轮？先运行谁的回调？",
    ),
    answer=Step(
        "One turn: both channels are in its ready set. Ann's handler runs first, "
        "because the loop walks the ready set in map order, and she joined first. "
        "Meanwhile Bob's channel waits, and so do all others: a handler that sleeps "
        "for a second stops the room for a second.",
        "一轮就够：两个通道都在就绪集里。先运行甲的回调，因为就绪集按 map 的顺序遍历，"
        "而甲先进来。其他通道都等着：哪个回调睡一秒，整个聊天室就停一秒。",
        send_both,
        Claim(
            "One turn with two channels in its ready set: Ann's, then Bob's.",
            "一轮，就绪集里有两个通道：先甲后乙。",
            lambda run: (
                run.readable() == [["ann", "bob"]] and collecting(run) == ["ann", "bob"]
            ),
        ),
    ),
    summary=Text(
        "Poll, wait, dispatch. A handler does a little and returns.",
        "询问、等待、分派。回调要短小，做完就返回。",
    ),
)
