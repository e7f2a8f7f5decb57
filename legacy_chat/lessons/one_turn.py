"""Lesson 1: one turn of the loop."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Stage
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Seen, Step, Text

__all__ = ["LESSON"]


def open_room(stage: Stage) -> None:
    stage.open_room()
    stage.facts["listening"] = [each.accepting for each in stage.map.values()]


def let_ann_in(stage: Stage) -> None:
    stage.knock("ann")
    stage.turn()
    stage.facts["listening"] = [each.accepting for each in stage.map.values()]


def say_hi(stage: Stage) -> None:
    stage.peer("ann").say("hi")
    stage.turn()
    stage.peer("ann").hear("hi")


def say_nothing(stage: Stage) -> None:
    stage.turn(timeout=0)


def speak_at_once(stage: Stage) -> None:
    bob = stage.enter("bob")
    stage.begin()
    bob.say("me first")
    stage.peer("ann").say("no, me")
    stage.turn()
    bob.hear("no, me")


def spoke(seen: Seen) -> list[str]:
    """Whose words were collected, in that order."""
    calls = seen.calls("collect_incoming_data")
    return [seen.peer_of(call.channel) for call in calls if call.channel]


LESSON = Lesson(
    Text("One turn of the loop", "一轮循环"),
    Text(
        "A reactor is a loop around one system call. In every turn it asks each "
        "channel for its interest, waits in the kernel until some are ready, and "
        "calls those back. There is one thread, and nobody waits in it but the loop.",
        "reactor（反应器）就是围着一个系统调用转的循环。每一轮，它先问每个通道"
        "对什么事件感兴趣，再到内核里等，等到有通道就绪，就逐个回调。"
        "整个程序只有一个线程，能在里面等待的只有循环自己。",
    ),
    (
        Step(
            Text(
                "A server is a channel, too: its listening socket, in the map "
                "`{fd: channel}`. Nothing has turned yet, so nothing has "
                "been called.",
                "服务器本身也是一个通道：它的监听套接字登记在 map（描述符到通道的字"
                "典，`{fd: channel}`）里。循环一轮都还没转，所以什么都没有被回调。",
            ),
            open_room,
            (
                Excerpt(
                    "asyncore:dispatcher.set_socket",
                    ("self.socket = sock", "self.add_channel(map)"),
                ),
                Excerpt("asyncore:dispatcher.add_channel", "map[self._fileno] = self"),
            ),
            (
                Claim(
                    Text(
                        "The map has one channel, and that listens.",
                        "map 里只有一个通道，就是正在监听的那个。",
                    ),
                    lambda seen: seen.facts["listening"] == [True],
                ),
            ),
        ),
        Step(
            Text(
                "Ann connects, which makes the listening socket readable. Ask, wait, "
                "call: the ready set of this turn has one member, and its callback, "
                "`handle_accept`, makes a second channel: Ann's.",
                "甲连了上来，监听套接字于是变为可读。问、等、回调：这一轮的就绪集里只"
                "有它一个，它的回调 `handle_accept` 又造出第二个通道，也就是甲的通道。",
            ),
            let_ann_in,
            (
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
                    "compat.selector_loop:SelectorLoop._ask",
                    ("reads = channel.readable()", "writes = channel.writable()"),
                    loops=("selectors",),
                ),
                Excerpt(
                    "compat.selector_loop:SelectorLoop._turn",
                    "self._ask_who_may_have_changed()",
                    "self._wait(timeout, everything)",
                    "self._call_ready(ready)",
                    loops=("selectors",),
                ),
                Excerpt(
                    "legacy_chat.listener:Listener._accept_from",
                    "pair = door.accept()",
                    "self.handle_accepted(*pair)",
                    beside="handle_accept",
                ),
            ),
            (
                Claim(
                    Text(
                        "The ready set was the listening channel, and nobody else.",
                        "就绪集里只有监听通道，没有别的。",
                    ),
                    lambda seen: (
                        [seen.readers(turn) for turn in seen.turns] == [["ChatServer"]]
                    ),
                ),
                Claim(
                    Text(
                        "`handle_accept` was called once, and now the map has two "
                        "channels.",
                        "`handle_accept` 被回调了一次，map 里现在有两个通道。",
                    ),
                    lambda seen: (
                        len(seen.calls("handle_accept")) == 1
                        and seen.facts["listening"] == [True, False]
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Ann says `hi`. The same again: now her channel is ready, and the "
                "listening one is not. What is read goes to `collect_incoming_data`, "
                "which is where your program begins: it echoes that, with `push`.",
                "甲说 `hi`。同样的过程再来一遍：这次就绪的是她的通道，监听通道没有就"
                "绪。读到的数据交给 `collect_incoming_data`，你自己的程序从这里开始："
                "它用 `push` 把原话发回去。",
            ),
            say_hi,
            (
                Excerpt(
                    "legacy_chat.session:ChatSession.collect_incoming_data",
                    "self.push(data)",
                    "self.broadcasting(data)",
                    beside="collect_incoming_data",
                ),
            ),
            (
                Claim(
                    Text(
                        "Only Ann's channel was ready; nobody called the listening "
                        "one.",
                        "就绪的只有甲的通道，监听通道没有被回调。",
                    ),
                    lambda seen: (
                        [seen.readers(turn) for turn in seen.turns] == [["ann"]]
                        and not seen.calls("handle_accept")
                    ),
                ),
                Claim(
                    Text(
                        "Read, collected, echoed: all of it in one turn.",
                        "读取、收集、回显，全在这一轮里完成。",
                    ),
                    lambda seen: (
                        len(seen.turns) == 1
                        and spoke(seen) == ["ann"]
                        and seen.heard["ann"] == b"hi"
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Nobody says anything. The ready set stays empty until the timeout "
                "(30 seconds in asyncore; 0 here, so that you need not wait), and "
                "then the turn is over. A quiet server costs nothing.",
                "谁都不说话。就绪集一直为空，直到超时（asyncore 默认 30 秒；这里设成 "
                "0，免得你干等），这一轮就结束了。没人说话的服务器几乎不花 CPU。",
            ),
            say_nothing,
            (
                Excerpt(
                    "compat.loops:loop",
                    ("while (map or", "turn(schedule.patience(timeout))"),
                ),
            ),
            (
                Claim(
                    Text(
                        "Nobody was ready, and nobody was called.",
                        "没有通道就绪，也没有任何回调。",
                    ),
                    lambda seen: (
                        [
                            (turn.why, turn.read, turn.write, list(turn.calls()))
                            for turn in seen.turns
                        ]
                        == [("timeout", [], [], [])]
                    ),
                ),
            ),
        ),
    ),
    Text(
        "Bob comes. He and then Ann speak, before the next turn begins. How many turns "
        "does that take, and who is called first?",
        "乙也进来了。在下一轮开始之前，乙先说了一句，甲接着也说了一句。"
        "处理这两句话要几轮？先回调谁？",
    ),
    Step(
        Text(
            "One turn: both are in its ready set. Ann is called first, for the ready "
            "set is walked in the order of the map, and she came first. While her "
            "handler runs, Bob's waits, and so does everybody else: a handler that "
            "sleeps for a second stops the room for a second.",
            "一轮就够：两个通道都在这一轮的就绪集里。先回调甲，因为就绪集按 map 的顺序"
            "遍历，而甲先进来。甲的回调在运行时，乙的只能等着，其他人也一样："
            "哪个回调睡一秒，整个聊天室就停一秒。",
        ),
        speak_at_once,
        (),
        (
            Claim(
                Text(
                    "One turn, two in its ready set; Ann, then Bob.",
                    "一轮，就绪集里有两个通道；先甲后乙。",
                ),
                lambda seen: (
                    [seen.readers(turn) for turn in seen.turns] == [["ann", "bob"]]
                    and spoke(seen) == ["ann", "bob"]
                ),
            ),
        ),
    ),
    Text(
        "Ask, wait, call. A callback does a little and returns.",
        "问、等、回调。回调要短小，做完就返回。",
    ),
)
