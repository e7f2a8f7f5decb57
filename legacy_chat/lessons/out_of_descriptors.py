"""Lesson 8: out of descriptors."""

from __future__ import annotations

import asyncore
import contextlib
import errno
import socket
import sys
from collections.abc import Iterator

from legacy_chat.lessons.engine.harness import HOST, Harness, ScenarioError
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

__all__ = ["LESSON", "Plain"]

# Turns that are shown.
TURNS = 3

LISTENER = "legacy_chat.listener:Listener"


class Plain(asyncore.dispatcher):
    """A server as in asyncore's documentation."""

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


def spin(harness: Harness) -> None:
    plain = Plain(harness.map)
    harness.connect("ann", to=plain)
    harness.turn(timeout=0)
    harness.connect("bob", to=plain)
    with no_descriptor_left():
        for _ in range(TURNS):
            harness.turn()
    plain.close()


def use_reserve(harness: Harness) -> None:
    (cid,) = harness.room_with("cid")
    dan = harness.connect("dan")
    with no_descriptor_left():
        harness.turn()
        harness.turn(timeout=0)
        cid.send("still here")
        harness.turn()
    dan.receive_eof()
    cid.receive("still here")


def accept_again(harness: Harness) -> None:
    harness.send_last(harness.peers["cid"], "out")
    eve = harness.connect("eve")
    harness.turn_until(lambda: harness.session(eve) is not None)


def reject_both(harness: Harness) -> None:
    fay, gil = harness.connect("fay"), harness.connect("gil")
    with no_descriptor_left():
        harness.turn()
    fay.receive_eof()
    gil.receive_eof()
    harness.peers["eve"].exchange("alone", "alone")


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Context manager: this process cannot open any descriptor.

    Raises:
        ScenarioError: this system has no such limit, or does not allow to lower it.
    """
    if resource is None:
        raise ScenarioError("this system has no limit on descriptors")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The system returns the lowest free number: this one must be beyond the limit.
    with socket.socket() as probe:
        free = probe.fileno()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"cannot lower the limit on descriptors: {error}"
        ) from error
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


LESSON = Lesson(
    Text("Out of descriptors", "描述符用完了"),
    Text(
        "A process has a limit on descriptors (`ulimit -n`). Beyond it, `accept` fails "
        "with EMFILE. The connection stays in the listen backlog, so the listening "
        "socket stays readable.",
        "一个进程能打开的描述符是有限的（`ulimit -n`）。超过上限，`accept` 就以 EMFILE "
        "失败；连接还排在监听套接字的队列里，监听套接字也就一直可读。",
    ),
    Step(
        "First plain asyncore. Ann is accepted. Then no descriptor is left, and Bob "
        "connects. `accept` raises, `handle_error` runs, the turn ends, and the next "
        "does the same. It spins as in lesson 7, with an error in each turn.",
        "先看普通的 asyncore。甲被接受；接着描述符用完，乙来连接。`accept` 抛出异常，"
        "`handle_error` 运行，这一轮结束；下一轮重来。如同第 7 课的空转，还多一个错"
        "误。",
        spin,
        Excerpt(
            "asyncore:dispatcher.accept",
            "conn, addr = self.socket.accept()",
            ("except OSError as why:", "raise"),
            beside="handle_accept",
        ),
        Claim(
            f"In each of {TURNS} turns the listening socket was ready, and "
            "`handle_accept` failed with EMFILE.",
            f"{TURNS} 轮，每一轮监听套接字都就绪，`handle_accept` 都以 EMFILE 失败。",
            lambda run: (
                run.readable()[1:] == [["Plain"]] * TURNS
                and [call.error for call in run.calls("handle_accept")[1:]]
                == [f"OSError: [Errno {errno.EMFILE}] Too many open files"] * TURNS
                and len(run.calls("handle_error")) == TURNS
            ),
        ),
    ),
    Step(
        "Now the room, with Cid in it. It keeps one descriptor in reserve. Dan "
        "connects when no other is left. The room closes the reserve, accepts Dan, "
        "sends him the reason, closes his connection, and opens the reserve again. "
        "Then it has no interest in accepting for a second.",
        "再看聊天室，丙已经在里面。它留着一个备用描述符。丁连接时别的都用完了：聊天室关"
        "闭备用的，接受丁，发送原因，关闭连接，再打开备用的。之后一秒内不关注新连接。",
        use_reserve,
        Excerpt(
            f"{LISTENER}._refuse_all_from",
            ("self._reserve.release()", "pair = channel.accept()"),
            ('self.refuse(pair[0], "descriptors")', "self._reserve.hold()"),
            beside="handle_accept",
        ),
        Excerpt(
            f"{LISTENER}.readable",
            ("return (", "< self._clients_at_pause"),
            beside="handle_accept",
        ),
        Claim(
            "Dan receives `服务器繁忙` (the server is busy), and EOF.",
            "丁收到 `服务器繁忙`，然后收到 EOF。",
            lambda run: (
                run.received("dan").decode() == "服务器 说:服务器繁忙"
                and run.closed() == {"dan"}
            ),
        ),
        Claim(
            "In the next turn it has no interest, and no channel is ready: it does not "
            "spin. The log has a line about Dan, and one about the retry every second.",
            "下一轮它不关注任何事件，也没有通道就绪：它没有空转。日志里一行是丁的，一行"
            "是聊天室的：它每秒再试一次。",
            lambda run: (
                run.turns[-2].why == "timeout"
                and [each.fields["r"] for each in run.interests("ChatServer")]
                == [False]
                and [line for line in run.logged() if "cannot accept" in line]
                == [line for line in run.logged() if "every 1 s" in line]
                and len(run.logged()) == 2
            ),
        ),
        Claim(
            "Cid continues, unaffected.",
            "丙照常聊天，不受影响。",
            lambda run: run.received("cid") == b"still here",
        ),
    ),
    Step(
        "Cid leaves, which frees a descriptor. The room does not wait for the end of "
        "the second, and accepts Eve.",
        "丙走了，空出一个描述符。聊天室不必等那一秒过完，就接受了戊。",
        accept_again,
        Excerpt(
            f"{LISTENER}._accept_from",
            ("if CANNOT_ACCEPT in self._failing:", "self.handle_accepted(*pair)"),
            beside="handle_accept",
        ),
        Claim(
            "The log has `accepting again`, and Eve has joined.",
            "日志里有 `accepting again`，戊进来了。",
            lambda run: (
                "accepting again" in run.logged()
                and "client 127.0.0.1 enter" in run.printed()
            ),
        ),
    ),
    question=Text(
        "Two clients connect when no descriptor is left but the one in reserve. Which "
        "of them receives the reason?",
        "只剩备用描述符时，有两个客户端来连接。哪一个会收到原因？",
    ),
    answer=Step(
        "Both, one after the other, on the same number: it is free again as soon as "
        "the first is closed. A connection left in the listen backlog would stay until "
        "its client's timeout, and wake the loop in every turn.",
        "两个都会，一个接一个，用的是同一个号码：第一个关闭之后，号码立刻又空出来。留在"
        "队列里的连接会一直待到客户端超时，还会在每一轮把循环叫醒。",
        reject_both,
        Claim(
            "Fay and Gil receive the same, and EOF; Eve continues.",
            "己和庚收到同样的消息，然后收到 EOF；戊继续聊天。",
            lambda run: (
                run.received("fay").decode() == "服务器 说:服务器繁忙"
                and run.received("gil") == run.received("fay")
                and run.closed() == {"fay", "gil"}
                and run.received("eve") == b"alone"
            ),
        ),
    ),
    summary=Text(
        "An error that does not go away must change your interest, or it comes again.",
        "不会自己消失的错误，必须让你改变所关注的事件，否则下一轮它还在那里。",
    ),
)
