"""A broadcast group delivers the same bytes as a push to each member."""

from __future__ import annotations

import array
import asyncore
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from compat.broadcast import SENDING
from tests.support import ORIGINALS, OURS, in_a_turn, turn_once, turn_until


class Member(compat.async_chat):
    """A channel on one end of a socket pair; the test holds the other end."""

    ac_coalesce_writes = True

    def __init__(self, map: Any = None) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.got = bytearray()
        self.ended = False
        super().__init__(ours, map)
        self.set_terminator(None)

    def collect_incoming_data(self, data: bytes) -> None:
        """Ignore the data: peers send nothing."""

    def found_terminator(self) -> None:
        """Do nothing: there is no terminator."""

    def receive(self) -> None:
        """Receive the data that has arrived at the peer."""
        try:
            while data := self.peer.recv(1 << 20):
                self.got += data
            self.ended = True
        except BlockingIOError:
            return


def turns_of(steps: list[tuple[str, Any]]) -> list[list[tuple[int, str, Any]]]:
    """Return the steps of each turn, numbered; a step "turn" begins the next."""
    turns: list[list[tuple[int, str, Any]]] = [[]]
    for number, (what, index) in enumerate(steps):
        if what == "turn":
            turns.append([])
        else:
            turns[-1].append((number, what, index))
    return turns


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    made: list[Member] = []

    def make(kind: type[Member] = Member, **options: Any) -> Member:
        made.append(kind(**options))
        return made[-1]

    yield make
    for member in made:
        member.discard_buffers()
        member.close()
        member.peer.close()


Make = Callable[..., Any]


def test_push_with_but_skips_that_member(any_loop: str, make: Make) -> None:
    members = [make() for _ in range(3)]
    group = group_of(members)

    def push_messages() -> None:
        members[0].push(b"mine ")
        group.push(b"theirs ", exclude=members[0])
        group.push(b"everybody's")

    in_a_turn(any_loop, push_messages)
    expected = [b"mine everybody's", b"theirs everybody's", b"theirs everybody's"]

    def arrived() -> bool:
        for member in members:
            member.receive()
        return [bytes(member.got) for member in members] == expected

    turn_until(any_loop, arrived)


def test_overridden_push_gets_every_message(loop: str, make: Make) -> None:
    class Own(Member):
        def __init__(self) -> None:
            super().__init__()
            self.pushed: list[Any] = []

        def push(self, data: Any) -> None:
            self.pushed.append(data)

    own, other = make(Own), make()
    group = compat.BroadcastGroup()
    group.add(own)
    group.add(other)
    in_a_turn(loop, lambda: (group.push(b"1"), group.push(b"2")))
    assert own.pushed == [b"1", b"2"]


@pytest.mark.parametrize("method", SENDING)
@pytest.mark.parametrize("has_spoken", [False, True])
def test_method_replaced_in_the_class_is_called_at_once(
    loop: str, make: Make, method: str, has_spoken: bool
) -> None:
    class Kind(Member):
        pass

    member, other = make(Kind), make()
    group = group_of([member, other])
    in_a_turn(loop, lambda: group.push(b"before "))
    calls: list[Any] = []

    def replace_and_push() -> None:
        setattr(Kind, method, recorded(method, calls))
        if has_spoken:
            member.push(b"mine ")
        group.push(b"after")

    in_a_turn(loop, replace_and_push)
    expected = b"before mine after" if has_spoken else b"before after"

    def arrived() -> bool:
        member.receive()
        other.receive()
        return member.got == expected and other.got == b"before after"

    turn_until(loop, arrived)
    assert calls
    assert all(channel is member for channel in calls)


@pytest.mark.parametrize("method", SENDING)
def test_method_replaced_in_the_channel_is_called_soon(
    loop: str, make: Make, method: str
) -> None:
    """Within CHECK_INTERVAL, in the order of the messages."""
    member, other = make(), make()
    group = group_of([member, other])
    calls: list[Any] = []
    setattr(member, method, partial(recorded(method, calls), member))

    def push_and_look() -> bool:
        in_a_turn(loop, lambda: group.push(b"%d " % len(other.got)))
        other.receive()
        return bool(calls)

    turn_until(loop, push_and_look)

    def arrived() -> bool:
        member.receive()
        return member.got == other.got

    turn_until(loop, arrived)


def recorded(method: str, calls: list[Any]) -> Callable[..., Any]:
    """Return a method that records its channel, and calls the inherited one."""

    def replacement(channel: Member, *args: Any) -> Any:
        calls.append(channel)
        return getattr(compat.async_chat, method)(channel, *args)

    return replacement


def test_flush_to_a_non_member_changes_nothing(loop: str, make: Make) -> None:
    member, other = make(), make()
    group = group_of([member])

    def push_messages() -> None:
        group.push(b"for members")
        group.flush_to(other)
        assert group.flushed == 0

    in_a_turn(loop, push_messages)
    assert other.ac_backlog_size() == 0
    assert group.flushed == len(b"for members")
    other.receive()
    assert other.got == b""


def test_handle_backlog_that_raises_fails_only_its_member(
    loop: str, make: Make
) -> None:
    class Broken(Member):
        ac_backlog_limit = 1
        errors = 0

        def handle_backlog(self) -> None:
            raise ZeroDivisionError

        def handle_error(self) -> None:
            self.errors += 1

    members = [make(Broken) for _ in range(2)]
    group = group_of(members)
    for _ in range(2):
        in_a_turn(loop, lambda: group.push(b"x" * 3_000_000))
    assert [member.errors for member in members] == [1, 1]


def test_push_that_raises_fails_only_its_member(loop: str, make: Make) -> None:
    class Broken(Member):
        errors = 0

        def push(self, data: Any) -> None:
            raise ZeroDivisionError

        def handle_error(self) -> None:
            self.errors += 1

    broken, other = make(Broken), make()
    group = compat.BroadcastGroup()
    group.add(broken)
    group.add(other)
    in_a_turn(loop, lambda: group.push(b"all the same"))
    other.receive()
    assert (broken.errors, bytes(other.got)) == (1, b"all the same")


def test_member_of_another_map_receives_the_message(loop: str, make: Make) -> None:
    elsewhere: dict[int, Any] = {}
    member = make(map=elsewhere)
    group = compat.BroadcastGroup()
    group.add(member)
    in_a_turn(loop, lambda: group.push(b"over there"))
    turn_once(loop, elsewhere)
    member.receive()
    assert member.got == b"over there"


def test_member_joins_only_one_group_at_a_time(make: Make) -> None:
    member = make()
    one, other = compat.BroadcastGroup(), compat.BroadcastGroup()
    one.add(member)
    with pytest.raises(ValueError, match="another group: leave that first"):
        other.add(member)
    one.discard(member)
    other.add(member)
    assert (member in one, member in other) == (False, True)


def test_push_of_text_is_an_error_and_sends_nothing(loop: str, make: Make) -> None:
    member = make()
    group = compat.BroadcastGroup()
    group.add(member)

    def push_messages() -> None:
        with pytest.raises(TypeError, match="'text' is not bytes"):
            group.push("text", exclude=member)  # type: ignore[arg-type]
        group.push(memoryview(b"bytes"))

    in_a_turn(loop, push_messages)
    member.receive()
    assert member.got == b"bytes"


def test_log_larger_than_one_send_arrives(loop: str, make: Make) -> None:
    members = [make() for _ in range(2)]
    group = compat.BroadcastGroup()
    for member in members:
        member.ac_out_buffer_size = 1000
        group.add(member)

    def push_messages() -> None:
        members[0].push(b"mine")
        group.push(b"x" * 12_345, exclude=members[0])
        group.push(b"y" * 12_345)

    in_a_turn(loop, push_messages)

    def everything() -> bool:
        for member in members:
            member.receive()
        return [len(member.got) for member in members] == [12_349, 24_690]

    turn_until(loop, everything)


def test_closed_member_leaves(make: Make) -> None:
    member = make()
    group = compat.BroadcastGroup()
    group.add(member)
    member.close()
    assert list(group) == []


def test_slow_member_gets_everything_in_order(any_loop: str, make: Make) -> None:
    slow, quick = make(), make()
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    group = compat.BroadcastGroup()
    group.add(slow)
    group.add(quick)
    sent = [b"%05d " % number * 1000 for number in range(60)]
    for text in sent:
        in_a_turn(any_loop, lambda text=text: group.push(text))  # type: ignore[misc]
        quick.receive()
    whole = b"".join(sent)

    def everything() -> bool:
        slow.receive()
        quick.receive()
        return len(slow.got) == len(quick.got) == len(whole)

    turn_until(any_loop, everything)
    assert bytes(slow.got) == bytes(quick.got) == whole


def group_of(members: list[Member]) -> compat.BroadcastGroup:
    group = compat.BroadcastGroup()
    for member in members:
        group.add(member)
    return group


def received_by(members: list[Member]) -> list[bytes]:
    """Return the data that each peer has received so far."""
    for member in members:
        member.receive()
    return [bytes(member.got) for member in members]


def test_send_of_a_member_follows_earlier_messages(any_loop: str, make: Make) -> None:
    member = make()
    group = compat.BroadcastGroup()
    group.add(member)
    in_a_turn(any_loop, lambda: (group.push(b"pushed "), member.send(b"sent")))
    turn_until(any_loop, lambda: len(received_by([member])[0]) == 11)
    assert member.got == b"pushed sent"


def test_overridden_send_gets_every_message(any_loop: str, make: Make) -> None:
    class Own(Member):
        sent = b""

        def send(self, data: Any) -> int:
            self.sent += bytes(data)
            return super().send(data)

    own = make(Own)
    group = compat.BroadcastGroup()
    group.add(own)
    in_a_turn(any_loop, lambda: (group.push(b"1"), group.push(b"2")))
    turn_until(any_loop, lambda: received_by([own]) == [b"12"])
    assert own.sent == b"12"


def test_vanished_member_costs_the_others_nothing(any_loop: str, make: Make) -> None:
    members = [make() for _ in range(3)]
    group = group_of(members)

    def push_messages() -> None:
        members[1].peer.close()
        group.push(b"1")
        group.push(b"2")

    in_a_turn(any_loop, push_messages)
    others = [members[0], members[2]]
    turn_until(any_loop, lambda: received_by(others) == [b"12"] * 2 and len(group) == 2)


@pytest.mark.parametrize(
    "wide",
    [
        memoryview(array.array("I", [1, 2])),
        memoryview(b"a-b-c-")[::2],
        memoryview(b"abcd").cast("B", (2, 2)),
    ],
    ids=["of numbers", "with steps", "of two dimensions"],
)
def test_message_after_any_memoryview_arrives(
    any_loop: str, make: Make, wide: memoryview
) -> None:
    sender, other = make(), make()
    group = compat.BroadcastGroup()
    group.add(sender)
    group.add(other)

    def push_messages() -> None:
        group.push(wide, exclude=sender)
        group.push(b" next")

    in_a_turn(any_loop, push_messages)
    expected = [b" next", bytes(wide) + b" next"]
    # One more turn for data that was only queued.
    turn_once(any_loop, timeout=0)
    assert received_by([sender, other]) == expected


def pushes_first(group: compat.BroadcastGroup, members: list[Member]) -> None:
    group.push(b"1", exclude=members[0])
    group.push(b"2")


def joins_late(group: compat.BroadcastGroup, members: list[Member]) -> None:
    group.discard(members[0])
    group.push(b"1")
    group.add(members[0])
    group.push(b"2")


def has_sent(group: compat.BroadcastGroup, members: list[Member]) -> None:
    members[0].send(b"")
    group.push(b"1", exclude=members[0])
    members[0].send(b"")
    group.push(b"2")


RECEIVES_A_VIEW = pytest.mark.parametrize(
    "pushes", [pushes_first, joins_late, has_sent]
)


@RECEIVES_A_VIEW
@pytest.mark.parametrize("error", [asyncore.ExitNow, KeyboardInterrupt])
def test_partial_recipient_gets_its_part_if_the_loop_is_left(
    loop: str, make: Make, pushes: Callable[..., None], error: type[BaseException]
) -> None:
    members = [make() for _ in range(2)]
    group = group_of(members)

    def push_and_leave() -> None:
        pushes(group, members)
        raise error

    with pytest.raises(error):
        in_a_turn(loop, push_and_leave)
    assert received_by(members) == [b"2", b"12"]


@RECEIVES_A_VIEW
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_partial_recipient_gets_its_part_once_after_a_fork(
    loop: str, make: Make, pushes: Callable[..., None]
) -> None:
    members = [make() for _ in range(2)]
    group = group_of(members)

    def push_and_fork() -> None:
        pushes(group, members)
        child = os.fork()
        if child == 0:
            # As in a server whose child continues to run the loop.
            compat.loop(0, count=2, loop=loop)
            os._exit(0)
        os.waitpid(child, 0)

    in_a_turn(loop, push_and_fork)
    turn_once(loop, timeout=0)
    assert received_by(members) == [b"2", b"12"]


def test_handle_backlog_is_called_after_all_members_are_flushed(
    loop: str, make: Make
) -> None:
    received: list[int] = []

    class Limited(Member):
        ac_backlog_limit = 100_000

        def handle_backlog(self) -> None:
            quick.receive()
            received.append(len(quick.got))
            self.close()

    slow, quick = make(Limited), make()
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    group = compat.BroadcastGroup()
    group.add(slow)
    group.add(quick)
    sent = 0
    while slow in group:
        in_a_turn(loop, lambda: group.push(b"x" * 30_000))
        sent += 30_000
        quick.receive()
    assert received == [sent]
    assert 100_000 < sent <= 100_000 + 3 * 30_000


def test_own_push_counts_in_the_backlog_at_once(loop: str, make: Make) -> None:
    class Limited(Member):
        ac_backlog_limit = 100_000
        too_much = 0

        def handle_backlog(self) -> None:
            self.too_much += 1

    slow = make(Limited)
    assert isinstance(slow, Limited)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    group = compat.BroadcastGroup()
    group.add(slow)
    in_a_turn(loop, lambda: group.push(b"x" * 90_000))
    assert 0 < slow.ac_backlog_size() < slow.ac_backlog_limit
    in_a_turn(loop, lambda: slow.push(b"y" * 60_000))
    assert slow.too_much == 1


class PlainList(list[Any]):
    """The replaced code: a list, with a push to each member."""

    def add(self, member: Member) -> None:
        if member not in self:
            self.append(member)

    def discard(self, member: Member) -> None:
        if member in self:
            self.remove(member)

    def push(self, data: bytes, exclude: Member | None = None) -> None:
        for member in tuple(self):
            if member is not exclude:
                member.push(data)


INDEX = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("broadcast"), st.none() | INDEX),
        st.tuples(st.just("push"), INDEX),
        st.tuples(st.just("join"), INDEX),
        st.tuples(st.just("leave"), INDEX),
        st.tuples(st.just("finish"), INDEX),
        st.tuples(st.just("close"), INDEX),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", ["asyncore.poll", "select", "poll", "selectors"])
def test_group_delivers_as_a_push_to_each_member_would(name: str) -> None:
    @settings(max_examples=80)
    @given(STEPS)
    def holds(steps: list[Any]) -> None:
        members = [Member() for _ in range(4)]
        group = compat.BroadcastGroup()
        # The bytes due to each member, and the members that receive no more.
        expected = [bytearray() for _ in members]
        over: set[int] = set()
        joined: set[int] = set()

        def step(number: int, what: str, index: Any) -> None:
            data = b"%d;" % number
            if what == "broadcast":
                group.push(data, None if index is None else members[index])
                for each in joined - {index} - over:
                    expected[each] += data
            elif index in over:
                return
            elif what == "push":
                members[index].push(data)
                expected[index] += data
            elif what == "join":
                group.add(members[index])
                joined.add(index)
            elif what == "leave":
                group.discard(members[index])
                joined.discard(index)
            elif what == "finish":
                members[index].close_when_done()
                over.add(index)
            elif what == "close":
                members[index].close()
                over.add(index)

        def play(turn: list[tuple[int, str, Any]]) -> None:
            for number, what, index in turn:
                step(number, what, index)

        turns = turns_of(steps)
        try:
            for turn in turns:
                in_a_turn(name, lambda turn=turn: play(turn))  # type: ignore[misc]

            def all_arrived() -> bool:
                for member in members:
                    member.receive()
                return all(
                    len(member.got) >= len(bytes_)
                    and (index not in over or member.ended)
                    for index, (member, bytes_) in enumerate(
                        zip(members, expected, strict=True)
                    )
                )

            turn_until(name, all_arrived)
            assert [bytes(member.got) for member in members] == expected
        finally:
            for member in members:
                member.discard_buffers()
                member.close()
                member.peer.close()

    holds()


def conversation(
    name: str, group: Any, coalesces: bool, steps: list[Any]
) -> list[tuple[bytes, bool]]:
    """Return the data that each peer received, and whether it saw the end."""
    members = [Member() for _ in range(4)]
    for member in members:
        member.ac_coalesce_writes = coalesces

    def step(number: int, what: str, index: Any) -> None:
        data = b"%d;" % number
        member = None if index is None else members[index]
        match what, member:
            case "broadcast", _:
                group.push(data, exclude=member)
            case "push", Member():
                member.push(data)
            case "join", Member() if member.connected:
                group.add(member)
            case "leave", Member():
                group.discard(member)
            case "finish", Member():
                member.close_when_done()
            case "close", Member():
                # A broadcast group is left with it; a list is not, and does not mind.
                member.close()

    def play(turn: list[Any]) -> None:
        for each in turn:
            step(*each)

    turns = turns_of(steps)
    try:
        for turn in turns:
            in_a_turn(name, lambda turn=turn: play(turn))  # type: ignore[misc]
        # A barrier: earlier messages must arrive before it.
        for member in members:
            member.push(b"fence")

        def over(member: Member) -> bool:
            member.receive()
            return member.ended or member.got.endswith(b"fence")

        turn_until(name, lambda: all(over(member) for member in members))
        return [(bytes(member.got), member.ended) for member in members]
    finally:
        for member in members:
            member.discard_buffers()
            member.close()
            member.peer.close()


@pytest.mark.parametrize("name", [*ORIGINALS, *OURS])
def test_group_delivers_as_a_plain_list_would(name: str) -> None:
    @settings(max_examples=60)
    @given(STEPS)
    def holds(steps: list[Any]) -> None:
        ours = conversation(name, compat.BroadcastGroup(), True, steps)
        assert ours == conversation("asyncore.poll", PlainList(), False, steps)

    holds()


def test_log_larger_than_one_send_reaches_every_member_in_order(
    any_loop: str, make: Make
) -> None:
    sender, other = make(), make()
    group = compat.BroadcastGroup()
    group.add(sender)
    group.add(other)
    before, own, after = b"1" * 70_000, b"2" * 70_000, b"3" * 70_000

    def push_messages() -> None:
        group.push(before)
        sender.push(own)
        group.push(b"not for the sender", exclude=sender)
        group.push(after)

    in_a_turn(any_loop, push_messages)
    expected = [before + own + after, before + b"not for the sender" + after]
    turn_until(any_loop, lambda: received_by([sender, other]) == expected)


def test_small_pieces_beside_a_large_log_are_sent_together(
    loop: str, make: Make
) -> None:
    member, sends = make(), []
    group = group_of([member])

    class Counting:
        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def send(self, data: Any) -> int:
            sends.append(len(data))
            return self._sock.send(data)

    member.socket = Counting(member.socket)
    lines = [b"%d " % number for number in range(1000)]

    def push_messages() -> None:
        group.push(b"x" * member.ac_out_buffer_size)
        for line in lines:
            member.push(line)
            group.push(line, exclude=member)

    in_a_turn(loop, push_messages)
    expected = b"x" * member.ac_out_buffer_size + b"".join(lines)

    def arrived() -> bool:
        member.receive()
        return len(member.got) == len(expected)

    turn_until(loop, arrived)
    assert member.got == expected
    assert len(sends) < 10
