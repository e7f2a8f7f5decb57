"""Plays a conversation to a server, step by step, and returns each client's data.

A step is one action of one client. Evidence ends a step: the proof of a witness where
the profile has a barrier (barrier.py), otherwise quiet (quiescence.py).

Rule 1: an action is one segment, or the segments of its cut; the server has processed
each segment before the next one is sent.
Rule 2: data that is expected is waited for longer, because a slow server is not wrong.
Rule 3: if data that must arrive is missing, that is an error, not an answer.
Rule 4: at the end, each client sends the profile's "leave", if there is one, and waits
for its connection to end, so the next conversation starts in an empty room.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace

from legacy_chat.baseline.model.compare import first_difference
from legacy_chat.baseline.model.errors import ReplayError
from legacy_chat.baseline.model.names import Names
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.model.segments import cut
from legacy_chat.baseline.model.transcript import (
    Action,
    Answers,
    Received,
    Step,
    Transcript,
    TranscriptHeader,
    joined,
    numbered,
)
from legacy_chat.baseline.replay.barrier import WITNESS, Barrier, on_one_cpu
from legacy_chat.baseline.replay.client_pool import Client, ClientPool
from legacy_chat.baseline.replay.quiescence import LAST_POLL, QUIET, Quiescence
from legacy_chat.baseline.replay.server import Endpoint

__all__ = ["LAST_WAIT", "TIMEOUT", "Player", "conversation", "play", "quiet_of"]

# Seconds to wait for anything that must arrive.
TIMEOUT = 20.0

# Seconds to wait for missing data after a barrier. A server with a loop sends nothing
# more then, but a server with threads may not have finished.
AFTER_BARRIER = 0.2

# After the last step, a recording waits this multiple of the quiet for late data.
LAST_WAIT = 3

# A check waits for missing data this multiple of the recording's wait.
MARGIN = 2


@contextmanager
def conversation(
    endpoint: Endpoint,
    profile: Profile,
    timeout: float = TIMEOUT,
    header: TranscriptHeader = TranscriptHeader(),  # noqa: B008  # frozen
    quiet: float = LAST_POLL,
) -> Iterator[Player]:
    """Yield a player; at the end, unless an exception is raised, its clients leave.

    Args:
        timeout: seconds to wait for anything that must arrive.
        header: the host of the clients, the default cut, whether to return the
            witness's data, and the quiet of the recording that is checked.
        quiet: seconds without data that end a step without an expected answer.
    """
    with ExitStack() as stack:
        player = Player(endpoint, profile, timeout, header, quiet)
        stack.callback(player.close)
        stack.enter_context(on_one_cpu())
        player.begin()
        yield player
        if profile.leave and not player.is_over():
            player.leave()


@dataclass(eq=False)
class Player:
    """The clients of a conversation with a server; see conversation()."""

    endpoint: Endpoint
    profile: Profile
    timeout: float
    header: TranscriptHeader
    quiet: float

    def __post_init__(self) -> None:
        self._pool = ClientPool(self.timeout)
        self._names = Names(self.profile.volatile)
        self._barrier: Barrier | None = None
        self._quiescence = Quiescence(self._pool)
        self._refuses_all = False
        self._ends: dict[str, str] = {}

    def begin(self) -> None:
        """Connect the witness, if the profile has a barrier."""
        messages = self.profile.barrier
        if messages is None:
            return
        if self._connect(WITNESS) is None:
            self._refuses_all = True
            return
        address = self._names.written(WITNESS)
        self._barrier = Barrier(self._pool, messages, address)
        self._barrier.begin()

    def step(
        self, action: Action, expected: Answers | None = None, *, last: bool = False
    ) -> Answers:
        """Perform *action*; return the data that each client received.

        Args:
            expected: the expected data; missing data is waited for.
            last: whether this is the last step, where the recording waited longer.
        """
        if self.is_over():
            raise ReplayError("the server has closed the witness, or is gone")
        if action.do != "open":
            self._settle(self._act(action), expected, last)
        elif action.client in self._pool:
            raise ReplayError(f"{action.client} cannot open: it is connected already")
        elif self._refuses_all or self._connect(action.client) is None:
            self._ends[action.client] = "refused"
            return {**self._end_step(), action.client: Received(end="refused")}
        else:
            self._settle(action, expected, last)
        return self._end_step()

    def late_answers(
        self, expected: Answers | None = None, *, longer: float = 1
    ) -> Answers:
        """Return late data, received without another action.

        With a barrier, there is no wait: the barrier has proved that nothing is late.

        Args:
            expected: the expected data; missing data is waited for.
            longer: the factor of the wait for data that is not expected.
        """
        if self._barrier is None and self._is_any_connected():
            if expected is None:
                self._quiescence.settle(self.quiet * longer)
            else:
                self._wait_for(expected, self.profile.patience)
        return self._end_step()

    def is_over(self) -> bool:
        """Return whether the server has closed the witness, which ends the steps."""
        return self._barrier is not None and WITNESS not in self._pool

    def leave(self) -> None:
        """Send "leave" from each client; the witness, which came first, leaves last."""
        for client in reversed(list(self._pool)):
            if not client.is_half_closed:
                self._pool.send(client, self.profile.leave)
            if self._pool.until([client], lambda each: bool(each.end)):
                raise ReplayError(
                    f"{client.name} sent {self.profile.leave!r} to leave, and the "
                    f"connection did not end within {self._pool.timeout:g} s"
                )

    def abort(self) -> None:
        """Close all clients without "leave", because the server's state is unknown."""
        self._pool.close()

    def close(self) -> None:
        """Close all clients."""
        self._pool.close()
        self._quiescence.close()

    def _connect(self, name: str) -> Client | None:
        """Connect a new client; return None if the connection is refused."""
        try:
            sock = self.endpoint.connect(self.header.host)
        except ConnectionRefusedError:
            return None
        self._ends.pop(name, None)
        client = self._pool.add(name, sock)
        self._names.bind_client(name, *client.address)
        return client

    def _act(self, action: Action) -> Action:
        """Send the action's data, and close; return the action of the last segment."""
        name, do = action.client, action.do
        client = self._client(name, do)
        if action.data and do == "reset":
            raise ReplayError(
                f"{name} cannot send data and reset the connection in one step: the "
                "server may or may not read the data; use a send and then a reset"
            )
        data = self._names.to_values(action.data)
        *first, end = cut(data, action.cut or self.header.cut) or [b""]
        for segment in first:
            self._pool.send(client, segment)
            self._settle_between(client, segment)
        self._pool.send(client, end)
        if do == "drop":
            self._pool.remove(name)
        elif do == "reset":
            self._pool.reset(name)
        elif do == "half-close":
            self._pool.half_close(client)
        return replace(action, data=end)

    def _client(self, name: str, do: str) -> Client:
        if name not in self._pool or name == WITNESS:
            end = f" ({self._ends[name]})" if name in self._ends else ""
            raise ReplayError(f"{name} cannot {do}: it is not connected{end}")
        client = self._pool[name]
        if client.is_half_closed and do in ("send", "half-close"):
            raise ReplayError(f"{name} cannot {do}: it has half-closed its connection")
        return client

    def _settle(self, action: Action, expected: Answers | None, last: bool) -> None:
        """Wait until the step is over, and longer while expected data is missing."""
        if self._barrier is not None:
            self._barrier.settle(action)
            if expected is not None and self._misses(expected):
                self._wait_for(expected, AFTER_BARRIER)
        elif expected is not None:
            waited = self.header.quiet * (LAST_WAIT if last else 1)
            self._wait_for(expected, max(self.profile.patience, MARGIN * waited))
        else:
            # Without a client that receives data, the server must process the action.
            connected = self._is_any_connected()
            self._quiescence.settle(self.quiet if connected else LAST_POLL)

    def _settle_between(self, client: Client, segment: bytes) -> None:
        """Wait until the server has read a segment of a message."""
        if self._barrier is not None:
            self._barrier.settle(Action(client.name, "send", segment))
        elif self.profile.framing == "stream":
            self._quiescence.wait_for(lambda: True)
        else:
            # The recording does not show the answer to each segment.
            self._quiescence.settle(max(self.quiet, self.header.quiet))

    def _wait_for(self, expected: Answers, patience: float) -> None:
        self._quiescence.wait_for(lambda: not self._misses(expected), patience)

    def _misses(self, expected: Answers) -> bool:
        """Return whether expected data is missing, and may still arrive."""
        # A copy, so that an incomplete value does not get a name.
        answers = self._answers(copy(self._names))
        return answers != expected and all(
            name in expected and self._may_become(received, expected[name])
            for name, received in answers.items()
        )

    def _may_become(self, received: Received, expected: Received) -> bool:
        if received.end:
            return received == expected
        if not self.profile.volatile:
            return expected.data.startswith(received.data)
        same = first_difference(received.data, expected.data)
        # An incomplete value may match a pattern once all of it has arrived.
        opens = expected.data.rfind(b"{", 0, same + 1)
        is_in_name = opens > expected.data.rfind(b"}", 0, same)
        return is_in_name or b"\n" not in received.data[same:]

    def _is_any_connected(self) -> bool:
        return any(not client.end for client in self._pool)

    def _answers(self, names: Names) -> Answers:
        """Return the data of all clients since the last step."""
        answers: Answers = {}
        for client in self._pool:
            data = bytes(client.received)
            if self._barrier is not None:
                data = self._barrier.clean(data)
            shown = client.name != WITNESS or self.header.witness or client.end
            if shown and (data or client.end):
                answers[client.name] = Received(names.to_names(data), client.end)
        return answers

    def _end_step(self) -> Answers:
        """Return the step's data, and begin the next step."""
        answers = self._answers(self._names)
        for client in self._pool:
            client.received.clear()
            if client.end:
                self._ends[client.name] = client.end
                self._pool.remove(client.name)
        if self._barrier is not None:
            self._barrier.end_step()
        return answers


def quiet_of(profile: Profile, quiet: float = 0.0) -> float:
    """Return the seconds of quiet for a recording: the requested ones, or the default.

    They are 0 if a barrier ends its steps.
    """
    return 0.0 if profile.barrier else quiet or profile.quiet or QUIET


def play(
    transcript: Transcript,
    endpoint: Endpoint,
    profile: Profile,
    timeout: float = TIMEOUT,
    *,
    quiet: float = 0.0,
) -> Iterator[Step]:
    """Yield the transcript's actions, each with the data that clients receive now.

    For *quiet*, see quiet_of().
    """
    seconds = quiet_of(profile, quiet)
    header = replace(transcript.header, quiet=0.0)
    with conversation(endpoint, profile, timeout, header, seconds) as player:
        for at, last, (action, _) in numbered(transcript.steps):
            try:
                answers = player.step(action)
                if last:
                    answers = joined(answers, player.late_answers(longer=LAST_WAIT))
            except ReplayError as error:
                raise ReplayError(f"step {at}: {error}") from error
            yield Step(action, answers)
