"""Sits between real clients and a server, and writes down what passes.

Rule 1: what a client does is one step, and the next client is heard when all is quiet
again: nobody's answer is taken for an answer to somebody else.
Rule 2: what the server says goes on at once.
Rule 3: the clients are called a, b, c … in the order of their coming.
Rule 4: whatever ends the recording, the steps until then are kept.
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

from legacy_chat.baseline.crowd import Crowd
from legacy_chat.baseline.errors import NeverQuietError, RunError
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

# Seconds in which what the server still sends is read, when the recording ends.
LAST_LOOK = 0.3


class _StoppedError(Exception):
    """The recording has been stopped while something was waited for."""


class _Event(NamedTuple):
    """What a client has done: come, said something, or gone (no data)."""

    client: str
    data: bytes = b""
    do: str = "send"


class _Relay(Crowd):
    """The connections to the server. What is read on one goes on to its client.

    Args:
        stopped: has something to read when the recording is to end.

    Attributes:
        lost: clients whose connection was found reset when something went on to them.
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
        """As Crowd.pump, and send on what was read.

        Raises:
            _StoppedError: the recording is to end.
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
        """What has come for a client since the last time."""
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
            # Its connection tells of the reset once only, and that was here.
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
    """Between the clients that come to its address, and a server.

    Attributes:
        address: where the clients come.
        error: why the recording has ended, if nobody has stopped it.
    """

    def __init__(
        self,
        door: socket.socket,
        place: Place,
        profile: Profile,
        timeout: float,
        quiet: float,
        warn: Callable[[str], object],
    ) -> None:
        self.address: tuple[str, int] = door.getsockname()[:2]
        self.error = ""
        self._door = door
        self._place = place
        self._profile = profile
        self._seconds = quiet
        self._warn = warn
        self._stopped, self._stop = socket.socketpair()
        self._relay = _Relay(timeout, self._stopped)
        self._quiet = Quiet(self._relay)
        self._count = 0
        # Something has come since the step was quiet.
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

    def header(self, title: str) -> Header:
        """What the transcript begins with."""
        return Header(
            title,
            f"port {self._place.port}, through a proxy",
            self._profile.name,
            self._profile.framing,
            quiet=self._seconds,
        )

    def steps(self) -> Iterator[Step]:
        """What passes, until it is stopped or fails; `error` then says why."""
        action: Action | None = None
        try:
            while (event := self._next()) is not None:
                if action is not None:
                    if self._is_late:
                        self._settle()
                    yield self._over(action)
                    action = None
                if event.do != "open" and event.client not in self._clients:
                    # The server had ended it before, and what it did reaches nobody.
                    continue
                action = self._as_action(event)
                if self._do(event):
                    self._settle()
                else:
                    self._count += 1
                    yield Step(action, {action.client: Got(end="refused")})
                    action = None
        except _StoppedError:
            self._look_again()
        except RunError as error:
            self.error = str(error)
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
        """The event as it is written down."""
        name, data, do = event
        return Action(name, do, self._names.hear(data, new=False))

    def _do(self, event: _Event) -> bool:
        """Pass it on; return False if the server has refused the client."""
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

    def _settle(self) -> None:
        """Wait until the server is quiet, or has not been for the whole timeout."""
        self._is_late = False
        try:
            self._quiet.settle(self._seconds)
        except NeverQuietError as error:
            self._warn(f"step {self._count + 1} was cut: {error}")

    def _look_again(self) -> None:
        """Read what still comes, for a moment. It does not go on to the clients."""
        end = time.monotonic() + LAST_LOOK
        try:
            while (left := end - time.monotonic()) > 0:
                Crowd.pump(self._relay, left)
        except RunError as error:
            self.error = str(error)

    def _over(self, action: Action) -> Step:
        """The step, with what everybody has got since it began."""
        self._let_go()
        self._count += 1
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
    quiet: float,
    warn: Callable[[str], object],
) -> Iterator[Proxy]:
    """A proxy that listens at *address*.

    Args:
        quiet: seconds without a byte after which a step is over.
        warn: is called with what makes the recording doubtful.

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
        place = Place(*server, timeout=timeout)
        proxy = Proxy(door, place, profile, timeout, quiet, warn)
        stack.callback(proxy.close)
        yield proxy
