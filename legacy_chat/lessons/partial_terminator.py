"""Lesson 2: why ``hello`` loses its ``o``."""

from __future__ import annotations

from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.lesson import Claim, Excerpt, Lesson, Step, Text
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["LESSON"]

COLLECT = "compat._reader:LinearReader._compat_collect"
READ = "compat._reader:LinearReader.handle_read"
HOLD_BACK = "compat._reader:LinearReader._compat_holds_back"


def send_hello(harness: Harness) -> None:
    ann, bob = harness.room_with("ann", "bob")
    ann.exchange("hello", "hell")
    bob.receive("说:hell")
    harness.facts["held"] = harness.session(ann).ac_in_buffer


def send_world(harness: Harness) -> None:
    ann, bob = harness.peers["ann"], harness.peers["bob"]
    ann.exchange(" world", "o world")
    bob.receive("说:o world")
    harness.facts["held"] = harness.session(ann).ac_in_buffer
    harness.facts["echo"] = ann.got


def send_out_in_pieces(harness: Harness) -> None:
    ann = harness.peers["ann"]
    for letter in "out":
        ann.send(letter)
        harness.turn()
    ann.receive_eof()
    harness.peers["bob"].receive("退出聊天")


def send_hellou(harness: Harness) -> None:
    cid = harness.join("cid")
    harness.end_setup()
    cid.exchange("hellou", "hell")
    harness.facts["held"] = harness.session(cid).ac_in_buffer


def collected(run: StepRun) -> list[bytes | None]:
    """Return the data of each ``collect_incoming_data``."""
    return [call.data for call in run.calls("collect_incoming_data")]


LESSON = Lesson(
    Text("Why `hello` loses its `o`", "为什么 `hello` 丢了 `o`"),
    Text(
        "TCP is a stream of bytes without message boundaries, so asynchat searches the "
        "received data for a terminator. This room's terminator is `out`, and it may "
        "arrive in any number of pieces.",
        "TCP 是字节流，没有消息边界，所以 asynchat 在收到的字节里找终止符。这个聊天室的"
        "终止符是 `out`，而它可能被切成好几段到达。",
    ),
    Step(
        "Ann sends `hello`. Its `o` may begin `out`, which is not known yet. So "
        "asynchat holds it back, and your `collect_incoming_data` gets `hell`.",
        "甲发送 `hello`。末尾的 `o` 可能正是 `out` 的第一个字母，现在还说不准。于是 "
        "asynchat 先把它扣住，交给 `collect_incoming_data` 的只有 `hell`。",
        send_hello,
        Excerpt("legacy_chat.session:ChatSession.__init__", "set_terminator"),
        Excerpt(
            HOLD_BACK,
            ("held = asynchat.find_prefix_at_end", "return held > 0"),
            beside="collect_incoming_data",
        ),
        Excerpt("asynchat:find_prefix_at_end", beside="collect_incoming_data"),
        Claim(
            "The program got `hell`, so Ann and Bob receive `hell`.",
            "程序拿到的是 `hell`，所以甲和乙收到的也只有 `hell`。",
            lambda run: (
                collected(run) == [b"hell"]
                and run.received("ann") == b"hell"
                and run.message("bob") == "hell"
            ),
        ),
        Claim(
            "One byte, the `o`, stays in the channel's `ac_in_buffer`.",
            "一个字节，也就是那个 `o`，留在通道的 `ac_in_buffer` 里。",
            lambda run: run.facts["held"] == b"o",
        ),
    ),
    Step(
        "Ann sends ` world`. Now the `o` cannot begin `out`, so asynchat passes it on, "
        "before the new data. It was delayed, not lost.",
        "甲接着发送 ` world`。现在清楚了：那个 `o` 不是 `out` 的开头，于是它排在新数据"
        "前面一起交出。它只是迟到，并没有丢。",
        send_world,
        Excerpt(READ, "held + data", beside="collect_incoming_data"),
        Claim(
            "The program got `o world`, and Bob received it.",
            "程序拿到的是 `o world`，乙收到的也是它。",
            lambda run: (
                collected(run) == [b"o world"] and run.message("bob") == "o world"
            ),
        ),
        Claim(
            "Ann's echo is complete, `hello world`, and nothing is held back.",
            "甲的回显是完整的 `hello world`，不再扣住任何字节。",
            lambda run: (
                run.facts["echo"] == b"hello world" and run.facts["held"] == b""
            ),
        ),
    ),
    Step(
        "Why hold it back? Ann sends `o`, `u` and `t` in three segments. The first two "
        "give the program nothing; the third completes the terminator. Had asynchat "
        "passed on the `o` at once, it could not have found `out`.",
        "为什么要扣住？甲把 `o`、`u`、`t` 分三段发送。前两段没有可以交出的字节，第三段"
        "凑齐了终止符。要是 `o` 当时就交了出去，就再也找不到 `out` 了。",
        send_out_in_pieces,
        Excerpt(
            COLLECT,
            "(end := buffer.find(terminator, begin))",
            "self.found_terminator()",
            beside="found_terminator",
        ),
        Claim(
            "Three turns, three reads, and not a byte for `collect_incoming_data`.",
            "三轮，读了三次，`collect_incoming_data` 一个字节也没拿到。",
            lambda run: (
                run.readable()[:3] == [["ann"], ["ann"], ["ann"]]
                and collected(run) == []
            ),
        ),
        Claim(
            "`found_terminator` ran once, and Ann's connection was closed.",
            "`found_terminator` 运行了一次，甲的连接随之关闭。",
            lambda run: (
                len(run.calls("found_terminator")) == 1 and run.closed() == {"ann"}
            ),
        ),
    ),
    question=Text(
        "Cid joins and sends `hellou`. What does the program get, what is held back?",
        "丙进来发送 `hellou`。程序拿到什么？扣住的又是什么？",
    ),
    answer=Step(
        "It gets `hell`. asynchat holds back the longest suffix that could begin "
        "`out`, here `ou`. That is at most two bytes: one less than the terminator.",
        "程序拿到 `hell`。asynchat 扣住的是末尾最长的、可能是 `out` 开头的那一段，这里"
        "就是 `ou`。最多扣两个字节：比终止符的长度少一个。",
        send_hellou,
        Claim(
            "`hell` was collected, `ou` is held back.",
            "收集到的是 `hell`，扣住的是 `ou`。",
            lambda run: collected(run) == [b"hell"] and run.facts["held"] == b"ou",
        ),
    ),
    summary=Text(
        "A stream has no messages. To search it for a terminator, hold back every "
        "suffix that may begin one.",
        "字节流里没有“消息”。要找终止符，就得先扣住可能是它开头的字节。",
    ),
)
