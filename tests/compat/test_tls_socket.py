"""No use of a channel's ``socket`` sends or receives plain data.

Rule 1: the tests read the connection below TLS, in every state.
Rule 2: the attributes come from ``dir``, so that those of a new Python are tried, too.
"""

from __future__ import annotations

import array
import asyncore
import contextlib
import errno
import io
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from compat.tls import CLOSE_NOTIFY, TLSSocket
from tests.secure import (
    KINDS,
    SecurePeer,
    client_context,
    secured,
    served,
    server_context,
    tcp_pair,
    until,
    until_got,
)
from tests.support import in_a_turn, turn_once

# Data that must be sent only encrypted, and data that must arrive only encrypted.
SECRET = b"SECRET" * 10
FORGED = b"FORGED" * 10

# The attributes of an ssl.SSLSocket that a TLSSocket has. An attribute that is not
# listed here moves no byte, or is missing.
MOVES = {"makefile", "read", "recv", "recv_into", "send", "sendall", "write"}
CLOSES = {"close", "shutdown"}
SETS = {"set_inheritable", "setblocking", "setsockopt", "settimeout"}
ANSWERS = {
    "cipher",
    "compression",
    "context",
    "family",
    "fileno",
    "get_channel_binding",
    "get_inheritable",
    "get_unverified_chain",
    "get_verified_chain",
    "getblocking",
    "getpeercert",
    "getpeername",
    "getsockname",
    "getsockopt",
    "gettimeout",
    "ioctl",
    "pending",
    "proto",
    "selected_alpn_protocol",
    "selected_npn_protocol",
    "server_hostname",
    "server_side",
    "session",
    "session_reused",
    "shared_ciphers",
    "timeout",
    "type",
    "verify_client_post_handshake",
    "version",
}


def attributes() -> list[str]:
    """Return every attribute of a socket, with TLS or without."""
    names = {*dir(socket.socket), *dir(ssl.SSLSocket), *dir(ssl.SSLObject)}
    return sorted(names - set(dir(object)))


class End:
    """The peer's end of a connection, raw and with TLS.

    Attributes:
        raw: the socket below TLS.
        peer: the same with TLS, once TLS has begun.
    """

    def __init__(self, ours: socket.socket, raw: socket.socket) -> None:
        self._ours = ours
        self.raw = raw
        self.peer = SecurePeer(raw.dup(), client_context())

    def secure(self) -> TLSSocket:
        """Return a socket after its handshake, without its channel in the map."""
        session = served(KINDS["ours"], self._ours)
        until("selectors", lambda: session.secured and self.peer.secured, self.peer)
        session.del_channel()
        return session.socket  # type: ignore[no-any-return]


# States of a connection: each function makes a socket in that state.


def new(ours: socket.socket, end: End) -> TLSSocket:
    return TLSSocket(ours, server_context(), server_side=True)


def client_in_handshake(ours: socket.socket, end: End) -> TLSSocket:
    channel = KINDS["ours"](ours, context=client_context(), server_hostname="localhost")
    turn_once("selectors", timeout=0)
    return channel.socket  # type: ignore[no-any-return]


def server_in_handshake(ours: socket.socket, end: End) -> TLSSocket:
    session = served(KINDS["gathering"], ours)
    end.peer.step()
    turn_once("selectors", timeout=0.0)
    return session.socket  # type: ignore[no-any-return]


def after_handshake(ours: socket.socket, end: End) -> TLSSocket:
    return end.secure()


def after_their_goodbye(ours: socket.socket, end: End) -> TLSSocket:
    sock = end.secure()
    end.peer.says_goodbye = True
    end.peer.step()
    while not sock.ended:
        sock.receive()
    assert (sock.ended, sock.recv(1)) == (CLOSE_NOTIFY, b"")
    return sock


def after_our_goodbye(ours: socket.socket, end: End) -> TLSSocket:
    sock = end.secure()
    sock.shutdown(socket.SHUT_WR)
    return sock


def after_both_goodbyes(ours: socket.socket, end: End) -> TLSSocket:
    sock = after_their_goodbye(ours, end)
    sock.shutdown(socket.SHUT_WR)
    return sock


def after_reading_was_shut_down(ours: socket.socket, end: End) -> TLSSocket:
    sock = end.secure()
    sock.shutdown(socket.SHUT_RD)
    return sock


def after_a_forged_record(ours: socket.socket, end: End) -> TLSSocket:
    sock = end.secure()
    end.raw.sendall(b"\x17\x03\x03\x00\x30" + b"z" * 48)
    while not sock.ended:
        sock.receive()
    return sock


def after_close_while_a_goodbye_waits(ours: socket.socket, end: End) -> TLSSocket:
    sock = end.secure()

    class Full:
        """A proxy of the socket whose kernel buffer is full."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

        def send(self, data: bytes) -> int:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")

    sock._sock = Full()  # type: ignore[assignment]
    in_a_turn("selectors", sock.close)
    # A separate channel holds it now, and the buffer has space again.
    assert ours.fileno() >= 0
    sock._sock = ours
    return sock


def after_close(ours: socket.socket, end: End) -> TLSSocket:
    sock = end.secure()
    sock.close()
    return sock


STATES = (
    new,
    client_in_handshake,
    server_in_handshake,
    after_handshake,
    after_their_goodbye,
    after_our_goodbye,
    after_both_goodbyes,
    after_reading_was_shut_down,
    after_a_forged_record,
    after_close_while_a_goodbye_waits,
    after_close,
)


@contextmanager
def in_state(state: Any) -> Iterator[tuple[TLSSocket, End]]:
    """Yield a socket in that state of its connection, and the peer's end."""
    with tcp_pair(small=False) as (ours, theirs):
        end = End(ours, theirs)
        yield state(ours, end), end
        asyncore.close_all(ignore_all=True)
        end.peer.close()


def arguments(address: Any) -> Iterator[tuple[Any, ...]]:
    """Return arguments for a method that sends or receives."""
    file = io.BytesIO(SECRET)
    for data in (
        SECRET,
        [SECRET],
        file,
        bytearray(60),
        [bytearray(60)],
        60,
        "wb",
        "rb",
    ):
        for more in ((), (0,), (socket.MSG_PEEK,), (socket.MSG_OOB,), (address,)):
            yield data, *more
        yield data, [], 0, address
    yield ()


def use(sock: TLSSocket, name: str, *given: Any) -> list[Any]:
    """Call the attribute; send and receive with a returned duplicate or file."""
    answers = []
    with contextlib.suppress(Exception):
        answers.append(getattr(sock, name)(*given))
        for then, *more in (("write", SECRET), ("send", SECRET), ("read", 60)):
            with contextlib.suppress(Exception):
                answers.append(getattr(answers[0], then)(*more))
        # A file that cannot flush raises when it is closed.
        answers[0].close()
    return [answers, given]


def wire(sock: socket.socket) -> bytes:
    """Return all data that can be received, with urgent data."""
    sock.setblocking(False)
    got = b""
    with contextlib.suppress(OSError):
        got += sock.recv(1, socket.MSG_OOB)
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            got += data
    return got


# In plain.


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_no_attribute_moves_plain_bytes(state: Any) -> None:
    for name in set(attributes()) - CLOSES - SETS - ANSWERS:
        with in_state(state) as (sock, end):
            if not hasattr(sock, name):
                continue
            # Plain bytes between records end the connection; they are never a message.
            with contextlib.suppress(OSError):
                end.raw.sendall(FORGED)
                end.raw.send(FORGED[:1], socket.MSG_OOB)
            address = end.raw.getsockname()
            received = [use(sock, name, *given) for given in arguments(address)]
            assert repr(FORGED[:6])[2:-1] not in repr(received), name
            assert SECRET[:6] not in wire(end.raw), name


def test_attributes_of_a_socket_are_known_or_missing() -> None:
    with in_state(after_handshake) as (sock, _):
        found = {name for name in attributes() if hasattr(sock, name)}
    known = MOVES | CLOSES | SETS | ANSWERS
    assert {name for name in found if name[0] != "_"} == known & set(attributes())
    assert found & {"_real_close", "_sendfile_use_send", "_accept"} == set()


# Encrypted.


def send(sock: TLSSocket, data: bytes) -> None:
    assert sock.send(bytearray(data)) == len(data)


def sendall(sock: TLSSocket, data: bytes) -> None:
    sock.sendall(memoryview(data))


def write(sock: TLSSocket, data: bytes) -> None:
    assert sock.write(data) == len(data)


def write_file(sock: TLSSocket, data: bytes) -> None:
    with sock.makefile("wb") as file:
        file.write(data)


def write_file_without_buffer(sock: TLSSocket, data: bytes) -> None:
    assert sock.makefile("rwb", buffering=0).write(data) == len(data)


def write_text(sock: TLSSocket, data: bytes) -> None:
    with sock.makefile("w", encoding="ascii") as file:
        file.write(data.decode())


@pytest.mark.parametrize(
    "way",
    [send, sendall, write, write_file, write_file_without_buffer, write_text],
    ids=lambda way: way.__name__,
)
def test_every_way_to_send_encrypts(way: Any) -> None:
    with in_state(after_handshake) as (sock, end):
        for number in range(3):
            way(sock, b"%d" % number + SECRET)
        until_got(end.peer, b"".join(b"%d" % number + SECRET for number in range(3)))
        sock.close()


def recv(sock: TLSSocket) -> bytes:
    return sock.recv(100)


def recv_into(sock: TLSSocket) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: sock.recv_into(buffer, 1000)])


def recv_into_a_part(sock: TLSSocket) -> bytes:
    buffer = array.array("H", [0] * 50)
    size = sock.recv_into(memoryview(buffer)[10:], 60)
    return buffer.tobytes()[20 : 20 + size]


def read(sock: TLSSocket) -> bytes:
    return bytes(sock.read())


def read_into(sock: TLSSocket) -> bytes:
    buffer = bytearray(70)
    return bytes(buffer[: sock.read(1000, buffer)])


def read_file(sock: TLSSocket) -> bytes:
    with sock.makefile("rb") as file:
        return bytes(file.readline())


def read_text(sock: TLSSocket) -> bytes:
    with sock.makefile(encoding="ascii") as file:
        return str(file.readline()).encode()


@pytest.mark.parametrize(
    "way",
    [recv, recv_into, recv_into_a_part, read, read_into, read_file, read_text],
    ids=lambda way: way.__name__,
)
def test_every_way_to_receive_decrypts(way: Any) -> None:
    with in_state(after_handshake) as (sock, end):
        for said in (b"first line, which is\n", b"another\n"):
            end.peer.send(said)
            end.peer.step()
            while not sock.receive():
                pass
            assert sock.pending() == len(said)
            assert way(sock) == said
            assert sock.pending() == 0
        end.peer.says_goodbye = True
        end.peer.step()
        while not sock.receive():
            pass
        assert not way(sock)
        sock.close()


def test_sendall_sends_more_than_a_record(pair: Any) -> None:
    session, peer = secured("select", KINDS["ours"], pair)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    data = bytes(range(250)) * 800
    session.socket.sendall(data)
    until_got(peer, data)
    session.close()


def test_sendall_to_a_full_peer_raises_and_keeps_records_whole(pair: Any) -> None:
    session, peer = secured("select", KINDS["ours"], pair)
    data = bytes(range(250)) * 4000
    with pytest.raises(BlockingIOError):
        session.socket.sendall(data)
    session.push(b"at the end")
    until("select", lambda: peer.got.endswith(b"at the end"), peer)
    sent = peer.got.removesuffix(b"at the end")
    assert 0 < len(sent) < len(data)
    assert data.startswith(sent)
    session.close()


def test_handler_may_use_the_socket_itself(any_loop: str, kind: Any, pair: Any) -> None:
    class Echo(kind):  # type: ignore[misc]
        def collect_incoming_data(self, data: bytes) -> None:
            self.socket.sendall(data)

    session, peer = secured(any_loop, Echo, pair)
    peer.send(SECRET)
    until(any_loop, lambda: peer.got == SECRET, peer)
    assert session.errors == []
    session.close()


# Refused.


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda sock: sock.send(b"!", socket.MSG_OOB), ValueError, "flags must be 0"),
    (lambda sock: sock.sendall(b"", socket.MSG_OOB), ValueError, "flags must be 0"),
    (lambda sock: sock.recv(1, socket.MSG_PEEK), ValueError, "flags must be 0"),
    (lambda sock: sock.recv(1, socket.MSG_OOB), ValueError, "flags must be 0"),
    (
        lambda sock: sock.recv_into(bytearray(1), 1, socket.MSG_PEEK),
        ValueError,
        "flags must be 0",
    ),
    (lambda sock: sock.recv(-1), ValueError, "size must be >= 0, got -1"),
    (lambda sock: sock.recv_into(bytearray(3), -4), ValueError, "must be >= 0"),
    (lambda sock: sock.recv_into(b"read-only"), TypeError, "must be writable"),
    (lambda sock: sock.send("text"), TypeError, "bytes-like"),
    (lambda sock: sock.setblocking(True), ValueError, "never blocks"),
    (lambda sock: sock.settimeout(1.5), ValueError, "never blocks"),
    (lambda sock: sock.settimeout(None), ValueError, "never blocks"),
    (lambda sock: sock.makefile("ab"), ValueError, "mode must be"),
    (lambda sock: sock.makefile("w", 0), ValueError, "buffering must not be 0"),
    (lambda sock: sock.sendmsg([b""]), AttributeError, "would bypass TLS"),
]


@pytest.mark.parametrize(("call", "kind_of", "why"), REFUSED)
def test_refused_call_names_the_rule_and_loses_nothing(
    call: Any, kind_of: type[Exception], why: str
) -> None:
    with in_state(after_handshake) as (sock, end):
        with pytest.raises(kind_of, match=why):
            call(sock)
        sock.settimeout(0)
        assert (sock.gettimeout(), sock.getblocking()) == (0.0, False)
        assert wire(end.raw)[:1] in (b"", b"\x17")


@pytest.mark.parametrize(
    "state", [new, client_in_handshake, server_in_handshake], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("way", [send, sendall, write, write_file, recv, read])
def test_socket_blocks_until_the_handshake_is_over(state: Any, way: Any) -> None:
    given = () if way in (recv, read) else (SECRET,)
    with in_state(state) as (sock, _):
        with pytest.raises(BlockingIOError):
            way(sock, *given)
        assert sock.makefile("wb", 0).write(SECRET) is None
        assert sock.makefile("rb", 0).read(60) is None


def test_threads_that_meet_in_a_socket_keep_records_whole(pair: Any) -> None:
    session, peer = secured("select", KINDS["ours"], pair)
    sock, refused = session.socket, []
    beneath = sock._sock

    class Meeting:
        """A proxy of the socket; another thread acts while it sends."""

        def __getattr__(self, name: str) -> Any:
            return getattr(beneath, name)

        def send(self, data: bytes) -> int:
            thread = threading.Thread(target=meet)
            thread.start()
            thread.join()
            return int(beneath.send(data))

    def meet() -> None:
        sock._sock = beneath
        for use in (lambda: sock.send(b"second"), sock.recv):
            try:
                use()
            except BlockingIOError:
                refused.append(use)

    sock._sock = Meeting()
    assert sock.send(b"first,") == 6
    assert len(refused) == 2
    assert sock.send(b"last") == 4
    until_got(peer, b"first,last")
    session.close()


ENDED = [after_their_goodbye, after_both_goodbyes]


@pytest.mark.parametrize("state", ENDED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", [recv, read, recv_into])
def test_end_is_received_each_time(state: Any, way: Any) -> None:
    with in_state(state) as (sock, _):
        assert [way(sock) for _ in range(3)] == [b""] * 3


def test_empty_read_does_not_take_the_end() -> None:
    with in_state(after_reading_was_shut_down) as (sock, _):
        assert sock.receive()
        assert sock.recv(0) == b""
        assert sock.recv_into(bytearray()) == 0
        assert sock.has_result


@pytest.mark.parametrize("state", [after_close, after_close_while_a_goodbye_waits])
@pytest.mark.parametrize("way", [send, sendall, write, write_file, recv, read])
def test_closed_socket_is_a_bad_descriptor(state: Any, way: Any) -> None:
    given = () if way in (recv, read) else (SECRET,)
    with in_state(state) as (sock, _):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            way(sock, *given)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            sock.shutdown(socket.SHUT_RDWR)
        assert sock.fileno() == -1


@pytest.mark.parametrize("state", [after_our_goodbye, after_both_goodbyes])
def test_sending_after_close_notify_is_an_error(state: Any) -> None:
    with in_state(state) as (sock, _), pytest.raises(ConnectionAbortedError):
        sock.send(SECRET)
