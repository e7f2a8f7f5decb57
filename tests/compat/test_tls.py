"""TLS on any channel and any loop: the bytes, the handshake, the end."""

from __future__ import annotations

import asynchat
import asyncore
import contextlib
import gc
import logging
import os
import select
import socket
import ssl
import subprocess
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from compat.async_chat import has_cached_interest
from compat.broadcast import FULL_LOG
from compat.tls import (
    CLOSE_NOTIFY,
    TLS,
    TRUNCATED,
    HandshakeError,
    TLSSocket,
    lingering,
    over_tls,
)
from tests.secure import (
    KINDS,
    OPENSSL,
    SMALL,
    VERSIONS,
    SecurePeer,
    client_context,
    count_sends,
    in_handshake,
    secured,
    served,
    server_context,
    settle,
    tcp_pair,
    until,
    until_got,
    write_files,
)
from tests.support import (
    ORIGINALS,
    OURS,
    Process,
    in_a_turn,
    process,
    reset,
    reset_on_close,
    turn_once,
    turn_until,
)

# Bytes.


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_bytes_arrive_both_ways(
    any_loop: str, kind: Any, version: ssl.TLSVersion
) -> None:
    with tcp_pair(small=False) as (ours, theirs):
        session, peer = secured(any_loop, kind, (ours, theirs), client_context(version))
        assert session.socket.version() == version.name.replace("v1_", "v1.")
        peer.send(b"to the server")
        session.push(b"to the client")
        until(
            any_loop,
            lambda: session.got == b"to the server" and peer.got == b"to the client",
            peer,
        )
        session.close_when_done()
        until(any_loop, lambda: peer.ended, peer)
        assert (peer.ended, session.errors) == (CLOSE_NOTIFY, [])


def test_megabytes_pass_through_a_narrow_connection(
    loop: str, kind: Any, pair: Any
) -> None:
    session, peer = secured(loop, kind, pair)
    there, back = bytes(range(256)) * 9000, bytes(range(255, -1, -1)) * 9000
    peer.send(there)
    session.push(back)
    until(loop, lambda: len(session.got) >= len(there), peer)
    session.close_when_done()
    until(loop, lambda: peer.ended, peer)
    assert session.got == there
    assert (peer.got == back, peer.ended) == (True, CLOSE_NOTIFY)
    assert session.errors == []


@settings(max_examples=20)
@given(
    there=st.lists(
        st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b * 900)
    ),
    back=st.lists(
        st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b * 900)
    ),
    name=st.sampled_from(sorted(KINDS)),
    version=st.sampled_from(VERSIONS),
    small=st.booleans(),
    turns=st.integers(0, 2),
)
@pytest.mark.parametrize("loop_name", [*ORIGINALS, *OURS])
def test_bytes_are_the_same_however_they_are_cut(
    loop_name: str,
    there: list[bytes],
    back: list[bytes],
    name: str,
    version: ssl.TLSVersion,
    small: bool,
    turns: int,
) -> None:
    with tcp_pair(small) as (ours, theirs):
        session = served(KINDS[name], ours)
        peer = SecurePeer(theirs, client_context(version))
        for number in range(max(len(there), len(back))):
            # Data before the handshake, during it and after it.
            for data in back[number : number + 1]:
                session.push(data)
            for data in there[number : number + 1]:
                peer.send(data)
            for _ in range(turns):
                peer.step()
                turn_once(loop_name, timeout=0.0)
        until(
            loop_name,
            lambda: session.got == b"".join(there) and peer.got == b"".join(back),
            peer,
        )
        session.close_when_done()
        until(loop_name, lambda: peer.ended, peer)
        assert (peer.got, peer.ended) == (b"".join(back), CLOSE_NOTIFY)


def test_our_two_sides_understand_each_other(any_loop: str, kind: Any) -> None:
    class Client(kind):  # type: ignore[misc]
        def handle_connect(self) -> None:
            self.start_tls(client_context(), server_hostname="127.0.0.1")

    class Door(asyncore.dispatcher):
        session: Any = None

        def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
            self.session = served(kind, sock)

    door = Door()
    door.create_socket()
    door.bind(("127.0.0.1", 0))
    door.listen(1)
    client = Client(None)
    client.create_socket()
    client.push(b"asked early")
    client.connect(door.socket.getsockname())
    turn_until(any_loop, lambda: door.session and door.session.got == b"asked early")
    door.session.push(b"answer")
    door.session.close_when_done()
    turn_until(any_loop, lambda: client.peer_closed)
    assert (client.got, client.socket.ended) == (b"answer", CLOSE_NOTIFY)
    assert client.secured == 1
    door.close()
    settle(any_loop)


def test_data_in_the_handshakes_last_packet_is_read_at_once(any_loop: str) -> None:
    with tcp_pair(small=False) as (ours, theirs):
        session = served(KINDS["ours"], ours)
        bios = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(*bios, server_hostname="localhost")
        theirs.setblocking(False)

        def step() -> bool:
            if select.select([theirs], [], [], 0)[0]:
                bios[0].write(theirs.recv(65536))
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                theirs.sendall(bios[1].read())
                return False
            return True

        turn_until(any_loop, step, timeout=0.0)
        # Finished and the first message arrive in one packet; nothing follows.
        client.write(b"at once")
        theirs.sendall(bios[1].read())
        turn_until(any_loop, lambda: session.got)
        assert session.got == b"at once"
        session.close()


# Decrypted data does not wait.


class Sipping(TLS):
    """A plain dispatcher that reads three bytes at a time, while it has interest."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.got: list[bytes] = []
        self.wants = 1000
        self.ended = False
        self.start_tls(server_context(), server_side=True)

    def readable(self) -> bool:
        return len(self.got) < self.wants

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        assert self.readable()
        if data := self.recv(3):
            self.got.append(data)

    def handle_close(self) -> None:
        self.ended = True
        self.close()

    def handle_error(self) -> None:
        raise  # noqa: PLE0704  # a test's own error is to be seen


def test_a_small_read_leaves_nothing_waiting(any_loop: str, pair: Any) -> None:
    sipping = Sipping(pair[0])
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"one record of some bytes")
    until(any_loop, lambda: b"".join(sipping.got) == b"one record of some bytes", peer)
    sipping.close()


def test_channel_that_stops_reading_gets_the_rest_later(
    any_loop: str, pair: Any
) -> None:
    sipping = Sipping(pair[0])
    sipping.wants = 2
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"abcdefghijkl")
    until(any_loop, lambda: len(sipping.got) == 2 and peer.done, peer)
    turn_once(any_loop, timeout=0.0)
    assert sipping.got == [b"abc", b"def"]
    # No more data arrives from the network.
    sipping.wants = 3
    turn_until(any_loop, lambda: len(sipping.got) == 3)
    peer.says_goodbye = True
    until(any_loop, lambda: not peer.says_goodbye, peer)
    sipping.wants = 1000
    turn_until(any_loop, lambda: sipping.ended)
    assert b"".join(sipping.got) == b"abcdefghijkl"


def test_delayed_end_is_reported_on_an_open_connection(
    any_loop: str, pair: Any
) -> None:
    sipping = Sipping(pair[0])
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"last words")
    peer.says_goodbye = True
    until(any_loop, lambda: sipping.ended, peer)
    assert b"".join(sipping.got) == b"last words"
    until(any_loop, lambda: peer.ended, peer)
    assert peer.ended == CLOSE_NOTIFY


def test_data_after_a_handlers_error_is_delivered(any_loop: str, pair: Any) -> None:
    class Failing(Sipping):
        errors = 0

        def handle_read(self) -> None:
            super().handle_read()
            if len(self.got) == 2:
                raise ValueError(self.got)

        def handle_error(self) -> None:
            self.errors += 1

    failing = Failing(pair[0])
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"0123456789")
    until(any_loop, lambda: b"".join(failing.got) == b"0123456789", peer)
    assert failing.errors == 1
    failing.close()


def test_a_channel_that_does_not_read_does_not_stop_the_loop(
    any_loop: str, pair: Any
) -> None:
    class Deaf(Sipping):
        reads = 0

        def handle_read(self) -> None:
            self.reads += 1

    deaf = Deaf(pair[0])
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"hello?")
    until(any_loop, lambda: deaf.reads > 3, peer)
    deaf.close()
    if any_loop in OURS:
        # The callback that would deliver the unread data.
        compat.loop(0, count=1, loop=any_loop, wait_for_timers=True)


# Sending.


def blocked(pair: Any) -> tuple[TLSSocket, SecurePeer, bytes]:
    """Return a socket whose write blocks, its peer, and the data of that write."""
    session, peer = secured("select", KINDS["ours"], pair)
    session.del_channel()
    said = bytes(range(200)) * 300
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += session.socket.send(said)
    peer.ours = total // len(said) * said  # type: ignore[attr-defined]
    return session.socket, peer, said


def rest_of(sock: TLSSocket, peer: SecurePeer, data: bytes) -> int:
    """Send the data again until the socket accepts it."""
    while True:
        peer.step()
        try:
            return sock.send(data)
        except BlockingIOError:
            continue


def test_repeated_write_sends_once(pair: Any) -> None:
    sock, peer, said = blocked(pair)
    assert rest_of(sock, peer, said) == len(said)
    assert rest_of(sock, peer, b"!") == 1
    until_got(peer, peer.ours + said + b"!")  # type: ignore[attr-defined]
    sock.close()


def test_a_repeated_write_may_be_longer_or_shorter(pair: Any) -> None:
    sock, peer, said = blocked(pair)
    assert rest_of(sock, peer, said[:10]) == 10
    assert rest_of(sock, peer, memoryview(said[10:] + b"!")) == len(said) - 10
    assert rest_of(sock, peer, b"!") == 1
    until_got(peer, peer.ours + said + b"!")  # type: ignore[attr-defined]
    sock.close()


def test_write_after_a_blocked_write_follows_it(
    pair: Any,
) -> None:
    sock, peer, said = blocked(pair)
    assert rest_of(sock, peer, b"in between") == 10
    assert rest_of(sock, peer, said) == len(said)
    until_got(peer, peer.ours + said + b"in between")  # type: ignore[attr-defined]
    sock.close()


def test_channel_may_give_up_a_blocked_write(pair: Any) -> None:
    sock, peer, _ = blocked(pair)
    for number in range(20):
        assert rest_of(sock, peer, b"<%d>" % number)
    sock.close()
    while not peer.ended:
        peer.step()
    assert peer.ended == CLOSE_NOTIFY
    assert peer.got.endswith(b"".join(b"<%d>" % number for number in range(20)))
    assert len(sock._records._retries) <= 4


def test_closed_in_the_middle_of_a_record_is_no_proper_end(pair: Any) -> None:
    sock, peer, _ = blocked(pair)
    sock.close()
    while not peer.ended:
        peer.step()
    assert peer.ended == TRUNCATED


def test_a_slow_reader_gets_everything_and_a_proper_end(
    any_loop: str, kind: Any, pair: Any
) -> None:
    session, peer = secured(any_loop, kind, pair)
    peer.reads = False
    said = bytes(range(200)) * 1500
    session.push(said)
    session.close_when_done()
    for _ in range(5):
        turn_once(any_loop, timeout=0.0)
    assert session.producer_fifo
    peer.reads = True
    until(any_loop, lambda: peer.ended, peer)
    assert (peer.got == said, peer.ended) == (True, CLOSE_NOTIFY)
    peer.close()
    settle(any_loop)


def fill(sock: socket.socket) -> int:
    """Fill the kernel's buffers; return the number of bytes."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += sock.send(b"x")
    return total


def test_close_notify_waits_for_room_in_a_full_buffer(loop: str, pair: Any) -> None:
    session, peer = secured(loop, KINDS["ours"], pair, client_context(VERSIONS[0]))
    # The plain bytes break the TLS stream, so the test reads below TLS.
    junk = fill(pair[0])
    in_a_turn(loop, session.close)
    assert len(asyncore.socket_map) == 1
    got = b""

    def read() -> bool:
        nonlocal got
        with contextlib.suppress(BlockingIOError):
            got += os.read(peer.sock.fileno(), 65536)
        return len(got) > junk

    turn_until(loop, read, timeout=0.0)
    assert got[junk:].startswith(b"\x15\x03\x03")
    peer.close()
    settle(loop)


def test_close_notify_waits_no_longer_than_the_linger_time(
    loop: str, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "LINGER", 0.0)
    session, _ = secured(loop, KINDS["ours"], pair)
    fill(pair[0])
    in_a_turn(loop, session.close)
    settle(loop)
    assert pair[0].fileno() == -1


def test_close_outside_a_loop_tries_close_notify_once(pair: Any) -> None:
    session, _ = secured("select", KINDS["ours"], pair)
    fill(pair[0])
    session.close()
    assert (asyncore.socket_map, pair[0].fileno()) == ({}, -1)


def test_close_with_unread_data_delivers_all_sent_data(kind: Any, pair: Any) -> None:
    session, peer = secured("select", kind, pair)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * SMALL)
    # The peer's buffer is smaller: some of the data is still in this end's kernel.
    total = sum(session.socket.send(b"x" * 500) for _ in range(8 * SMALL // 500))
    peer.reads = False
    peer.send(b"Who reads this?")
    peer.step()
    assert peer.done
    session.close()
    peer.reads = True
    while not peer.ended:
        peer.step()
    assert (len(peer.got), peer.ended) == (total, CLOSE_NOTIFY)


def test_shutdown_sends_close_notify_and_reading_goes_on(
    any_loop: str, kind: Any, pair: Any
) -> None:
    session, peer = secured(any_loop, kind, pair)
    session.push(b"all")
    turn_once(any_loop, timeout=0.0)
    session.socket.shutdown(socket.SHUT_WR)
    peer.send(b"still here")
    # The session reads the end only after it has written.
    until(any_loop, lambda: session.got == b"still here" and peer.ended, peer)
    assert (peer.got, peer.ended) == (b"all", CLOSE_NOTIFY)
    session.close()


def test_urgent_byte_is_dropped_and_the_records_stay_whole(
    any_loop: str, kind: Any, pair: Any
) -> None:
    session, peer = secured(any_loop, kind, pair)
    urgent = []
    drop = session.handle_expt
    session.handle_expt = lambda: (urgent.append(1), drop())
    socket.socket.send(peer.sock, b"!", socket.MSG_OOB)
    turn_until(any_loop, lambda: urgent)
    peer.send(b"one record")
    until(any_loop, lambda: session.got == b"one record", peer)
    assert len(urgent) == 1
    session.close()


# The end.


def test_close_notify_of_the_peer_is_answered(
    any_loop: str, kind: Any, pair: Any
) -> None:
    session, peer = secured(any_loop, kind, pair)
    peer.send(b"I go")
    peer.says_goodbye = True
    until(any_loop, lambda: peer.ended, peer)
    assert (session.got, session.socket.ended) == (b"I go", CLOSE_NOTIFY)
    assert (session.peer_closed, peer.ended) == (1, CLOSE_NOTIFY)


def test_cut_connection_differs_from_a_close_notify(
    any_loop: str, kind: Any, pair: Any
) -> None:
    session, peer = secured(any_loop, kind, pair)
    peer.send(b"I g")
    until(any_loop, lambda: session.got == b"I g", peer)
    pair[1].close()
    peer.sock.close()
    turn_until(any_loop, lambda: session.peer_closed)
    assert (session.socket.ended, session.errors) == (TRUNCATED, [])


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        (b"\x17\x03\x03\x00\x30" + b"z" * 48, "decryption failed or bad record mac"),
        (b"hello, are you there?", "the peer does not use TLS"),
    ],
)
def test_invalid_record_closes_the_channel_with_one_log_line(
    any_loop: str,
    kind: Any,
    pair: Any,
    junk: bytes,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    session, peer = secured(any_loop, kind, pair)
    socket.socket.send(peer.sock, junk)
    turn_until(any_loop, lambda: session.peer_closed)
    assert (session.socket.ended, session.errors) == (why, [])
    until(any_loop, lambda: peer.ended, peer)
    assert "ALERT" in peer.ended
    peer.close()
    (record,) = caplog.records
    assert record.getMessage().endswith(f"TLS has failed: {why}")
    assert record.exc_info is None


def test_partial_record_is_neither_data_nor_end(any_loop: str, pair: Any) -> None:
    sipping = Sipping(pair[0])
    peer = SecurePeer(pair[1], client_context())
    until(any_loop, lambda: peer.secured and not in_handshake(), peer)
    socket.socket.send(peer.sock, b"\x17\x03\x03\x00\x30" + b"z" * 20)
    for _ in range(3):
        turn_once(any_loop, timeout=0.0)
    assert (sipping.got, sipping.ended) == ([], False)
    pair[1].close()
    peer.sock.close()
    turn_until(any_loop, lambda: sipping.ended)
    assert sipping.socket.ended == TRUNCATED


def test_a_reset_is_the_end(any_loop: str, kind: Any, pair: Any) -> None:
    session, peer = secured(any_loop, kind, pair)
    reset(peer.sock)
    turn_until(any_loop, lambda: session.peer_closed)
    assert session.errors == []


# Handshakes that fail.


@pytest.mark.parametrize(
    ("said", "kind_of"),
    [
        (b"hello\n", "no TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "no TLS"),
        (b"\0" * 600, "no TLS"),
        (b"\x16\x03\x01\x02\x00" + b"\xff" * 512, "protocol"),
    ],
    ids=["text", "HTTP", "zeros", "a record of nonsense"],
)
def test_garbage_is_refused_in_one_line(
    any_loop: str,
    pair: Any,
    said: bytes,
    kind_of: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = served(KINDS["ours"], pair[0])
    pair[1].sendall(said)
    turn_until(any_loop, lambda: session.refused)
    assert session.refused.kind == kind_of
    assert (session.peer_closed, session.secured, session.errors) == (1, 0, [])
    (record,) = caplog.records
    assert record.getMessage().endswith(f"no TLS: {session.refused}")
    assert (record.exc_info, "\n" in record.getMessage()) == (None, False)
    pair[1].close()
    settle(any_loop)


def test_alert_arrives_before_any_reset(loop: str) -> None:
    with tcp_pair(small=False) as (ours, theirs):
        session = served(KINDS["ours"], ours)
        # More than one read: the rest is unread when the socket is closed.
        theirs.sendall(b"\x16\x03\x01\x02\x00" + b"\xff" * 80_000)
        turn_until(loop, lambda: session.refused)
        theirs.settimeout(0)
        got = []

        def read() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(theirs.recv(100))
            return b"" in got

        turn_until(loop, read, timeout=0.0)
        assert got[0].startswith(b"\x15\x03")
        theirs.close()
        settle(loop)


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00"]
)
def test_peer_that_leaves_during_the_handshake_is_refused(
    any_loop: str, pair: Any, said: bytes
) -> None:
    session = served(KINDS["gathering"], pair[0])
    pair[1].sendall(said)
    pair[1].close()
    turn_until(any_loop, lambda: session.refused)
    assert session.refused.kind == "closed"


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_unfinished_handshake_times_out_without_delaying_others(
    any_loop: str, kind: Any, pair: Any, said: bytes
) -> None:
    silent = served(kind, pair[0], timeout=0.02)
    pair[1].sendall(said)
    with tcp_pair() as (ours, theirs):
        session, peer = secured(any_loop, kind, (ours, theirs))
        peer.send(b"meanwhile")
        until(any_loop, lambda: session.got == b"meanwhile", peer)
        session.close()
    turn_until(any_loop, lambda: silent.refused, timeout=0.01)
    assert (silent.refused.kind, silent.peer_closed) == ("timeout", 1)
    assert asyncore.socket_map == {}


def test_a_handshake_that_waits_does_not_keep_the_loop_busy(
    any_loop: str, pair: Any
) -> None:
    session = served(KINDS["original"], pair[0])
    session.push(b"not yet")
    handshake = in_handshake()[0]
    turn_once(any_loop, timeout=0.0)
    assert not handshake.writable()
    session.close()
    assert asyncore.socket_map == {}


def test_closing_everything_closes_a_channel_in_its_handshake(
    kind: Any, pair: Any
) -> None:
    session = served(kind, pair[0])
    asyncore.close_all()
    assert (session.socket.fileno(), asyncore.socket_map) == (-1, {})
    assert session.refused is None


def test_an_error_in_handle_secured_is_the_channels(
    any_loop: str, kind: Any, pair: Any
) -> None:
    class Failing(kind):  # type: ignore[misc]
        def handle_secured(self) -> None:
            raise ValueError("no")

    session = served(Failing, pair[0])
    peer = SecurePeer(pair[1], client_context())
    until(any_loop, lambda: session.errors, peer)
    assert str(session.errors) == "[ValueError('no')]"
    assert asyncore.socket_map == {}
    peer.close()


# Certificates.


def refused(
    loop: str, pair: Any, server: ssl.SSLContext, client: ssl.SSLContext, name: str
) -> tuple[HandshakeError, str]:
    """Return our client's error about a server, and the alert that the server gets."""
    channel = KINDS["ours"](pair[0], context=client, server_hostname=name)
    peer = SecurePeer(pair[1], server, server_side=True)
    until(loop, lambda: channel.refused and peer.ended, peer)
    peer.close()
    settle(loop)
    return channel.refused, peer.ended


def test_client_refuses_an_unknown_issuer(any_loop: str, pair: Any) -> None:
    error, heard = refused(
        any_loop, pair, server_context(by="others"), client_context(), "localhost"
    )
    assert error.kind == "certificate"
    assert "not trusted: unable to get local issuer certificate" in str(error)
    assert heard == "TLSV1_ALERT_UNKNOWN_CA"


def test_client_refuses_a_certificate_for_another_name(
    any_loop: str, pair: Any
) -> None:
    error, _ = refused(
        any_loop, pair, server_context(), client_context(), "example.org"
    )
    assert error.kind == "certificate"
    assert "not valid for 'example.org'" in str(error)


def test_a_client_without_a_context_verifies(any_loop: str, pair: Any) -> None:
    channel = KINDS["ours"](pair[0])
    channel.start_tls(server_hostname="localhost")
    peer = SecurePeer(pair[1], server_context(), server_side=True)
    until(any_loop, lambda: channel.refused, peer)
    assert channel.refused.kind == "certificate"
    peer.close()
    settle(any_loop)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("by", "kind_of"), [("ours", ""), ("", "no certificate"), ("others", "certificate")]
)
def test_required_client_certificate_is_verified(
    any_loop: str, pair: Any, version: ssl.TLSVersion, by: str, kind_of: str
) -> None:
    session = KINDS["gathering"](
        pair[0], context=server_context(require=True), server_side=True
    )
    peer = SecurePeer(pair[1], client_context(version, certificate_by=by))
    until(any_loop, lambda: session.refused or session.secured, peer)
    if kind_of:
        assert session.refused.kind == kind_of
        # The peer receives the reason.
        until(any_loop, lambda: peer.ended, peer)
        assert "ALERT" in peer.ended
    else:
        subject = session.socket.getpeercert()["subjectAltName"]
        assert subject == (("email", "client@localhost"),)
        session.close()
    peer.close()
    settle(any_loop)


def test_an_old_tls_is_refused(loop: str, pair: Any) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    session = served(KINDS["ours"], pair[0])
    peer = SecurePeer(pair[1], old)
    until(loop, lambda: session.refused and peer.ended, peer)
    assert session.refused.kind == "version"
    peer.close()
    settle(loop)


def test_invalid_start_tls_arguments_change_nothing(pair: Any) -> None:
    channel = KINDS["ours"](pair[0])
    with pytest.raises(ValueError, match="context must be given"):
        channel.start_tls(server_side=True)
    with pytest.raises(ValueError, match="server_hostname"):
        channel.start_tls()
    with pytest.raises(ssl.SSLError, match="PROTOCOL_TLS_SERVER"):
        channel.start_tls(server_context(), server_hostname="localhost")
    assert asyncore.socket_map == {pair[0].fileno(): channel}
    assert channel.socket is pair[0]
    channel.close()


# STARTTLS.


def test_starttls_ignores_data_sent_before_the_handshake(
    any_loop: str, kind: Any, pair: Any
) -> None:
    class Session(kind):  # type: ignore[misc]
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            if self.got == b"STARTTLS":
                self.push(b"go ahead")
                self.start_tls(server_context(), server_side=True)

    session = Session(pair[0])
    session.set_terminator(8)
    session.found_terminator = lambda: session.set_terminator(None)
    # A man in the middle has added the last word.
    pair[1].sendall(b"STARTTLSevil")
    turn_until(any_loop, in_handshake)
    assert pair[1].recv(100) == b"go ahead"
    peer = SecurePeer(pair[1], client_context())
    peer.send(b" good")
    until(any_loop, lambda: session.got != b"STARTTLS", peer)
    assert session.got == b"STARTTLS good"
    session.close()


def test_start_tls_with_a_queue_in_plain_is_an_error(pair: Any) -> None:
    channel = KINDS["original"](pair[0])
    channel.push(b"x" * 1_000_000)
    with pytest.raises(RuntimeError, match="plain data is sent"):
        channel.start_tls(server_context(), server_side=True)
    channel.close()


def test_audience_member_sends_in_plain_before_its_handshake(
    any_loop: str,
) -> None:
    audience = compat.BroadcastGroup()

    class Session(KINDS["gathering"]):  # type: ignore[misc]
        def collect_incoming_data(self, data: bytes) -> None:
            if self.secured:
                super().collect_incoming_data(data)
                return
            audience.push(b"one enters. ")
            self.push(b"220 go ahead. ")
            self.start_tls(server_context(), server_side=True)
            audience.push(b"one has entered. ")
            self.push(b"in private. ")

    with tcp_pair() as pair, tcp_pair() as another:
        session, other = Session(pair[0]), Session(another[0])
        audience.add(session)
        audience.add(other)
        pair[1].sendall(b"STARTTLS")
        turn_until(any_loop, in_handshake)
        assert pair[1].recv(100) == b"one enters. 220 go ahead. "
        peer = SecurePeer(pair[1], client_context())
        peer.send(b"hello")
        until(any_loop, lambda: session.got == b"hello" and peer.got, peer)
        assert peer.got == b"one has entered. in private. "
        assert another[1].recv(100) == b"one enters. one has entered. "
        assert session.errors == []
        session.close()
        other.close()
        settle(any_loop)


def test_start_tls_in_an_audience_push_first_sends_in_plain(
    any_loop: str,
) -> None:
    audience = compat.BroadcastGroup()

    class Session(KINDS["gathering"]):  # type: ignore[misc]
        def push(self, data: bytes) -> None:
            super().push(data)
            if data == b"all shall use TLS. ":
                self.start_tls(server_context(), server_side=True)

    with tcp_pair() as pair:
        session = Session(pair[0])
        audience.add(session)

        def push_all() -> None:
            audience.push(b"all shall use TLS. ")
            audience.push(b"thank you. ")

        in_a_turn(any_loop, push_all)
        assert pair[1].recv(100) == b"all shall use TLS. "
        peer = SecurePeer(pair[1], client_context())
        until(any_loop, lambda: peer.got == b"thank you. ", peer)
        assert session.errors == []
        session.close()
        settle(any_loop)


def test_start_tls_sends_all_that_was_queued_in_plain(
    any_loop: str, kind: Any, pair: Any
) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    session = kind(pair[0])
    plain = bytes(range(250)) * 1200

    def upgrade() -> None:
        session.push(plain)
        session.start_tls(server_context(), server_side=True)

    in_a_turn(any_loop, upgrade)
    got = bytearray()
    while len(got) < len(plain):
        got += pair[1].recv(65536)
    assert got == plain
    session.close()


def test_start_tls_while_reading_is_paused_reads_when_it_resumes(
    any_loop: str, pair: Any
) -> None:
    session = KINDS["gathering"](pair[0])
    session.pause_reading()
    session.start_tls(server_context(), server_side=True)
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"later")
    until(any_loop, lambda: session.secured and peer.done, peer)
    turn_once(any_loop, timeout=0.0)
    assert session.got == b""
    session.resume_reading()
    turn_until(any_loop, lambda: session.got == b"later")
    session.close()
    settle(any_loop)


def test_second_start_tls_is_an_error_and_the_first_goes_on(
    any_loop: str, kind: Any, pair: Any
) -> None:
    session = kind(pair[0])
    session.start_tls(server_context(), server_side=True)
    with pytest.raises(RuntimeError, match="must be called once"):
        session.start_tls(server_context(), server_side=True)
    peer = SecurePeer(pair[1], client_context())
    until(any_loop, lambda: session.secured and peer.secured, peer)
    with pytest.raises(RuntimeError, match="must be called once"):
        session.start_tls(server_context(), server_side=True)
    peer.send(b"hello")
    until(any_loop, lambda: session.got == b"hello", peer)
    session.close()


def test_closed_channel_may_connect_again_and_start_tls(loop: str, kind: Any) -> None:
    class Client(kind):  # type: ignore[misc]
        def handle_connect(self) -> None:
            self.start_tls(client_context(), server_hostname="localhost")

    client = Client(None)
    with socket.create_server(("127.0.0.1", 0)) as door:
        for number in (1, 2):
            client.create_socket()
            client.connect(door.getsockname())
            turn_until(loop, in_handshake)
            peer = SecurePeer(door.accept()[0], server_context(), server_side=True)
            until(loop, lambda n=number: client.secured == n, peer)
            client.close()
            with pytest.raises(OSError, match="open socket"):
                client.start_tls(client_context(), server_hostname="localhost")
            settle(loop)


def of_class(kind: Any) -> Any:
    """A channel without a socket."""
    return type("Channel", (TLS, kind), {})()


def without_socket(channel: Any) -> None:
    """Leave the channel without a socket, as its class makes it."""


def unconnected(channel: Any) -> None:
    channel.create_socket()


def connecting(channel: Any) -> None:
    channel.create_socket()
    channel.connecting = True


def listening(channel: Any) -> None:
    channel.create_socket()
    channel.bind(("127.0.0.1", 0))
    channel.listen(1)


def closed(channel: Any) -> None:
    channel.create_socket()
    channel.close()


@pytest.mark.parametrize(
    "base",
    [
        asyncore.dispatcher,
        asyncore.dispatcher_with_send,
        asynchat.async_chat,
        compat.async_chat,
    ],
    ids=lambda base: base.__module__ + "." + base.__name__,
)
@pytest.mark.parametrize(
    ("become", "why"),
    [
        (without_socket, "open socket"),
        (closed, "open socket"),
        (unconnected, "connected socket"),
        (connecting, "connected socket"),
        (listening, "connected socket"),
    ],
)
def test_start_tls_without_a_connection_is_an_error(
    base: Any, become: Any, why: str
) -> None:
    channel = of_class(base)
    become(channel)
    before = channel.socket, dict(asyncore.socket_map)
    with pytest.raises(OSError, match=why):
        channel.start_tls(server_context(), server_side=True)
    assert (channel.socket, asyncore.socket_map) == before
    asyncore.close_all()


def test_start_tls_after_close_when_done_is_an_error(kind: Any, pair: Any) -> None:
    session = kind(pair[0])
    session.push(b"x" * 1_000_000)
    session.close_when_done()
    with pytest.raises(RuntimeError, match="close_when_done"):
        session.start_tls(server_context(), server_side=True)
    session.close()


def test_start_tls_on_a_reset_connection_ends_the_channel(
    any_loop: str, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with tcp_pair() as (ours, theirs):
        reset(theirs)
        turn_until(any_loop, lambda: select.select([ours], [], [], 0)[0])
        session = served(kind, ours)
        turn_until(any_loop, lambda: session.peer_closed)
        assert (session.refused.kind, session.errors) == ("closed", [])


def test_start_tls_finds_that_the_peer_has_left_while_it_answers(
    any_loop: str, kind: Any
) -> None:
    with tcp_pair() as (ours, theirs):
        session = kind(ours)
        reset(theirs)
        select.select([ours], [], [])
        if session.ac_coalesce_writes:
            session.push(b"220 go ahead")
        session.start_tls(server_context(), server_side=True)
        turn_until(any_loop, lambda: session.peer_closed)
        assert session.errors == []
        assert asyncore.socket_map == {}


class Buffering(TLS, asyncore.dispatcher_with_send):
    """A dispatcher with a buffer instead of a queue."""

    got = b""

    def handle_read(self) -> None:
        self.got += self.recv(100)


def test_buffer_of_dispatcher_with_send_goes_out_in_plain(
    any_loop: str, pair: Any
) -> None:
    channel = Buffering(pair[0])
    channel.out_buffer = b"go ahead"
    channel.start_tls(server_context(), server_side=True)
    assert pair[1].recv(100) == b"go ahead"
    channel.send(b"encrypted")
    peer = SecurePeer(pair[1], client_context())
    peer.send(b"hello")
    until(any_loop, lambda: (channel.got, peer.got) == (b"hello", b"encrypted"), peer)
    channel.close()


def test_start_tls_with_a_full_dispatcher_buffer_is_an_error(pair: Any) -> None:
    channel = Buffering(pair[0])
    channel.send(b"x" * 1_000_000)
    with pytest.raises(RuntimeError, match="plain data is sent"):
        channel.start_tls(server_context(), server_side=True)
    assert channel.socket is pair[0]
    channel.close()


# OpenSSL's own client.


@contextmanager
def s_client(
    loop: str, folder: Path, version: str
) -> Iterator[tuple[Any, Process, Callable[[str], None]]]:
    """Yield a session, its peer's process, and a function that makes the peer send."""
    sessions = []

    class Door(asyncore.dispatcher):
        def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
            sessions.append(served(KINDS["gathering"], sock))
            self.close()

    door = Door()
    door.create_socket()
    door.bind(("127.0.0.1", 0))
    door.listen(1)
    port = door.socket.getsockname()[1]
    command = (str(OPENSSL), "s_client", version, "-connect", f"localhost:{port}")
    trust = ("-CAfile", write_files(folder)["ca"], "-verify_return_error")
    with process(*command, *trust, stdin=subprocess.PIPE) as client:

        def type_line(text: str) -> None:
            assert client.popen.stdin is not None
            client.popen.stdin.write(text)
            client.popen.stdin.flush()

        turn_until(loop, lambda: sessions and sessions[0].secured)
        yield sessions[0], client, type_line


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl command")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_exchanges_data_with_a_channel(
    loop: str, version: str, tmp_path: Path
) -> None:
    with s_client(loop, tmp_path, version) as (session, client, type_line):
        if version == "-tls1_3":
            # A key update, which must be answered.
            type_line("K\n")
            turn_until(loop, lambda: "KEYUPDATE" in client.err + client.out)
        session.push(b"first\n")
        turn_until(loop, lambda: "first" in client.out)
        type_line("second\n")
        turn_until(loop, lambda: session.got == b"second\n")
        session.push(b"third\n")
        session.close_when_done()
        turn_until(loop, lambda: "third" in client.out and not session.connected)
        client.wait()
    assert "Verification: OK" in client.out


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl command")
def test_a_new_handshake_in_tls_1_2_is_refused(tmp_path: Path) -> None:
    with s_client("selectors", tmp_path, "-tls1_2") as (session, client, type_line):
        type_line("R\n")
        turn_until("selectors", lambda: session.peer_closed)
        client.wait()
    assert session.errors == []
    assert any("no renegotiation" in line for line in client.err)


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl command")
def test_peer_that_reads_no_renegotiation_refusals_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One unsent refusal is enough here; by default it takes thousands of them.
    monkeypatch.setattr("compat.tls.socket.MOST_UNSENT", 0)
    with s_client("selectors", tmp_path, "-tls1_2") as (session, _, type_line):

        class Full:
            """A socket whose peer has stopped reading."""

            def __getattr__(self, name: str) -> Any:
                return getattr(sock, name)

            def send(self, data: bytes) -> int:
                raise BlockingIOError

        sock, session.socket._sock = session.socket._sock, Full()
        type_line("R\n")
        turn_until("selectors", lambda: session.peer_closed)
    assert session.socket.ended == "the peer requests answers without reading them"


# Announcements and audiences.


def test_secured_channel_announces_its_interest(pair: Any) -> None:
    session, _ = secured("selectors", KINDS["gathering"], pair)
    assert has_cached_interest(session)
    session.close()


def test_an_audience_writes_its_log_to_tls_as_to_plain(loop: str) -> None:
    audience = compat.BroadcastGroup()
    with ExitStack() as stack:
        pairs = [stack.enter_context(tcp_pair(small=False)) for _ in range(3)]
        both = [secured(loop, KINDS["gathering"], pair) for pair in pairs]
        sessions, peers = zip(*both, strict=True)
        for session in sessions:
            audience.add(session)
        sends = count_sends(sessions)
        in_a_turn(loop, lambda: [audience.push(b"message.") for _ in range(50)])
        until(loop, lambda: all(peer.got == b"message." * 50 for peer in peers), *peers)
        assert sends == [1, 1, 1]
        for session in sessions:
            session.close()


def test_over_tls_adds_the_mixin_once() -> None:
    kind = over_tls(compat.async_chat)
    assert issubclass(kind, TLS)
    assert (kind.__name__, kind.__module__) == ("async_chat", "compat.async_chat")
    assert over_tls(kind) is kind
    assert over_tls(len) is len


class Pausing(KINDS["gathering"]):  # type: ignore[misc]
    """A channel that reads one byte, and then pauses reading."""

    ac_in_buffer_size = 1

    def collect_incoming_data(self, data: bytes) -> None:
        super().collect_incoming_data(data)
        self.pause_reading()


@pytest.mark.parametrize("end", ["reset", "closed with decrypted data"])
def test_closed_channel_is_freed_at_once(
    loop: str, pair: tuple[socket.socket, socket.socket], end: str
) -> None:
    kind = KINDS["gathering"] if end == "reset" else Pausing
    session, peer = secured(loop, kind, pair)
    gc.disable()
    try:
        if end == "reset":
            reset_on_close(peer.sock)
            peer.close()
            turn_until(loop, lambda: session.peer_closed)
        else:
            peer.send(b"two")
            until(loop, lambda: session.got, peer)
            assert session.socket.has_result
            session.close()
        session = weakref.ref(session)
        turn_once(loop, timeout=0)
        assert session() is None
    finally:
        gc.enable()


def test_decrypted_data_counts_in_a_full_turn(loop: str) -> None:
    """Decrypted data is no longer in the kernel, where other data is counted."""
    sizes: list[int] = []

    class Group(compat.BroadcastGroup):
        def flush(self) -> None:
            before = self.flushed
            super().flush()
            sizes.append(self.flushed - before)

    with ExitStack() as stack:
        group, peers = Group(), []
        for _ in range(4):
            pair = stack.enter_context(tcp_pair(small=False))
            session, peer = secured(loop, KINDS["gathering"], pair)
            stack.callback(session.close)
            session.watch_reads(group)
            session.collect_incoming_data = group.push
            peers.append(peer)
        for peer in peers:
            peer.send(b"x" * 40_000)
            while not peer.done:
                peer.step()
        until(loop, lambda: sum(sizes) == 4 * 40_000, *peers)
    assert max(sizes) < FULL_LOG + 40_000
