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
from dataclasses import replace

from legacy_chat.baseline.model.errors import NeverQuietError, ReplayError
from legacy_chat.baseline.model.names import Names
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.model.transcript import (
    Action,
    Answers,
    Received,
    Step,
)
from legacy_chat.baseline.replay.client_pool import ClientPool
from legacy_chat.baseline.replay.quiescence import Quiescence
from legacy_chat.baseline.replay.server import Address, Endpoint
from legacy_chat.baseline.replay.signals import handled

__all__ = ["Proxy", "listen"]

# Maximum bytes that a client sends in one step.
READ_SIZE = 1 << 16

BACKLOG = 128

# Seconds to read late data from the server when the recording ends.
LAST_WAIT = 0.3


class _StoppedError(Exception):
    """The recording was stopped during a wait."""


class _Relay(ClientPool):
    """The connections to the server. Data read on one is forwarded to its client.

    Attributes:
        outlets: the real clients' sockets, by name.
        lost: clients whose connection failed when data was forwarded to them.
    """

    def __init__(self, timeout: float, stopped: socket.socket) -> None:
        super().__init__(timeout)
        self._stopped = stopped
        self.outlets: dict[str, socket.socket] = {}
        self.lost: set[str] = set()

    def pump(self, seconds: float) -> bool:
        """Poll and read as ClientPool.pump does, and forward the data."""
        before = [(each, len(each.received), each.end) for each in self]
        came = super().pump(seconds)
        for each, size, end in before if came else ():
            data = each.received[size:]
            if data or each.end != end:
                self._forward(each.name, data, each.end)
        if select.select([self._stopped], [], [], 0)[0]:
            raise _StoppedError
        return came

    def _forward(self, name: str, data: bytearray, end: str) -> None:
        if name in self.lost:
            return
        try:
            self._send_to(self.outlets[name], data)
            if end:
                self.outlets[name].shutdown(socket.SHUT_WR)
        except OSError:
            # A socket reports a reset only once, which was here.
            self.lost.add(name)

    def _send_to(self, outlet: socket.socket, data: bytearray) -> None:
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
    """Accepts clients, and connects each of them to a server; see listen().

    Attributes:
        address: the address that the clients connect to.
        error: why the recording ended; "" if it was stopped.
    """

    def __init__(
        self,
        listener: socket.socket,
        endpoint: Endpoint,
        profile: Profile,
        quiet: float,
        warn: Callable[[str], object],
    ) -> None:
        self.address: Address = listener.getsockname()[:2]
        self.error = ""
        self._listener = listener
        self._endpoint = endpoint
        self._quiet = quiet
        self._warn = warn
        self._stopped, self._stop = socket.socketpair()
        self._stop.setblocking(False)
        self._relay = _Relay(endpoint.timeout, self._stopped)
        self._quiescence = Quiescence(self._relay)
        self._count = 0
        # Whether data has arrived since the step was quiet.
        self._is_late = False
        self._names = Names(profile.volatile)
        # The real clients that may still act.
        self._inputs: dict[str, socket.socket] = {}
        self._labels = (
            "".join(letters)
            for length in itertools.count(1)
            for letters in itertools.product(string.ascii_lowercase, repeat=length)
        )

    def steps(self) -> Iterator[Step]:
        """Yield the steps until the recording is stopped, or fails and sets `error`."""
        action: Action | None = None
        try:
            while (event := self._next()) is not None:
                if action is not None:
                    if self._is_late:
                        self._settle()
                    yield self._end_step(action)
                    action = None
                if event.do != "open" and event.client not in self._inputs:
                    # The server had closed the client before; the action has no effect.
                    continue
                data = self._names.to_names(event.data, new=False)
                action = replace(event, data=data)
                if self._perform(event):
                    self._settle()
                else:
                    self._count += 1
                    yield Step(action, {action.client: Received(end="refused")})
                    action = None
        except _StoppedError:
            self._read_late_data()
        except ReplayError as error:
            self.error = str(error)
        if action is not None:
            yield self._end_step(action)

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
        for name in list(self._relay.outlets):
            self._close_client(name)
        for each in (self._relay, self._quiescence, self._stopped, self._stop):
            each.close()

    def _next(self) -> Action | None:
        """Return a client's next action, or None to stop; forward the server's data."""
        while True:
            servers = [each.sock for each in self._relay if not each.end]
            inputs = list(self._inputs.items())
            own = [self._stopped, self._listener]
            ready = _readable([*own, *servers, *(sock for _, sock in inputs)])
            if self._stopped in ready:
                return None
            self._is_late |= self._relay.pump(0)
            if self._listener in ready:
                return Action(next(self._labels), "open")
            for name, sock in inputs:
                if sock in ready:
                    return self._read(name, sock)

    def _read(self, name: str, sock: socket.socket) -> Action:
        try:
            data = sock.recv(READ_SIZE)
        except OSError:
            return Action(name, "reset")
        if not data and name in self._relay.lost:
            return Action(name, "reset")
        return Action(name, "send" if data else "half-close", data)

    def _perform(self, action: Action) -> bool:
        """Perform the action on the server; return False if it refused the client."""
        name = action.client
        if action.do == "open":
            return self._connect(name)
        if action.do != "send":
            del self._inputs[name]
        if name not in self._relay:
            return True
        if action.do == "reset":
            self._relay.reset(name)
            self._close_client(name)
        elif action.do == "half-close":
            self._relay.half_close(self._relay[name])
        else:
            self._relay.send(self._relay[name], action.data)
        return True

    def _connect(self, name: str) -> bool:
        client, _ = self._listener.accept()
        try:
            server = self._endpoint.connect()
        except (ConnectionRefusedError, ReplayError):
            client.close()
            return False
        client.settimeout(self._relay.timeout)
        self._inputs[name] = self._relay.outlets[name] = client
        self._names.bind_client(name, *self._relay.add(name, server).address)
        return True

    def _settle(self) -> None:
        """Wait until the server is quiet; warn if it is not within the timeout."""
        self._is_late = False
        try:
            self._quiescence.settle(self._quiet)
        except NeverQuietError as error:
            self._warn(f"step {self._count + 1} was cut: {error}")

    def _read_late_data(self) -> None:
        """Read late data for LAST_WAIT seconds, without forwarding it."""
        end = time.monotonic() + LAST_WAIT
        try:
            while (left := end - time.monotonic()) > 0:
                ClientPool.pump(self._relay, left)
        except ReplayError as error:
            self.error = str(error)

    def _end_step(self, action: Action) -> Step:
        """Return the step with the data that all clients received since it began."""
        self._count += 1
        answers: Answers = {}
        for client in self._relay:
            if client.received or client.end:
                data = self._names.to_names(bytes(client.received))
                answers[client.name] = Received(data, client.end)
                client.received.clear()
            if client.end:
                self._relay.remove(client.name)
                self._close_client(client.name)
        return Step(action, answers)

    def _close_client(self, name: str) -> None:
        self._inputs.pop(name, None)
        self._relay.outlets.pop(name).close()


def _readable(sockets: list[socket.socket]) -> list[object]:
    """Wait for readable sockets, and return them."""
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select()]


@contextmanager
def listen(
    address: Address,
    server: Address,
    profile: Profile,
    timeout: float,
    quiet: float,
    warn: Callable[[str], object],
) -> Iterator[Proxy]:
    """Yield a proxy that listens at *address*; it ends a step after *quiet* seconds.

    It calls *warn* with each reason to doubt the recording.
    """
    with ExitStack() as stack:
        try:
            listener = socket.create_server(address, backlog=BACKLOG)
        except OSError as error:
            host, port = address
            raise ReplayError(f"cannot listen on {host}:{port}: {error}") from error
        stack.enter_context(listener)
        endpoint = Endpoint(*server, timeout=timeout)
        proxy = Proxy(listener, endpoint, profile, quiet, warn)
        stack.callback(proxy.close)
        yield proxy
