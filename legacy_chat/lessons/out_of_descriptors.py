"""Lesson 8: out of descriptors."""

from __future__ import annotations

import asyncore
import contextlib
import socket
import sys
from collections.abc import Iterator

from legacy_chat.lessons.engine.harness import HOST, Stage, StageError
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

__all__ = ["LESSON"]

# Turns that are looked at.
TURNS = 3


class Plain(asyncore.dispatcher):
    """A server as asyncore's documentation would have it."""

    def __init__(self, map: dict[int, asyncore.dispatcher]) -> None:
        asyncore.dispatcher.__init__(self, map=map)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.bind((HOST, 0))
        self.listen(5)
        self.port = self.socket.getsockname()[1]

    def handle_accept(self) -> None:
        pair = self.accept()
        if pair is not None:
            pair[0].close()

    def handle_error(self) -> None:
        print("an error:", sys.exception())


def spin(stage: Stage) -> None:
    plain = Plain(stage.map)
    stage.knock("ann", at=plain)
    stage.turn(timeout=0)
    stage.knock("bob", at=plain)
    with no_descriptor_left():
        for _ in range(TURNS):
            stage.turn()
    plain.close()


def stay(stage: Stage) -> None:
    stage.open_room()
    cid = stage.enter("cid")
    stage.begin()
    dan = stage.knock("dan")
    with no_descriptor_left():
        stage.turn()
        stage.turn(timeout=0)
        cid.say("still here")
        stage.turn()
    dan.hear_end()
    cid.hear("still here")


def let_in_again(stage: Stage) -> None:
    cid = stage.peer("cid")
    cid.say("out")
    stage.turn_until(lambda: stage.session(cid) is None)
    cid.hear_end()
    eve = stage.knock("eve")
    stage.turn_until(lambda: stage.session(eve) is not None)


def refuse_both(stage: Stage) -> None:
    eve = stage.peer("eve")
    fay, gil = stage.knock("fay"), stage.knock("gil")
    with no_descriptor_left():
        stage.turn()
    fay.hear_end()
    gil.hear_end()
    eve.say("alone")
    stage.turn()
    eve.hear("alone")


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """For so long, this process can open nothing.

    Raises:
        StageError: this system has no such limit, or does not let it be lowered.
    """
    if resource is None:
        raise StageError(
            "this system has no limit on descriptors that a program could lower"
        )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Numbers are given out from the lowest up: the first that must not be.
    with socket.socket() as probe:
        free = probe.fileno()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    except (OSError, ValueError) as error:
        raise StageError(
            f"the limit on descriptors cannot be lowered: {error}"
        ) from error
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


LESSON = Lesson(
    Text("Out of descriptors", "描述符用完了"),
    Text(
        "A process may have so many descriptors and no more (`ulimit -n`). With one "
        "client too many, `accept` fails with EMFILE; but who has knocked stays in the "
        "queue of the listening socket, which stays readable.",
        "一个进程能打开的描述符是有限的（`ulimit -n`）。再多来一个客户端，`accept` 就"
        "以 EMFILE 失败；可是敲了门的人还排在监听套接字的队列里，监听套接字也就一"
        "直可读。",
    ),
    (
        Step(
            Text(
                "First plain asyncore. Ann can still be accepted. Then there is no "
                "descriptor left, and Bob knocks. `accept` raises, `handle_error` is "
                "called, the turn is over; and in the next turn the same again. "
                "Lesson 7's spin, with an error in each turn.",
                "先看普通的 asyncore。甲还能被接受；接着描述符用完，乙来敲门。`accept` "
                "抛出异常，`handle_error` 被回调，这一轮结束；下一轮原样重来。"
                "这就是第 7 课的空转，只不过每一轮还多一个错误。",
            ),
            spin,
            (
                Excerpt(
                    "asyncore:dispatcher.accept",
                    ("conn, addr = self.socket.accept()",) * 2,
                    ("except OSError as why:", "raise"),
                    beside="handle_accept",
                ),
            ),
            (
                Claim(
                    Text(
                        f"{TURNS} turns, and in each of them the listening socket was "
                        "ready and `handle_accept` failed with EMFILE.",
                        f"{TURNS} 轮，每一轮监听套接字都就绪，`handle_accept` "
                        "都以 EMFILE 失败。",
                    ),
                    lambda seen: (
                        [seen.readers(turn) for turn in seen.turns[1:]]
                        == [["Plain"]] * TURNS
                        and sum(
                            "Too many open files" in call.error
                            or "[Errno 24]" in call.error
                            for call in seen.calls("handle_accept")
                        )
                        == TURNS
                        and len(seen.calls("handle_error")) == TURNS
                    ),
                ),
            ),
        ),
        Step(
            Text(
                "Now the room, with Cid in it. It keeps one descriptor in reserve. "
                "Dan knocks when there is no other: the room gives the reserve up, "
                "accepts him on it, tells him that there is no place, closes, and "
                "takes it back. Then it has no interest in accepting for a second.",
                "再看聊天室，丙已经在里面。它手里留着一个备用描述符。丁来敲门时别的都"
                "用完了：聊天室放掉备用的，用它接受丁，告诉他没有位置，关闭，再把备用"
                "的拿回来。之后的一秒钟里，它不再关注有没有人敲门。",
            ),
            stay,
            (
                Excerpt(
                    "legacy_chat.listener:Listener._refuse_all_from",
                    ("self._reserve.give_up()", "pair = door.accept()"),
                    ('self.refuse(pair[0], "descriptors")', "self._reserve.hold()"),
                    beside="handle_accept",
                ),
                Excerpt(
                    "legacy_chat.listener:Listener.readable",
                    ("return (", "< self._clients_then"),
                    beside="handle_accept",
                ),
            ),
            (
                Claim(
                    Text(
                        "Dan is told `服务器繁忙` (the server is busy), and closed.",
                        "丁收到 `服务器繁忙`，然后连接被关闭。",
                    ),
                    lambda seen: (
                        seen.heard["dan"].decode() == "服务器 说:服务器繁忙"
                        and seen.ended == {"dan"}
                    ),
                ),
                Claim(
                    Text(
                        "In the next turn it has no interest, and nobody is ready: it "
                        "does not spin. The log has a line about Dan, and one about "
                        "the room, which tries again every second.",
                        "下一轮它不关注任何事件，也没有通道就绪：它没有空转。"
                        "日志里一行说丁，一行说聊天室：它每秒再试一次。",
                    ),
                    lambda seen: (
                        seen.turns[-2].why == "timeout"
                        and [
                            event.fields["r"] for event in seen.interests("ChatServer")
                        ]
                        == [False]
                        and [line for line in seen.logged if "cannot accept" in line]
                        == [line for line in seen.logged if "every 1 s" in line]
                        and len(seen.logged) == 2
                    ),
                ),
                Claim(
                    Text(
                        "Cid talks on, as if nothing had happened.",
                        "丙照常说话，好像什么都没发生。",
                    ),
                    lambda seen: seen.heard["cid"] == b"still here",
                ),
            ),
        ),
        Step(
            Text(
                "Cid leaves. So there is a place again, and the room need not wait for "
                "the second to be over: Eve is let in.",
                "丙走了，位置又空了出来。聊天室不必等那一秒过完，就让戊进来了。",
            ),
            let_in_again,
            (
                Excerpt(
                    "legacy_chat.listener:Listener._accept_from",
                    (
                        "if CANNOT_ACCEPT in self._failing:",
                        "self.handle_accepted(*pair)",
                    ),
                    beside="handle_accept",
                ),
            ),
            (
                Claim(
                    Text(
                        "The log says `accepting again`, and Eve is in.",
                        "日志里写着 `accepting again`，戊进来了。",
                    ),
                    lambda seen: (
                        "accepting again" in seen.logged
                        and "client 127.0.0.1 enter" in seen.printed
                    ),
                ),
            ),
        ),
    ),
    Text(
        "Two people knock when there is no descriptor left, and there is only one in "
        "reserve. Who is told?",
        "描述符用完时有两个人敲门，备用的却只有一个。谁会得到答复？",
    ),
    Step(
        Text(
            "Both, one after the other, on the same number: it is free again as soon "
            "as the first is closed. Who would be left in that queue would hang "
            "there until his own timeout, and wake the loop in every turn.",
            "两个都会，一个接一个，用的是同一个号码：第一个关闭之后，号码立刻又空出"
            "来。要是把谁留在那个队列里，他就一直挂到自己超时为止，还会在每一轮把循环"
            "叫醒。",
        ),
        refuse_both,
        (),
        (
            Claim(
                Text(
                    "Fay and Gil are told the same, and closed; Eve talks on.",
                    "己和庚得到同样的答复，然后被关闭；戊继续说话。",
                ),
                lambda seen: (
                    seen.heard["fay"].decode() == "服务器 说:服务器繁忙"
                    and seen.heard["gil"] == seen.heard["fay"]
                    and seen.ended == {"fay", "gil"}
                    and seen.heard["eve"] == b"alone"
                ),
            ),
        ),
    ),
    Text(
        "An error that does not go away has to change your interest, or it is there "
        "again in the next turn.",
        "不会自己消失的错误，必须让你改变所关注的事件，否则下一轮它还在那里。",
    ),
)
