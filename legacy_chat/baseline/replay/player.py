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

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType

from legacy_chat.baseline.model.compare import first_difference
from legacy_chat.baseline.model.cuts import cut
from legacy_chat.baseline.model.errors import RunError
from legacy_chat.baseline.model.format import (
    Action,
    Answers,
    Received,
    Step,
    Transcript,
)
from legacy_chat.baseline.model.names import Names
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.replay.barrier import WITNESS, Barrier, on_one_cpu
from legacy_chat.baseline.replay.client_pool import Client, ClientPool
from legacy_chat.baseline.replay.quiescence import LOOK, QUIET, Quiescence
from legacy_chat.baseline.replay.server import Endpoint

__all__ = [
    "LAST_LOOK",
    "TIMEOUT",
    "Player",
    "joined",
    "numbered",
    "play",
    "quiet_of",
]

# Seconds to wait for anything that must arrive.
TIMEOUT = 20.0

# Seconds to wait for missing data after a barrier. A server with a loop sends nothing
# more then, but a server with threads may not have finished.
AFTER_BARRIER = 0.2

# After the last step, a recording waits this multiple of the quiet for late data.
LAST_LOOK = 3

# A check waits for missing data this multiple of the recording's wait.
MARGIN = 2

# In errors: why a client is no longer connected, by the end of its connection.
ABSENCES = {
    "eof": ": the server has closed its connection",
    "reset": ": the server has reset its connection",
    "refused": ": its connection was refused",
    "": "",
}


class Player:
    """A conversation with a server.

    Args:
        endpoint: the address of the server.
        timeout: seconds to wait for anything that must arrive.
        witness: whether to return the witness's data, too.
        host: the address that the clients connect to, if not the endpoint's own.
        cut: the cut of every message without its own.
        quiet: seconds without data that end a step without an expected answer.
        recorded_quiet: the quiet of the recording that is checked; 0 if unknown.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        profile: Profile,
        timeout: float = TIMEOUT,
        *,
        witness: bool = False,
        host: str = "",
        cut: str = "",
        quiet: float = LOOK,
        recorded_quiet: float = 0.0,
    ) -> None:
        self._endpoint = endpoint
        self._profile = profile
        self._witness = witness
        self._host = host
        self._cut = cut
        self._seconds = quiet
        self._recorded_seconds = recorded_quiet
        self._pool = ClientPool(timeout)
        self._names = Names(profile.volatile)
        self._barrier: Barrier | None = None
        self._quiescence: Quiescence | None = None
        self._nobody_can_come = False
        self._ends: dict[str, str] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Player:
        with self._cleanup:
            self._cleanup.callback(self._close)
            self._cleanup.enter_context(on_one_cpu())
            self._begin()
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._cleanup:
            if error is None and self._profile.leave and not self.gone():
                self._take_leave()

    def step(
        self, action: Action, expected: Answers | None = None, *, last: bool = False
    ) -> Answers:
        """Perform *action*; return the data that each client received.

        Args:
            expected: the expected data; missing data is waited for.
            last: whether this is the last step, where the recording waited longer.

        Raises:
            RunError: the action is impossible, or data that must arrive did not.
        """
        refused = self._do(action, expected, last)
        answers = {**self._heard(self._names), **refused}
        self._turn_the_page()
        return answers

    def rest(self, expected: Answers | None = None) -> Answers:
        """Return late data, received without another action.

        With a barrier, there is no wait: the barrier has proved that nothing is late.

        Args:
            expected: the expected data; missing data is waited for.
        """
        if self._barrier is None and self._is_somebody_there():
            if expected is None:
                self._silence().settle(self._seconds)
            else:
                self._wait_for(expected, self._profile.patience)
        answers = self._heard(self._names)
        self._turn_the_page()
        return answers

    def look_longer(self) -> Answers:
        """Return late data after the last step of a recording, with a longer wait."""
        self._seconds *= LAST_LOOK
        return self.rest()

    def break_off(self) -> None:
        """Close all clients without "leave", because the server's state is unknown."""
        self._pool.close()

    def gone(self) -> bool:
        """Return whether the server has closed the witness, which ends the steps."""
        return self._barrier is not None and WITNESS not in self._pool

    def _begin(self) -> None:
        words = self._profile.barrier
        if words is None:
            return
        witness = self._join(WITNESS)
        if witness is None:
            self._nobody_can_come = True
            return
        address = self._names.written(WITNESS)
        self._barrier = Barrier(self._pool, words, address)
        self._barrier.begin()
        witness.got.clear()
        self._barrier.forget()

    def _do(self, action: Action, expected: Answers | None, last: bool) -> Answers:
        """Perform *action* and wait for its end; return a client that was refused."""
        if self.gone():
            raise RunError("the server has closed the witness, or is gone")
        name, do, data, how = action
        if do == "open":
            if name in self._pool:
                raise RunError(f"{name} is to come, and is here already")
            if self._nobody_can_come or self._join(name) is None:
                self._ends[name] = "refused"
                return {name: Received(end="refused")}
            self._settle(action, expected, last)
            return {}
        client = self._client(name, do)
        if data and do == "reset":
            raise RunError(
                f"{name} is to say something and reset the connection: whether it is "
                "answers is chance; let it send first, and reset in the next step"
            )
        *first, end = cut(self._names.say(data), how or self._cut) or [b""]
        for piece in first:
            self._pool.send(client, piece)
            self._settle_between(client, piece)
        self._pool.send(client, end)
        self._leave_by(client, do)
        self._settle(Action(name, do, end), expected, last)
        return {}

    def _client(self, name: str, do: str) -> Client:
        if name not in self._pool or name == WITNESS:
            why = ABSENCES[self._ends.get(name, "")]
            raise RunError(f"{name} is to {do}, and is not here{why}")
        client = self._pool[name]
        if client.mute and do in ("send", "half-close"):
            raise RunError(f"{name} is to {do}, and has said that it says no more")
        return client

    def _leave_by(self, client: Client, do: str) -> None:
        if do == "drop":
            self._pool.remove(client.name)
        elif do == "reset":
            self._pool.reset(client.name)
        elif do == "half-close":
            self._pool.shut(client)

    def _join(self, name: str) -> Client | None:
        """Connect a new client; return None if the connection is refused."""
        try:
            sock = self._endpoint.connect(self._host)
        except ConnectionRefusedError:
            return None
        self._ends.pop(name, None)
        client = self._pool.add(name, sock)
        self._names.bind_client(name, *client.address)
        return client

    def _settle(self, action: Action, expected: Answers | None, last: bool) -> None:
        """Wait until the step is over, and longer while expected data is missing."""
        if self._barrier is not None:
            self._barrier.settle(action)
            if expected is not None and self._misses(expected):
                self._wait_for(expected, AFTER_BARRIER)
        elif expected is not None:
            waited = self._recorded_seconds * (LAST_LOOK if last else 1)
            self._wait_for(expected, max(self._profile.patience, MARGIN * waited))
        elif self._is_somebody_there():
            self._silence().settle(self._seconds)
        else:
            # No client is left to receive data, but the server must process the action.
            self._silence().settle(LOOK)

    def _wait_for(self, expected: Answers, patience: float) -> None:
        self._silence().wait_for(lambda: not self._misses(expected), patience)

    def _misses(self, expected: Answers) -> bool:
        """Return whether expected data is missing, and may still arrive."""
        # A copy, so that an incomplete value does not get a name.
        answers = self._heard(self._names.copy())
        return answers != expected and all(
            name in expected and self._may_become(got, expected[name])
            for name, got in answers.items()
        )

    def _may_become(self, got: Received, expected: Received) -> bool:
        if got.end:
            return got == expected
        if not self._profile.volatile:
            return expected.data.startswith(got.data)
        same = first_difference(got.data, expected.data)
        # An incomplete value may match a pattern once all of it has arrived.
        opens = expected.data.rfind(b"{", 0, same + 1)
        is_in_name = opens > expected.data.rfind(b"}", 0, same)
        return is_in_name or b"\n" not in got.data[same:]

    def _is_somebody_there(self) -> bool:
        return any(not client.end for client in self._pool)

    def _settle_between(self, client: Client, piece: bytes) -> None:
        """Wait until the server has read a piece of a message as a separate segment."""
        if self._barrier is not None:
            self._barrier.settle(Action(client.name, "send", piece))
        elif self._profile.framing == "stream":
            self._silence().wait_for(lambda: True)
        else:
            # The recording does not show which part of the answer belongs to a piece.
            self._silence().settle(max(self._seconds, self._recorded_seconds))

    def _silence(self) -> Quiescence:
        if self._quiescence is None:
            self._quiescence = Quiescence(self._pool)
        return self._quiescence

    def _heard(self, names: Names) -> Answers:
        """Return the data of all clients since the last step."""
        answers: Answers = {}
        for client in self._pool:
            data = bytes(client.got)
            if self._barrier is not None:
                data = self._barrier.clean(data)
            told = client.name != WITNESS or self._witness or client.end
            if told and (data or client.end):
                answers[client.name] = Received(names.hear(data), client.end)
        return answers

    def _turn_the_page(self) -> None:
        for client in self._pool:
            client.got.clear()
            if client.end:
                self._ends[client.name] = client.end
                self._pool.remove(client.name)
        if self._barrier is not None:
            self._barrier.forget()

    def _take_leave(self) -> None:
        """Send "leave" from each client; the witness, which came first, leaves last."""
        for client in reversed(list(self._pool)):
            if not client.mute:
                self._pool.send(client, self._profile.leave)
            if self._pool.until([client], lambda each: bool(each.end)):
                raise RunError(
                    f"{client.name} took leave with {self._profile.leave!r}, and the "
                    f"connection did not end in {self._pool.timeout:g} s"
                )

    def _close(self) -> None:
        self._pool.close()
        if self._quiescence is not None:
            self._quiescence.close()


def quiet_of(profile: Profile, quiet: float = 0.0) -> float:
    """Return the seconds of quiet for a recording; 0 if a barrier ends its steps.

    Args:
        quiet: the requested seconds; 0 for the profile's, or else QUIET.
    """
    return 0.0 if profile.barrier else quiet or profile.quiet or QUIET


def play(
    transcript: Transcript,
    endpoint: Endpoint,
    profile: Profile,
    timeout: float = TIMEOUT,
    *,
    host: str | None = None,
    quiet: float = 0.0,
) -> Iterator[Step]:
    """Yield the transcript's actions, each with the data that clients receive now.

    Args:
        quiet: seconds, see quiet_of.

    Raises:
        RunError: see Player.step.
    """
    header = transcript.header
    with Player(
        endpoint,
        profile,
        timeout,
        witness=header.witness,
        host=header.host if host is None else host,
        cut=header.cut,
        quiet=quiet_of(profile, quiet),
    ) as conversation:
        for at, last, (action, _) in numbered(transcript.steps):
            try:
                answers = conversation.step(action)
                if last:
                    answers = joined(answers, conversation.look_longer())
            except RunError as error:
                raise RunError(f"step {at}: {error}") from error
            yield Step(action, answers)


def numbered(steps: Iterable[Step]) -> Iterator[tuple[int, bool, Step]]:
    """Yield each step with its number and whether it is the last."""
    at, before = 0, None
    for step in steps:
        if before is not None:
            yield at, False, before
        at, before = at + 1, step
    if before is not None:
        yield at, True, before


def joined(answers: Answers, late: Answers) -> Answers:
    """Return the data of a step with the late data added."""
    result = dict(answers)
    for name, got in late.items():
        data, end = result.get(name, Received())
        result[name] = Received(data + got.data, got.end or end)
    return result
