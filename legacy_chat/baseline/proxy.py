"""Sits between real clients and a server, and writes down what passes.

Rule 1: what a client does is one step, and the next client is heard when all is quiet
again: nobody's answer is taken for an answer to somebody else.
Rule 2: what the server says goes on at once.
Rule 3: the clients are called a, b, c … in the order of their coming.
"""

from __future__ import annotations

import itertools
import selectors
import signal
import socket
import string
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from legacy_chat.baseline.crowd import Crowd
from legacy_chat.baseline.errors import RunError
from legacy_chat.baseline.format import Action, Got, Header, Heard, Step
from legacy_chat.baseline.names import Names
from legacy_chat.baseline.places import Place
from legacy_chat.baseline.profile import Profile
from legacy_chat.baseline.quiet import Quiet
from legacy_chat.baseline.signals import handled

__all__ = ["Proxy", "listen"]

# Bytes of one step at most.
READ_SIZE = 1 << 16

BACKLOG = 128


class _Event(NamedTuple):
    """What a client has done: come, said something, or gone (no data)."""

    client: str
    data: bytes = b""
    do: str = "send"


class _Relay(Crowd):
    """The connections to the server. What is read on one goes on to its client.

    Attributes:
        lost: clients whose connection was found reset when something went on to them.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self._outlets: dict[str, socket.socket] = {}
        self._passed: dict[str, int] = {}
        self.lost: set[str] = set()

    def connect(self, name: str, server: socket.socket, client: socket.socket) -> None:
        self._outlets[name] = client
        self._passed[name] = 0
        self.add(name, server)

    def pump(self, seconds: float) -> bool:
        came = super().pump(seconds)
        for each in self if came else ():
            news = bytes(each.got[self._passed[each.name] :])
            self._passed[each.name] += len(news)
            if news or each.end:
                self._pass_on(each.name, news, each.end)
        return came

    def take(self, name: str) -> bytes:
        """What has come for a client since the last time."""
        client = self[name]
        data = bytes(client.got)
        client.got.clear()
        self._passed[name] = 0
        return data

    def _pass_on(self, name: str, data: bytes, end: str) -> None:
        outlet = self._outlets[name]
        try:
            outlet.sendall(data)
            if end:
                outlet.shutdown(socket.SHUT_WR)
        except OSError:
            # Its connection tells of the reset once only, and that was here.
            self.lost.add(name)


class Proxy:
    """Between the clients that come to its address, and a server.

    Attributes:
        address: where the clients come.
    """

    def __init__(
        self, door: socket.socket, place: Place, profile: Profile, timeout: float
    ) -> None:
        self.address: tuple[str, int] = door.getsockname()[:2]
        self._door = door
        self._place = place
        self._profile = profile
        self._relay = _Relay(timeout)
        self._quiet = Quiet(self._relay, profile.quiet, profile.patience)
        self._names = Names(profile.volatile)
        self._clients: dict[str, socket.socket] = {}
        self._labels = (
            "".join(letters)
            for length in itertools.count(1)
            for letters in itertools.product(string.ascii_lowercase, repeat=length)
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(door, selectors.EVENT_READ)
        self._stopped, self._stop = socket.socketpair()
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._stop.setblocking(False)

    def header(self, title: str) -> Header:
        """What the transcript begins with."""
        return Header(
            title,
            f"port {self._place.port}, through a proxy",
            self._profile.name,
            self._profile.framing,
        )

    def steps(self) -> Iterator[Step]:
        """What passes, until it is stopped."""
        action: Action | None = None
        while (event := self._next()) is not None:
            if action is not None:
                yield self._over(action)
                action = None
            if event.do != "open" and event.client not in self._clients:
                # The server had ended it before, and what it did reaches nobody.
                continue
            action, refused = self._do(event)
            if refused:
                yield Step(action, {action.client: Got(end="refused")})
                action = None
        if action is not None:
            yield self._over(action)

    def stop(self) -> None:
        """Let steps() come to its end; may be called from anywhere."""
        self._stop.send(b"!")

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Let signals stop it in this block, which the main thread must enter."""
        # Their byte is written from C. A handler in Python would stop nothing until
        # the wait is over, if the signal came right before it.
        before = signal.set_wakeup_fd(self._stop.fileno())
        try:
            with handled(lambda *_: None):
                yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close every connection."""
        for name in list(self._clients):
            self._forget(name)
        self._relay.close()
        self._quiet.close()
        self._selector.close()
        self._stopped.close()
        self._stop.close()

    def _next(self) -> _Event | None:
        """What a client does next; None to stop. What the server says goes on."""
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._stopped in ready:
                return None
            self._relay.pump(0)
            self._let_go()
            if self._door in ready:
                return _Event(next(self._labels), do="open")
            for name, sock in list(self._clients.items()):
                if sock in ready and sock.fileno() >= 0:
                    return self._read(name, sock)

    def _read(self, name: str, sock: socket.socket) -> _Event:
        try:
            data = sock.recv(READ_SIZE)
        except OSError:
            return _Event(name, do="reset")
        if not data and name in self._relay.lost:
            return _Event(name, do="reset")
        return _Event(name, data, "send" if data else "half-close")

    def _do(self, event: _Event) -> tuple[Action, bool]:
        """Pass it on; return it as it is written down, and whether it was refused."""
        name, data, do = event
        if do == "open":
            return Action(name, do), not self._let_in(name)
        action = Action(name, do, self._names.hear(data, new=False))
        if do != "send":
            self._selector.unregister(self._clients[name])
        if name not in self._relay:
            return action, False
        if do == "reset":
            self._selector.unregister(self._relay[name].sock)
            self._relay.reset(name)
            self._forget(name)
        elif do == "half-close":
            self._relay.shut(self._relay[name])
        else:
            self._relay.send(self._relay[name], data)
        return action, False

    def _let_in(self, name: str) -> bool:
        client, _ = self._door.accept()
        try:
            server = self._place.connect()
        except (ConnectionRefusedError, RunError):
            client.close()
            return False
        client.settimeout(self._relay.timeout)
        self._clients[name] = client
        self._relay.connect(name, server, client)
        self._names.bind_client(name, *self._relay[name].address)
        self._selector.register(client, selectors.EVENT_READ)
        self._selector.register(server, selectors.EVENT_READ)
        return True

    def _over(self, action: Action) -> Step:
        """Wait until it is quiet; what everybody has got since the step began."""
        self._quiet.settle()
        self._let_go()
        heard: Heard = {}
        for client in self._relay:
            data, end = self._relay.take(client.name), client.end
            if data or end:
                heard[client.name] = Got(self._names.hear(data), end)
            if end:
                self._relay.remove(client.name)
                self._forget(client.name)
        return Step(action, heard)

    def _let_go(self) -> None:
        """Whom the server has closed is not waited for any more."""
        for client in self._relay:
            if client.end and client.sock in self._selector.get_map():
                self._selector.unregister(client.sock)

    def _forget(self, name: str) -> None:
        client = self._clients.pop(name)
        if client in self._selector.get_map():
            self._selector.unregister(client)
        client.close()


@contextmanager
def listen(
    address: tuple[str, int],
    server: tuple[str, int],
    profile: Profile,
    timeout: float,
) -> Iterator[Proxy]:
    """A proxy that listens at *address*.

    Raises:
        RunError: it cannot.
    """
    with ExitStack() as stack:
        try:
            door = socket.create_server(address, backlog=BACKLOG)
        except OSError as error:
            raise RunError(
                f"cannot listen on {address[0]}:{address[1]}: {error}"
            ) from error
        stack.enter_context(door)
        proxy = Proxy(door, Place(*server, timeout=timeout), profile, timeout)
        stack.callback(proxy.close)
        yield proxy
