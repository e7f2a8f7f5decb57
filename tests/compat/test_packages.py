"""Packages from PyPI, built on asyncore and asynchat, unmodified, on our loops.

Rule 1: a package runs in its own process, without code of this test. Clients connect
from outside, those of the standard library where there are any.
Rule 2: the package runs on the original modules too: a failure there is not ours.
Rule 3: the kernel shows which loop ran: only ours on epoll holds an epoll.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support import DEADLINE, ROOT, Peer, Process, process

T = TypeVar("T")

Address = tuple[str, int]

# The beginning of each program. The name of an original installs nothing.
PRELUDE = """
import sys, warnings
warnings.simplefilter("ignore")
import asyncore, compat
use_poll = sys.argv[1] == "asyncore.poll2"
if sys.argv[1] in compat.LOOPS:
    compat.install(sys.argv[1])

def ready(sock):
    print("port", sock.getsockname()[1], flush=True)
"""

SMTPD = """
import hashlib, smtpd

class Server(smtpd.SMTPServer):
    def process_message(self, peer, sender, receivers, data, **options):
        print(sender, hashlib.sha256(data).hexdigest(), flush=True)

ready(Server(("127.0.0.1", 0), None).socket)
asyncore.loop(use_poll=use_poll)
"""

# Sends the number of bytes in the path, in pieces. A short response has a length, or
# zope.server would not keep the connection; a long one has none.
APP = """
def app(environ, start_response):
    size = int(environ["PATH_INFO"].strip("/"))
    length = [("Content-Length", str(size))] if size < 100_000 else []
    start_response("200 OK", [("Content-Type", "text/plain"), *length])
    return (b"0123456789abcdef" * 512 for _ in range(size // 8192))
"""

ASYNCORE_WSGI = f"""
from asyncore_wsgi import AsyncWsgiServer
{APP}
server = AsyncWsgiServer(("127.0.0.1", 0), map=asyncore.socket_map)
server.set_app(app)
ready(server.socket)
asyncore.loop(use_poll=use_poll)
"""

# The package answers in threads and wakes its loop by a pipe; it has its own loop, too.
ZOPE_SERVER = f"""
from zope.server.http.wsgihttpserver import WSGIHTTPServer
from zope.server.taskthreads import ThreadedTaskDispatcher
{APP}
threads = ThreadedTaskDispatcher()
threads.setThreadCount(4)
server = WSGIHTTPServer(app, None, "127.0.0.1", 0, task_dispatcher=threads)
ready(server.socket)
while True:
    (asyncore.poll2 if use_poll else asyncore.poll)(3600)
"""

WSGITOOLS = """
import hashlib
from wsgitools.scgi.asynchronous import SCGIServer

def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-Got", hashlib.sha256(body).hexdigest())])
    return (body[n:n + 5000] for n in range(0, len(body), 5000))

server = SCGIServer(app, 0, interface="127.0.0.1")
ready(server.socket)
server.run()
"""

# The example of tlslite's documentation, on async_chat.
TLSLITE = """
import asynchat
from tlslite.api import TLSAsyncDispatcherMixIn

class Backwards(TLSAsyncDispatcherMixIn, asynchat.async_chat):
    ac_in_buffer_size = 16384

    def __init__(self, sock):
        asynchat.async_chat.__init__(self, sock)
        TLSAsyncDispatcherMixIn.__init__(self, sock)
        self.setServerHandshakeOp(anon=True)
        self.set_terminator(b"\\n")
        self.line = b""

    def collect_incoming_data(self, data):
        self.line += data

    def found_terminator(self):
        line, self.line = self.line, b""
        self.push(line[::-1] + b"\\n")

class Server(asyncore.dispatcher):
    def handle_accepted(self, sock, address):
        Backwards(sock)

server = Server()
server.create_socket()
server.bind(("127.0.0.1", 0))
server.listen(5)
ready(server.socket)
asyncore.loop(use_poll=use_poll)
"""

# The package imports loop() by name before ours is installed, and runs single turns.
SNMP_AGENT = f"""
from pysnmp.carrier.asyncore.dgram import udp
{PRELUDE}
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import cmdrsp, context

agent = engine.SnmpEngine()
transport = udp.UdpTransport().openServerMode(("127.0.0.1", 0))
config.addTransport(agent, udp.domainName, transport)
config.addV1System(agent, "anybody", "public")
config.addVacmUser(agent, 2, "anybody", "noAuthNoPriv", (1, 3, 6), (1, 3, 6))
cmdrsp.NextCommandResponder(agent, context.SnmpContext(agent))
agent.transportDispatcher.jobStarted(1)
ready(transport.socket)
agent.transportDispatcher.runDispatcher(3600)
"""

SNMP_WALK = """
from pysnmp.hlapi import *

walk = nextCmd(
    SnmpEngine(), CommunityData("public"),
    UdpTransportTarget(("127.0.0.1", int(sys.argv[2]))), ContextData(),
    ObjectType(ObjectIdentity("1.3.6.1.2.1.1")), lexicographicMode=False,
)
for error, status, index, [(name, value)] in walk:
    print(error, name, value.prettyPrint(), flush=True)
print("walked", flush=True)
"""

PYINOTIFY = """
import pyinotify

class Print(pyinotify.ProcessEvent):
    def process_default(self, event):
        print(event.maskname, event.name, flush=True)

manager = pyinotify.WatchManager()
pyinotify.AsyncNotifier(manager, Print())
manager.add_watch(sys.argv[2], pyinotify.IN_CREATE | pyinotify.IN_CLOSE_WRITE
                  | pyinotify.IN_MOVED_TO | pyinotify.IN_DELETE)
print("watching", flush=True)
asyncore.loop(use_poll=use_poll)
"""


def test_smtpd_takes_a_message_of_five_megabytes(any_loop: str) -> None:
    lines = [f"{'.' * (n % 3)}{n:07} {'x' * 70}" for n in range(66_000)]
    with server(any_loop, "smtpd", SMTPD) as (program, address):
        with smtplib.SMTP(*address, timeout=DEADLINE) as client:
            client.sendmail("big@a", "b@c", "\r\n".join(lines))
        assert program.wait_for("^big@a (.*)")[1] == digest("\n".join(lines))


def test_smtpd_serves_ten_clients_at_once(any_loop: str) -> None:
    def text(number: int) -> str:
        return f"{number}\n" * 50_000

    with server(any_loop, "smtpd", SMTPD) as (program, address):

        def send(number: int, together: Callable[[], object]) -> None:
            with smtplib.SMTP(*address, timeout=DEADLINE) as client:
                together()
                client.sendmail(f"{number}@a", "b@c", text(number))

        at_once(send)
        for number in range(10):
            got = program.wait_for(f"^{number}@a (.*)")[1]
            assert got == digest(text(number)[:-1])


@pytest.mark.parametrize("package", ["asyncore_wsgi", "zope.server"])
def test_wsgi_serves_many_requests_on_one_connection(
    package: str, any_loop: str
) -> None:
    with wsgi(package, any_loop) as address:
        client = http.client.HTTPConnection(*address, timeout=DEADLINE)
        client.connect()
        sock = client.sock
        for _ in range(5):
            client.request("GET", "/16384")
            assert len(client.getresponse().read()) == 16384
        assert client.sock is sock
        client.close()


@pytest.mark.parametrize("package", ["asyncore_wsgi", "zope.server"])
def test_wsgi_sends_a_response_of_eight_megabytes(package: str, any_loop: str) -> None:
    with wsgi(package, any_loop) as (host, port):
        url = f"http://{host}:{port}/8388608"
        response = urllib.request.urlopen(url, timeout=DEADLINE)
        assert response.read() == b"0123456789abcdef" * 512 * 1024
        response.close()


@pytest.mark.parametrize("package", ["asyncore_wsgi", "zope.server"])
def test_wsgi_serves_ten_clients_at_once(package: str, any_loop: str) -> None:
    with wsgi(package, any_loop) as address:

        def get(number: int, together: Callable[[], object]) -> int:
            client = http.client.HTTPConnection(*address, timeout=DEADLINE)
            client.connect()
            together()
            client.request("GET", f"/{8192 * 10 * (number + 1)}")
            length = len(client.getresponse().read())
            client.close()
            return length

        assert at_once(get) == [8192 * 10 * (number + 1) for number in range(10)]


def test_scgi_takes_a_megabyte_and_gives_it_back(any_loop: str) -> None:
    body = b"0123456789abcdef" * 65536
    with server(any_loop, "wsgitools", WSGITOOLS) as (_, address):
        client = Peer(address)
        client.send(scgi_request(body))
        head, _, got = client.wait_for_end().partition(b"\r\n\r\n")
        client.close()
    assert digest(body) in head.decode()
    assert got == body


def test_tls_of_tlslite_turns_lines_round(any_loop: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Without certificates: both ends belong to this test.
    context.set_ciphers("ADH:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        server(any_loop, "tlslite.api", TLSLITE) as (_, address),
        socket.create_connection(address, DEADLINE) as plain,
        context.wrap_socket(plain) as client,
        client.makefile("rwb", 0) as lines,
    ):
        for word in (b"abc", b"x" * 10_000 + b"y", b"last"):
            lines.write(word + b"\n")
            assert lines.readline() == word[::-1] + b"\n"


def test_pysnmp_walks_from_one_loop_to_another(any_loop: str) -> None:
    with (
        server(any_loop, "pysnmp.hlapi", SNMP_AGENT, prelude="") as (_, address),
        run(PRELUDE + SNMP_WALK, any_loop, str(address[1])) as walk,
    ):
        walk.wait_for("^walked$")
        assert walk.wait() == 0
    assert len(walk.out) == 9
    assert walk.out[0].startswith("None 1.3.6.1.2.1.1.1.0 PySNMP engine version")


def test_pyinotify_reports_changes_of_files(any_loop: str, tmp_path: Path) -> None:
    needs("pyinotify")
    with run(PRELUDE + PYINOTIFY, any_loop, str(tmp_path)) as program:
        program.wait_for("^watching$")
        (tmp_path / "a").write_text("a")
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "b").unlink()
        (tmp_path / "fence").mkdir()
        program.wait_for("fence")
        assert_turned_by(any_loop, program)
    assert program.out[1:] == [
        "IN_CREATE a",
        "IN_CLOSE_WRITE a",
        "IN_MOVED_TO b",
        "IN_DELETE b",
        "IN_CREATE|IN_ISDIR fence",
    ]


@contextmanager
def server(
    loop: str, package: str, source: str, prelude: str = PRELUDE
) -> Iterator[tuple[Process, Address]]:
    """Run a server built on *package*; yield it and its address."""
    needs(package)
    with run(prelude + source, loop) as program:
        port = program.wait_for(r"^port (\d+)$")[1]
        yield program, ("127.0.0.1", int(port))
        assert_turned_by(loop, program)
    assert program.err == []


@contextmanager
def wsgi(package: str, loop: str) -> Iterator[Address]:
    source = {"asyncore_wsgi": ASYNCORE_WSGI, "zope.server": ZOPE_SERVER}[package]
    with server(loop, package, source) as (_, address):
        yield address


@contextmanager
def run(source: str, *args: str) -> Iterator[Process]:
    with process(sys.executable, "-c", source, *args, cwd=ROOT) as program:
        yield program


def needs(package: str) -> None:
    """Skip the test if the package is missing, or cannot run on any loop."""
    reason = why_not(package)
    if reason:
        pytest.skip(f"{package}, on the original modules: {reason}")


@cache
def why_not(package: str) -> str:
    command = (sys.executable, "-W", "ignore", "-c", f"import {package}")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stderr.strip().rpartition("\n")[2] if result.returncode else ""


def assert_turned_by(loop: str, program: Process) -> None:
    descriptors = Path(f"/proc/{program.pid}/fd")
    if descriptors.is_dir():
        opened = [os.path.realpath(each) for each in descriptors.iterdir()]
        epolls = [name for name in opened if name.endswith("[eventpoll]")]
        assert bool(epolls) == (loop == "selectors")


def at_once(talk: Callable[[int, Callable[[], object]], T]) -> list[T]:
    """Run ten clients in threads that wait for each other before they send."""
    together = threading.Barrier(10, timeout=DEADLINE).wait
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda number: talk(number, together), range(10)))


def scgi_request(body: bytes) -> bytes:
    """Return a request as a web server forwards it: a netstring of headers, the body.

    Source: https://python.ca/scgi/protocol.txt
    """
    head = {
        "CONTENT_LENGTH": str(len(body)),
        "SCGI": "1",
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    packed = "".join(f"{name}\0{value}\0" for name, value in head.items()).encode()
    return b"%d:%b," % (len(packed), packed) + body


def digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
