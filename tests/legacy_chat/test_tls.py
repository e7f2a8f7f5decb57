"""The room over TLS, and the commands."""

from __future__ import annotations

import asyncore
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compat.tls import CLOSE_NOTIFY, TLS, TRUNCATED
from legacy_chat import ChatServer, ChatSession, cli
from legacy_chat.connect import begin
from legacy_chat.tls import (
    FileError,
    client_context,
    server_context,
)
from tests import secure
from tests.legacy_chat.rooms import Room, our_room
from tests.secure import VERSIONS, SecurePeer, settle, until, write_files
from tests.support import DEADLINE, Process, in_a_turn, process, room, turn_once

Join = Callable[..., SecurePeer]


@contextmanager
def secure_room(
    loop: str, context: ssl.SSLContext | None = None, **options: Any
) -> Iterator[tuple[Room, Join]]:
    """Run a room over TLS; yield it and a function that makes a peer in the room."""
    made: list[SecurePeer] = []
    context = context or secure.server_context()
    with our_room(loop, tls=context, **options) as room:

        def join(client: ssl.SSLContext | None = None) -> SecurePeer:
            before = len(room.server.clients)
            peer = SecurePeer.of(room.server.socket.getsockname(), client)
            made.append(peer)
            until(
                loop,
                lambda: peer.secured and len(room.server.clients) > before,
                *made,
            )
            return peer

        yield room, join
        for peer in made:
            peer.close()
        asyncore.close_all()


def name_of(peer: SecurePeer) -> str:
    ip, port = peer.sock.getsockname()[:2]
    return f"用户{ip}{port}"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return write_files(tmp_path)


# The room.


def test_room_chats_over_tls(any_loop: str) -> None:
    with secure_room(any_loop) as (_, join):
        a, b = join(), join(secure.client_context(VERSIONS[0]))
        a.send("大家好!".encode())
        heard = f"{name_of(a)} 说:大家好!".encode()
        until(any_loop, lambda: a.got and b.got == heard, a, b)
        assert a.got.decode() == "大家好!"
        a.send(b"out")
        until(any_loop, lambda: a.ended, a, b)
        assert a.ended == CLOSE_NOTIFY
        until(any_loop, lambda: b.got.endswith("退出聊天".encode()), b)


def test_messages_of_one_turn_are_one_send_per_client(loop: str) -> None:
    with secure_room(loop) as (room, join):
        peers = [join() for _ in range(6)]
        quiet = peers[-1]
        sessions = list(room.server.clients)
        assert all(isinstance(session, TLS | ChatSession) for session in sessions)
        sends = secure.count_sends(sessions)
        for number, peer in enumerate(peers[:-1]):
            peer.send(b"%d." % number * 100)
            peer.step()
        turn_once(loop)
        until(loop, lambda: quiet.got.count(b"4.") == 100, *peers)
        # One turn has read all five messages, and sends once to each peer: a sender
        # gets its echo together with the others' messages.
        assert sends == [1] * 6


def test_client_in_its_handshake_is_not_in_the_room(any_loop: str) -> None:
    with secure_room(any_loop) as (room, join):
        with socket.create_connection(room.server.socket.getsockname()) as silent:
            room.until(lambda: room.server.handshakes.in_progress)
            peer = join()
            peer.send(b"anybody?")
            until(any_loop, lambda: peer.got == b"anybody?", peer)
            assert len(room.server.clients) == 1
            assert len(room.server.handshakes.in_progress) == 1
            silent.shutdown(socket.SHUT_WR)
            room.until(lambda: not room.server.handshakes.in_progress)
        assert room.server.handshakes.refused == {"closed": 1}
        assert len(room.server.clients) == 1


def test_client_that_reads_everything_is_never_slow(loop: str) -> None:
    """Each turn queues more than one send."""
    with secure_room(loop, send_queue=400_000) as (room, join):
        quick = join()
        (session,) = room.server.clients
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        for _ in range(8):
            quick.step()
            in_a_turn(loop, lambda: room.server.clients.push(b"x" * 300_000))
            assert session.ac_backlog_size() < 300_000
        until(loop, lambda: len(quick.got) == 2_400_000, quick)


def test_client_beyond_the_address_limit_is_refused_over_tls(any_loop: str) -> None:
    with secure_room(any_loop, max_per_address=1) as (room, join):
        join()
        peer = SecurePeer.of(room.server.socket.getsockname())
        until(any_loop, lambda: peer.ended, peer)
        assert peer.got.decode() == "服务器 说:同一地址的连接过多"
        assert peer.ended == CLOSE_NOTIFY
        peer.close()
        assert room.server.counters.refused["address"] == 1


def test_client_in_its_handshake_counts_against_the_limit(
    any_loop: str,
) -> None:
    with secure_room(any_loop, max_clients=1) as (room, _):
        address = room.server.socket.getsockname()
        with socket.create_connection(address):
            room.until(lambda: room.server.handshakes.in_progress)
            with socket.create_connection(address) as second:
                room.until(lambda: room.server.counters.refused["full"])
                second.settimeout(DEADLINE)
                assert second.recv(100) == b""
        room.until(lambda: not room.server.handshakes.in_progress)


def test_handshakes_count_against_the_address_limit(
    any_loop: str,
) -> None:
    with secure_room(any_loop, max_per_address=2) as (room, join):
        address = room.server.socket.getsockname()
        handshakes = room.server.handshakes
        silent = [socket.create_connection(address) for _ in range(5)]
        room.until(lambda: room.server.counters.refused["address"] == 3)
        assert len(handshakes.in_progress) == 2
        for sock in silent:
            sock.close()
        room.until(lambda: not handshakes.in_progress)
        join()
        join()


def test_refused_clients_keep_few_descriptors(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compat.tls.lingering.MOST_LINGERING", 2)
    with secure_room(loop) as (room, _):
        channels = len(asyncore.socket_map)
        plain, refused = [], room.server.handshakes.refused
        for number in range(1, 6):
            plain.append(socket.create_connection(room.server.socket.getsockname()))
            plain[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
            room.until(lambda number=number: refused["no TLS"] == number)
            assert len(asyncore.socket_map) - channels <= 2
        for sock in plain:
            sock.close()
        room.until(lambda: len(asyncore.socket_map) == channels)


def test_refused_handshakes_are_counted_and_logged_by_reason(
    any_loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with secure_room(any_loop, tls_timeout=0.02) as (room, _):
        address = room.server.socket.getsockname()
        with (
            socket.create_connection(address) as plain,
            socket.create_connection(address),
        ):
            plain.sendall(b"hello")
            room.until(lambda: room.server.handshakes.refused.total() == 2)
        assert room.server.handshakes.refused == {"no TLS": 1, "timeout": 1}
    settle(any_loop)
    assert len(caplog.records) == 2
    assert all(": no TLS: the " in each.getMessage() for each in caplog.records)
    assert not any(each.exc_info for each in caplog.records)


def test_shut_down_closes_unfinished_handshakes(any_loop: str) -> None:
    with secure_room(any_loop) as (room, join):
        peer = join()
        with socket.create_connection(room.server.socket.getsockname()) as silent:
            room.until(lambda: room.server.handshakes.in_progress)
            room.server.shut_down()
            silent.settimeout(DEADLINE)
            assert silent.recv(1) == b""
        until(any_loop, lambda: peer.ended, peer)
        assert peer.ended == CLOSE_NOTIFY


def test_failed_session_closes_only_its_client(
    any_loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def first_fails(*given: Any) -> ChatSession:
        if not made:
            made.append(None)
            raise ValueError("no")
        made.append(ChatSession(*given))
        return made[-1]

    with secure_room(any_loop, session_class=first_fails) as (room, join):
        first = SecurePeer.of(room.server.socket.getsockname())
        until(any_loop, lambda: first.ended, first)
        peer = join()
        peer.send(b"me")
        until(any_loop, lambda: peer.got == b"me", peer)
        first.close()
    assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == ["no"]


def test_session_with_small_reads_leaves_nothing_waiting(
    any_loop: str,
) -> None:
    class Sipping(ChatSession):
        ac_in_buffer_size = 3

    with secure_room(any_loop, session_class=Sipping) as (_, join):
        peer = join()
        peer.send(b"a message in one record.")
        until(any_loop, lambda: peer.got == b"a message in one record.", peer)


def test_session_has_its_clients_certificate(loop: str) -> None:
    context = secure.server_context(require=True)
    with secure_room(loop, context) as (room, join):
        join(secure.client_context(certificate_by="ours"))
        (session,) = room.server.clients
        names = session.socket.getpeercert()["subjectAltName"]
        assert names == (("email", "client@localhost"),)


def test_server_rejects_a_client_context() -> None:
    with pytest.raises(ssl.SSLError, match="PROTOCOL_TLS_CLIENT"):
        ChatServer(host="127.0.0.1", port=0, tls=secure.client_context())
    assert asyncore.socket_map == {}


def test_without_tls_ssl_is_not_imported() -> None:
    code = "import legacy_chat.cli, sys; sys.exit('ssl' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE)


# The files.


def test_contexts_are_strict(files: dict[str, str]) -> None:
    server = server_context(files["cert"], files["key"])
    client = client_context(ca=files["ca"])
    for context in (server, client):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert server.verify_mode == ssl.CERT_NONE
    asked = server_context(files["cert"], files["key"], files["ca"])
    required = server_context(files["cert"], files["key"], files["ca"], require=True)
    assert asked.verify_mode == ssl.CERT_OPTIONAL
    assert required.verify_mode == ssl.CERT_REQUIRED
    with pytest.raises(ValueError, match="without their issuer"):
        server_context(files["cert"], files["key"], require=True)


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("missing", "key", "missing: No such file or directory"),
        ("cert", "missing", "missing: No such file or directory"),
        (".", "key", "Is a directory"),
        ("cert", "client-key", "client-key.pem is not the key of the certificate in "),
        ("key", "key", "key.pem has no certificate in PEM form"),
        ("cert", "cert", "cert.pem has no key in PEM form"),
        ("cert", None, "cert.pem has no key in PEM form: give a key"),
    ],
)
def test_invalid_tls_file_is_an_error_of_one_line(
    files: dict[str, str], tmp_path: Path, cert: str, key: str | None, said: str
) -> None:
    def path(name: str) -> str:
        return files.get(name, str(tmp_path / name))

    with pytest.raises(FileError) as caught:
        server_context(path(cert), None if key is None else path(key))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(f"{path}.fifo")
    path.symlink_to(f"{path}.fifo")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def directory(path: Path) -> None:
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("context", "names"),
    [
        (server_context, ("odd", "key")),
        (server_context, ("cert", "odd")),
        (server_context, ("cert", "key", "odd")),
        (client_context, ("odd", "key")),
        (client_context, ("cert", "odd")),
        (client_context, ("cert", "key", "odd")),
    ],
)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (fifo, "Not a regular file"),
        (link_to_fifo, "Not a regular file"),
        (unix_socket, "Not a regular file"),
        (endless_device, "Not a regular file"),
        (huge, "Larger than 16 MiB"),
        (directory, "Is a directory"),
        (link_to_itself, "Too many levels of symbolic links"),
    ],
)
def test_special_or_huge_tls_file_is_refused_at_once(
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    context: Callable[..., ssl.SSLContext],
    names: tuple[str, ...],
    make: Callable[[Path], None],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # Short enough for the address of a socket.
    odd = Path("odd\nfile")
    make(odd)
    given = (str(odd) if name == "odd" else files[name] for name in names)
    with pytest.raises(FileError) as caught:
        context(*given)
    assert str(caught.value) == f"odd\nfile: {said}"


def test_certificate_and_key_may_be_in_one_file(
    files: dict[str, str], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(files["key"]).read_bytes() + Path(files["cert"]).read_bytes())
    server_context(str(both))


def test_authority_file_without_a_certificate_is_an_error(
    files: dict[str, str],
) -> None:
    with pytest.raises(FileError, match=r"key\.pem has no certificate in PEM form"):
        client_context(ca=files["key"])


@pytest.mark.skipif(secure.OPENSSL is None, reason="there is no openssl command")
def test_key_with_a_password_does_not_prompt(
    files: dict[str, str], tmp_path: Path
) -> None:
    locked = str(tmp_path / "locked.pem")
    command = [str(secure.OPENSSL), "pkey", "-aes128", "-passout", "pass:secret"]
    subprocess.run([*command, "-in", files["key"], "-out", locked], check=True)
    with pytest.raises(FileError, match=r"locked\.pem is locked with a password"):
        server_context(files["cert"], locked)


# The commands.


def served_with(files: dict[str, str]) -> tuple[str, ...]:
    return ("--tls-cert", files["cert"], "--tls-key", files["key"])


def talk(*argv: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "legacy_chat", *argv],
        input=typed,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )


def no_traceback(server: Process) -> bool:
    return not any("Traceback" in line for line in server.err)


def test_serve_and_connect_over_tls(loop: str, files: dict[str, str]) -> None:
    with room(loop, *served_with(files)) as (server, (_, port)):
        where = ("localhost", "--port", str(port), "--loop", loop)
        said = "你好, " + "x" * 200_000 + "."
        done = talk("connect", *where, "--tls", "--tls-ca", files["ca"], typed=said)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == said
        server.wait_for("accept close")
        assert no_traceback(server)


def test_client_reports_an_untrusted_certificate(
    files: dict[str, str],
) -> None:
    with room("selectors", *served_with(files)) as (server, (_, port)):
        where = ("--port", str(port))
        done = talk("connect", "localhost", *where, "--tls", typed="secret")
        assert done.returncode == 1
        assert done.stderr == (
            f"legacy-chat: cannot talk to localhost port {port}: the peer's "
            f"certificate is "
            "not trusted: unable to get local issuer certificate\n"
        )
        server.wait_for("the peer does not trust the issuer", err=True)
        assert no_traceback(server)
        assert not any("enter" in line for line in server.out)


def test_client_reports_a_wrong_server_name(
    files: dict[str, str], tmp_path: Path
) -> None:
    secure.certificate("example.org").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "other.pem")
    )
    with room("selectors", "--tls-cert", str(tmp_path / "other.pem")) as (_, where):
        port = str(where[1])
        options = ("--tls", "--tls-ca", files["ca"])
        done = talk("connect", "127.0.0.1", "--port", port, *options)
        assert done.returncode == 1
        assert "not valid for '127.0.0.1'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_client_reports_a_server_without_tls(files: dict[str, str]) -> None:
    with room("selectors") as (_, (_, port)):
        options = ("--tls", "--tls-ca", files["ca"])
        done = talk("connect", "localhost", "--port", str(port), *options)
        assert (done.returncode, done.stderr) == (
            1,
            f"legacy-chat: cannot talk to localhost port {port}: "
            "the peer sent no TLS handshake\n",
        )


@pytest.mark.parametrize("shown", [True, False])
def test_client_certificates_from_the_command_line(
    files: dict[str, str], shown: bool
) -> None:
    required = ("--tls-ca", files["ca"], "--tls-require-client-cert")
    with room("selectors", *served_with(files), *required) as (server, (_, port)):
        options = ("--port", str(port), "--tls", "--tls-ca", files["ca"])
        if shown:
            cert, key = files["client-cert"], files["client-key"]
            options += ("--tls-cert", cert, "--tls-key", key)
        done = talk("connect", "localhost", *options, typed="me.")
        if shown:
            assert (done.returncode, done.stdout, done.stderr) == (0, "me.", "")
        else:
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.endswith(
                "the peer requires a certificate, and got none\n"
            )
            server.wait_for("no TLS: a certificate is required", err=True)


def test_client_reports_a_truncated_connection(files: dict[str, str]) -> None:
    with room("selectors", *served_with(files)) as (server, (_, port)):
        options = ("--port", str(port), "--tls", "--tls-ca", files["ca"])
        command = (sys.executable, "-m", "legacy_chat", "connect", "localhost")
        with process(*command, *options, stdin=subprocess.PIPE) as client:
            server.wait_for("enter")
            server.popen.kill()
            assert client.wait() == 1
            (line,) = client.err
            assert line.endswith(TRUNCATED)


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ("serve --tls-cert missing.pem", 1, "missing.pem: No such file or directory"),
        ("serve --tls-cert=", 2, "--tls-cert: must be the name of a file, got ''"),
        ("serve --tls-cert /dev/zero", 1, "TLS: /dev/zero: Not a regular file"),
        ("connect --tls --tls-ca /dev/zero", 1, "TLS: /dev/zero: Not a regular file"),
        ("serve --tls-key key.pem", 2, "needs --tls-cert FILE"),
        ("serve --tls-ca ca.pem", 2, "needs --tls-cert FILE"),
        ("serve --tls-cert c.pem --tls-require-client-cert", 2, "needs --tls-ca FILE"),
        ("connect --tls-ca ca.pem", 2, "need --tls"),
        ("connect --tls --tls-ca missing.pem", 1, "missing.pem: No such file"),
    ],
)
def test_invalid_tls_options_are_an_error_of_one_line(
    argv: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        got = cli.main(argv.split())
    except SystemExit as error:
        got = error.code  # type: ignore[assignment]
    assert got == status
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_empty_server_hostname_is_an_oserror() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(OSError, match="server_hostname must be given"):
        begin(ours, {}, b"out", "", secure.client_context())
    assert ours.fileno() == -1
