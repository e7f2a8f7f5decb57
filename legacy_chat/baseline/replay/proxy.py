"""A proxy between real clients and a server, which records the traffic.

Rule 1: each action of a client is one step. The proxy reads the next action after the
server is quiet, so no answer is assigned to the wrong action.
Rule 2: data from the server is forwarded at once.
Rule 3: the clients are named a, b, c … in the order of their arrival.
Rule 4: however the recording ends, the steps so far are kept.
"""

from __future__ import annotations

import itertools
import select
import selectors
import signal
import socket
import string
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from legacy_chat.baseline.model.errors import NeverQuietError, RunError
from legacy_chat.baseline.model.format import (
    Action,
    Answers,
    Received,
    Step,
    TranscriptHeader,
)
from legacy_chat.baseline.model.names import Names
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.replay.client_pool import ClientPool
from legacy_chat.baseline.replay.quiescence import Quiescence
from legacy_chat.baseline.replay.server import Endpoint
from legacy_chat.baseline.replay.signals import handled

__all__ = ["Proxy", "listen"]

# Maximum bytes that a client sends in one step.
READ_SIZE = 1 << 16

BACKLOG = 128

# Seconds to read late data from the server when the recording ends.
LAST_LOOK = 0.3


class _StoppedError(Exception):
    """The recording was stopped during a wait."""


class _Event(NamedTuple):
    """A client's action: it connects, sends data, or ends its connection (no data)."""

    client: str
    data: bytes = b""
    do: str = "send"


class _Relay(ClientPool):
    """The connections to the server. Data read on one is forwarded to its client.

    Args:
        stopped: readable when the recording must end.

    Attributes:
        lost: clients whose connection failed when data was forwarded to them.
    """

    def __init__(self, timeout: float, stopped: socket.socket) -> None:
        super().__init__(timeout)
        self._stopped = stopped
        self._outlets: dict[str, socket.socket] = {}
        self._passed: dict[str, int] = {}
        self.lost: set[str] = set()

    def connect(self, name: str, server: socket.socket, client: socket.socket) -> None:
        self._outlets[name] = client
        self._passed[name] = 0
        self.add(name, server)

    def pump(self, seconds: float) -> bool:
        """Poll and read as ClientPool.pump does, and forward the data.

        Raises:
            _StoppedError: the recording must end.
        """
        came = super().pump(seconds)
        for each in self if came else ():
            news = bytes(each.got[self._passed[each.name] :])
            self._passed[each.name] += len(news)
            if news or each.end:
                self._pass_on(each.name, news, each.end)
        if select.select([self._stopped], [], [], 0)[0]:
            raise _StoppedError
        return came

    def take(self, name: str) -> bytes:
        """Return the data received for a client since the last call."""
        client = self[name]
        data = bytes(client.got)
        client.got.clear()
        self._passed[name] = 0
        return data

    def _pass_on(self, name: str, data: bytes, end: str) -> None:
        if name in self.lost:
            return
        outlet = self._outlets[name]
        try:
            self._send_to(outlet, data)
            if end:
                outlet.shutdown(socket.SHUT_WR)
        except OSError:
            # A socket reports a reset only once, which was here.
            self.lost.add(name)

    def _send_to(self, outlet: socket.socket, data: bytes) -> None:
        left = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(outlet, selectors.EVENT_WRITE)
            selector.register(self._stopped, selectors.EVENT_READ)
            while left:
                ready = [key.fileobj for key, _ in selector.select(self.timeout)]
                if self._stopped in ready:
                    raise _StoppedError
                if not ready:
                    raise TimeoutError("the client reads nothing")
                left = left[outlet.send(left) :]


class Proxy:
    """Accepts clients, and connects each of them to a server.

    Attributes:
        address: the address that the clients connect to.
        error: why the recording ended; "" if it was stopped.
    """

    def __init__(
        self,
        door: socket.socket,
        endpoint: Endpoint,
        profile: Profile,
        timeout: float,
        quiet: float,
        warn: Callable[[str], object],
    ) -> None:
        self.address: tuple[str, int] = door.getsockname()[:2]
        self.error = ""
        self._door = door
        self._endpoint = endpoint
        self._profile = profile
        self._seconds = quiet
        self._warn = warn
        self._stopped, self._stop = socket.socketpair()
        self._relay = _Relay(timeout, self._stopped)
        self._quiescence = Quiescence(self._relay)
        self._count = 0
        # Whether data has arrived since the step was quiet.
        self._is_late = False
        self._names = Names(profile.volatile)
        self._clients: dict[str, socket.socket] = {}
        self._labels = (
            "".join(letters)
            for length in itertools.count(1)
            for letters in itertools.product(string.ascii_lowercase, repeat=length)
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(door, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._stop.setblocking(False)

    def header(self, title: str) -> TranscriptHeader:
        """Return the transcript's header."""
        return TranscriptHeader(
            title,
            f"port {self._endpoint.port}, through a proxy",
            self._profile.name,
            self._profile.framing,
            quiet=self._seconds,
        )

    def steps(self) -> Iterator[Step]:
        """Yield the steps until the recording is stopped, or fails and sets `error`."""
        action: Action | None = None
        try:
            while (event := self._next()) is not None:
                if action is not None:
                    if self._is_late:
                        self._settle()
                    yield self._over(action)
                    action = None
                if event.do != "open" and event.client not in self._clients:
                    # The server had closed the client before; the action has no effect.
                    continue
                action = self._as_action(event)
                if self._do(event):
                    self._settle()
                else:
                    self._count += 1
                    yield Step(action, {action.client: Received(end="refused")})
                    action = None
        except _StoppedError:
            self._look_again()
        except RunError as error:
            self.error = str(error)
        if action is not None:
            yield self._over(action)

    def stop(self) -> None:
        """Let steps() end; safe from any thread."""
        self._stop.send(b"!")

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Let signals stop it in this block, which the main thread must enter."""
        # The wakeup byte is written in C. After a signal right before a wait, a Python
        # handler would run only when the wait is over.
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
        self._quiescence.close()
        self._selector.close()
        self._stopped.close()
        self._stop.close()

    def _next(self) -> _Event | None:
        """Return a client's next action, or None to stop; forward the server's data."""
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._stopped in ready:
                return None
            self._is_late |= self._relay.pump(0)
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

    def _as_action(self, event: _Event) -> Action:
        """Return the event as an action of the transcript."""
        name, data, do = event
        return Action(name, do, self._names.hear(data, new=False))

    def _do(self, event: _Event) -> bool:
        """Perform the event on the server; return False if it refused the client."""
        name, data, do = event
        if do == "open":
            return self._let_in(name)
        if do != "send":
            self._selector.unregister(self._clients[name])
        if name not in self._relay:
            return True
        if do == "reset":
            self._selector.unregister(self._relay[name].sock)
            self._relay.reset(name)
            self._forget(name)
        elif do == "half-close":
            self._relay.shut(self._relay[name])
        else:
            self._relay.send(self._relay[name], data)
        return True

    def _let_in(self, name: str) -> bool:
        client, _ = self._door.accept()
        try:
            server = self._endpoint.connect()
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

    def _settle(self) -> None:
        """Wait until the server is quiet; warn if it is not within the timeout."""
        self._is_late = False
        try:
            self._quiescence.settle(self._seconds)
        except NeverQuietError as error:
            self._warn(f"step {self._count + 1} was cut: {error}")

    def _look_again(self) -> None:
        """Read late data for LAST_LOOK seconds, without forwarding it."""
        end = time.monotonic() + LAST_LOOK
        try:
            while (left := end - time.monotonic()) > 0:
                ClientPool.pump(self._relay, left)
        except RunError as error:
            self.error = str(error)

    def _over(self, action: Action) -> Step:
        """Return the step with the data that all clients received since it began."""
        self._let_go()
        self._count += 1
        answers: Answers = {}
        for client in self._relay:
            data, end = self._relay.take(client.name), client.end
            if data or end:
                answers[client.name] = Received(self._names.hear(data), end)
            if end:
                self._relay.remove(client.name)
                self._forget(client.name)
        return Step(action, answers)

    def _let_go(self) -> None:
        """Stop polling the connections that the server has closed."""
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
    quiet: float,
    warn: Callable[[str], object],
) -> Iterator[Proxy]:
    """Yield a proxy that listens at *address*.

    Args:
        quiet: seconds without data after which a step is over.
        warn: called with each reason to doubt the recording.

    Raises:
        RunError: the proxy cannot listen.
    """
    with ExitStack() as stack:
        try:
            door = socket.create_server(address, backlog=BACKLOG)
        except OSError as error:
            raise RunError(
                f"cannot listen on {address[0]}:{address[1]}: {error}"
            ) from error
        stack.enter_context(door)
        endpoint = Endpoint(*server, timeout=timeout)
        proxy = Proxy(door, endpoint, profile, timeout, quiet, warn)
        stack.callback(proxy.close)
        yield proxy
