"""Real certificates, and peers that use TLS through ``ssl.SSLSocket``.

Rule 1: the peer's side shares no code with ours, which is built on ``ssl.SSLObject``.
Rule 2: a peer never blocks: the test runs the loop, and lets its peers step.
"""

from __future__ import annotations

import asynchat
import asyncore
import shutil
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trustme

import compat
from compat.tls import CLOSE_NOTIFY, TLS, TRUNCATED, Handshake, HandshakeError
from tests.support import turn_until

OPENSSL = shutil.which("openssl")

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@cache
def authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@cache
def certificate(*names: str, by: str = "ours") -> trustme.LeafCert:
    return authority(by).issue_cert(*names)


@cache
def server_context(require: bool = False, by: str = "ours") -> ssl.SSLContext:
    """Return a server's context, for "localhost" and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate("localhost", "127.0.0.1", by=by).configure_cert(context)
    if require:
        authority("ours").configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@cache
def client_context(
    version: ssl.TLSVersion | None = None, certificate_by: str = ""
) -> ssl.SSLContext:
    """Return a client's context: it trusts our authority and may have a certificate."""
    # Not ssl.create_default_context(), which slowly reads the system's authorities.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority("ours").configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if certificate_by:
        certificate("client@localhost", by=certificate_by).configure_cert(context)
    return context


def write_files(folder: Path) -> dict[str, str]:
    """Write the files for the command line: "ca", "cert", "key"; "client-cert", …"""
    paths = {}
    leaves = {"": ("localhost", "127.0.0.1"), "client-": ("client@localhost",)}
    for prefix, names in leaves.items():
        leaf = certificate(*names)
        for what, blobs in (
            ("cert", leaf.cert_chain_pems),
            ("key", [leaf.private_key_pem]),
        ):
            path = folder / f"{prefix}{what}.pem"
            path.write_bytes(b"".join(blob.bytes() for blob in blobs))
            paths[prefix + what] = str(path)
    authority("ours").cert_pem.write_to_path(str(folder / "ca.pem"))
    return {**paths, "ca": str(folder / "ca.pem")}


class SecurePeer:
    """The peer's end, as a server or as a client.

    Attributes:
        got: every byte so far.
        ended: "" while open, then CLOSE_NOTIFY, TRUNCATED or the error.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_hostname: str | None = "localhost",
        **options: Any,
    ) -> None:
        sock.setblocking(False)
        self.sock = context.wrap_socket(
            sock,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=None if options.get("server_side") else server_hostname,
            **options,
        )
        self.secured = False
        self.got = b""
        self.ended = ""
        self.reads = True
        self.says_goodbye = False
        self._to_send = b""

    @classmethod
    def of(
        cls, address: Any, context: ssl.SSLContext | None = None, **options: Any
    ) -> SecurePeer:
        sock = socket.create_connection(address[:2])
        return cls(sock, context or client_context(), **options)

    def send(self, data: bytes) -> None:
        """Queue *data*; the next steps send it."""
        self._to_send += data

    @property
    def done(self) -> bool:
        """Whether all queued data has been sent."""
        return not self._to_send

    def step(self) -> None:
        """Send and receive all that is possible without blocking."""
        if self.ended or self.sock.fileno() < 0:
            return
        try:
            if not self.secured:
                self.sock.do_handshake()
                self.secured = True
            self._write()
            while self.reads:
                data = self.sock.recv(65536)
                if not data:
                    self.ended = CLOSE_NOTIFY
                    return
                self.got += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ssl.SSLZeroReturnError:
            self.ended = CLOSE_NOTIFY
        except ssl.SSLEOFError:
            self.ended = TRUNCATED
        except OSError as error:
            self.ended = getattr(error, "reason", None) or str(error)

    def close(self) -> None:
        self.sock.close()

    def __del__(self) -> None:
        self.sock.close()

    def _write(self) -> None:
        try:
            while self._to_send:
                sent = self.sock.send(self._to_send[:50_000])
                self._to_send = self._to_send[sent:]
            if self.says_goodbye:
                self.says_goodbye = False
                self.sock.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return


class Collecting(TLS):
    """Common base of the tests' channels, for any async_chat."""

    ac_coalesce_writes = False
    peer_closed = 0

    def __init__(self, sock: Any, map: Any = None, **options: Any) -> None:
        super().__init__(sock, map)
        self.set_terminator(None)  # type: ignore[attr-defined]
        self.got = b""
        self.secured = 0
        self.refused: HandshakeError | None = None
        self.errors: list[BaseException] = []
        if options:
            self.start_tls(**options)

    def collect_incoming_data(self, data: bytes) -> None:
        self.got += data

    def handle_secured(self) -> None:
        self.secured += 1

    def handle_refused(self, error: HandshakeError) -> None:
        self.refused = error
        super().handle_refused(error)

    def handle_close(self) -> None:
        self.peer_closed += 1
        self.close()

    def handle_error(self) -> None:
        error = sys.exception()
        assert error is not None
        self.errors.append(error)
        self.close()


def channel_on(base: type[Any], gather: bool = False) -> Any:
    """Return a Collecting class on that async_chat."""
    return type("Session", (Collecting, base), {"ac_coalesce_writes": gather})


KINDS = {
    "original": channel_on(asynchat.async_chat),
    "ours": channel_on(compat.async_chat),
    "gathering": channel_on(compat.async_chat, gather=True),
}

# Bytes of a socket's buffers: half a record. With less, the kernel's timers delay data.
SMALL = 8192


@contextmanager
def tcp_pair(small: bool = True) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        if small:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        theirs = socket.socket()
        if small:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        theirs.connect(door.getsockname())
        ours, _ = door.accept()
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield ours, theirs


def served(kind: Any, ours: socket.socket, **options: Any) -> Any:
    return kind(ours, context=server_context(), server_side=True, **options)


def secured(
    loop: str,
    kind: Any,
    pair: tuple[socket.socket, socket.socket],
    context: ssl.SSLContext | None = None,
) -> tuple[Any, SecurePeer]:
    """Return a session and its peer after their handshake."""
    session = served(kind, pair[0])
    peer = SecurePeer(pair[1], context or client_context())
    until(loop, lambda: session.secured and peer.secured, peer)
    return session, peer


def in_handshake() -> list[Handshake]:
    found = asyncore.socket_map.values()
    return [channel for channel in found if isinstance(channel, Handshake)]


def until_got(peer: SecurePeer, data: bytes) -> None:
    while len(peer.got) < len(data) and not peer.ended:
        peer.step()
    assert peer.got == data


def count_sends(sessions: Sequence[Any]) -> list[int]:
    """Return a list that counts the sends of each session from this call on."""
    sends = [0] * len(sessions)

    class Counting:
        def __init__(self, place: int, sock: socket.socket) -> None:
            self._place, self._sock = place, sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def send(self, data: bytes) -> int:
            sends[self._place] += 1
            return self._sock.send(data)

    for place, session in enumerate(sessions):
        session.socket._sock = Counting(place, session.socket._sock)
    return sends


def until(
    loop: str, holds: Callable[[], object], *peers: SecurePeer, map: Any = None
) -> None:
    """Run the loop, and let the peers step, until *holds()* is true."""

    def look() -> object:
        for peer in peers:
            peer.step()
        return holds()

    # Do not block: each side waits for the other, and both run in this thread.
    turn_until(loop, look, map, timeout=0.0)


def settle(loop: str) -> None:
    """Run the loop until the last lingering close is over."""
    turn_until(loop, lambda: not asyncore.socket_map, timeout=0.01)
