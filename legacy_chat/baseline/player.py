"""Plays a conversation to a server, step by step, and tells what every client got.

A step is one action of one client. It is over by evidence: a witness proves it where
the profile names a fence (fence.py); otherwise all is quiet (quiet.py).

Rule 1: an action is one segment, or those into which it asks to be cut, and the server
has dealt with each before the next one.
Rule 2: what is known to come is waited for longer: a slow server is slow, not wrong.
Rule 3: what must come and does not is an error, not an answer.
Rule 4: at the end everybody takes leave, where the profile knows how, and sees the
connection end: the next conversation finds an empty room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType

from legacy_chat.baseline.compare import first_difference
from legacy_chat.baseline.crowd import Client, Crowd
from legacy_chat.baseline.cuts import cut
from legacy_chat.baseline.errors import RunError
from legacy_chat.baseline.fence import WITNESS, Fence, on_one_cpu
from legacy_chat.baseline.format import Action, Got, Heard, Step, Transcript
from legacy_chat.baseline.names import Names
from legacy_chat.baseline.places import Place
from legacy_chat.baseline.profile import Profile
from legacy_chat.baseline.quiet import LOOK, QUIET, Quiet

__all__ = [
    "LAST_LOOK",
    "TIMEOUT",
    "Conversation",
    "joined",
    "numbered",
    "play",
    "quiet_of",
]

# Seconds that anything which must come may take.
TIMEOUT = 20.0

# Seconds of patience with what is missing after a fence: nothing that a server with
# turns says comes then, but a server with threads may not be through.
AFTER_A_FENCE = 0.2

# Times the quiet that a recording waits after its last step: for what comes late.
LAST_LOOK = 3

# A check waits for what is missing, in multiples of what the recording waited.
MARGIN = 2

# Why a client is not there any more.
ABSENCES = {
    "eof": ": the server has closed its connection",
    "reset": ": the server has reset its connection",
    "refused": ": its connection was refused",
    "": "",
}


class Conversation:
    """A conversation with a server; each client's name is its to choose.

    Args:
        place: where the server listens.
        timeout: seconds that anything which must come may take.
        witness: tell what the witness got, too.
        host: by which address the clients come, if not by the place's own.
        cut: how every message is cut that does not say otherwise.
        quiet: seconds without a byte that end a step of which nothing is expected.
        recorded_quiet: the same of the recording that is expected; 0 if unknown.
    """

    def __init__(
        self,
        place: Place,
        profile: Profile,
        timeout: float = TIMEOUT,
        *,
        witness: bool = False,
        host: str = "",
        cut: str = "",
        quiet: float = LOOK,
        recorded_quiet: float = 0.0,
    ) -> None:
        self._place = place
        self._profile = profile
        self._witness = witness
        self._host = host
        self._cut = cut
        self._seconds = quiet
        self._recorded_seconds = recorded_quiet
        self._crowd = Crowd(timeout)
        self._names = Names(profile.volatile)
        self._fence: Fence | None = None
        self._quiet: Quiet | None = None
        self._nobody_can_come = False
        self._ends: dict[str, str] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Conversation:
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
        self, action: Action, expected: Heard | None = None, *, last: bool = False
    ) -> Heard:
        """Do it; return what everybody got of it.

        Args:
            expected: what should come, and so is waited for a while.
            last: the recording waited longer after this step.

        Raises:
            RunError: it cannot be done, or something that must come did not.
        """
        refused = self._do(action, expected, last)
        heard = {**self._heard(self._names), **refused}
        self._turn_the_page()
        return heard

    def rest(self, expected: Heard | None = None) -> Heard:
        """What comes although nobody does anything any more, where no fence proves
        that nothing does.

        Args:
            expected: what should come, and so is waited for a while.
        """
        if self._fence is None and self._is_somebody_there():
            if expected is None:
                self._silence().settle(self._seconds)
            else:
                self._wait_for(expected, self._profile.patience)
        heard = self._heard(self._names)
        self._turn_the_page()
        return heard

    def look_longer(self) -> Heard:
        """As rest, after the last step of a recording."""
        self._seconds *= LAST_LOOK
        return self.rest()

    def break_off(self) -> None:
        """Go without taking leave, from a server that has lost its way."""
        self._crowd.close()

    def gone(self) -> bool:
        """Whether the server has closed the witness: nothing can be said any more."""
        return self._fence is not None and WITNESS not in self._crowd

    def _begin(self) -> None:
        words = self._profile.fence
        if words is None:
            return
        witness = self._join(WITNESS)
        if witness is None:
            self._nobody_can_come = True
            return
        address = self._names.written(WITNESS)
        self._fence = Fence(self._crowd, words, address)
        self._fence.begin()
        witness.got.clear()
        self._fence.forget()

    def _do(self, action: Action, expected: Heard | None, last: bool) -> Heard:
        """Do it and wait until it is over; return who was refused."""
        if self.gone():
            raise RunError("the server has closed the witness, or is gone")
        name, do, data, how = action
        if do == "open":
            if name in self._crowd:
                raise RunError(f"{name} is to come, and is here already")
            if self._nobody_can_come or self._join(name) is None:
                self._ends[name] = "refused"
                return {name: Got(end="refused")}
            self._settle(action, expected, last)
            return {}
        client = self._client(name, do)
        if data and do == "reset":
            raise RunError(
                f"{name} is to say something and reset the connection: whether it is "
                "heard is chance; let it send first, and reset in the next step"
            )
        *first, end = cut(self._names.say(data), how or self._cut) or [b""]
        for piece in first:
            self._crowd.send(client, piece)
            self._settle_between(client, piece)
        self._crowd.send(client, end)
        self._leave_by(client, do)
        self._settle(Action(name, do, end), expected, last)
        return {}

    def _client(self, name: str, do: str) -> Client:
        if name not in self._crowd or name == WITNESS:
            why = ABSENCES[self._ends.get(name, "")]
            raise RunError(f"{name} is to {do}, and is not here{why}")
        client = self._crowd[name]
        if client.mute and do in ("send", "half-close"):
            raise RunError(f"{name} is to {do}, and has said that it says no more")
        return client

    def _leave_by(self, client: Client, do: str) -> None:
        if do == "drop":
            self._crowd.remove(client.name)
        elif do == "reset":
            self._crowd.reset(client.name)
        elif do == "half-close":
            self._crowd.shut(client)

    def _join(self, name: str) -> Client | None:
        """A new client, or None if it is refused."""
        try:
            sock = self._place.connect(self._host)
        except ConnectionRefusedError:
            return None
        self._ends.pop(name, None)
        client = self._crowd.add(name, sock)
        self._names.bind_client(name, *client.address)
        return client

    def _settle(self, action: Action, expected: Heard | None, last: bool) -> None:
        """Wait until it is over, and longer while something expected is missing."""
        if self._fence is not None:
            self._fence.settle(action)
            if expected is not None and self._misses(expected):
                self._wait_for(expected, AFTER_A_FENCE)
        elif expected is not None:
            waited = self._recorded_seconds * (LAST_LOOK if last else 1)
            self._wait_for(expected, max(self._profile.patience, MARGIN * waited))
        elif self._is_somebody_there():
            self._silence().settle(self._seconds)
        else:
            # The server, which sends nothing to nobody, has to notice it all the same.
            self._silence().settle(LOOK)

    def _wait_for(self, expected: Heard, patience: float) -> None:
        self._silence().wait_for(lambda: not self._misses(expected), patience)

    def _misses(self, expected: Heard) -> bool:
        """Whether what is expected has not come, and still may."""
        # What is half there must not bind a name to half of a value.
        heard = self._heard(self._names.copy())
        return heard != expected and all(
            name in expected and self._may_become(got, expected[name])
            for name, got in heard.items()
        )

    def _may_become(self, got: Got, expected: Got) -> bool:
        if got.end:
            return got == expected
        if not self._profile.volatile:
            return expected.data.startswith(got.data)
        same = first_difference(got.data, expected.data)
        # Half of a value may read differently once all of it has come.
        opens = expected.data.rfind(b"{", 0, same + 1)
        is_in_name = opens > expected.data.rfind(b"}", 0, same)
        return is_in_name or b"\n" not in got.data[same:]

    def _is_somebody_there(self) -> bool:
        return any(not client.end for client in self._crowd)

    def _settle_between(self, client: Client, piece: bytes) -> None:
        """Wait until a piece of a message has become a segment of its own."""
        if self._fence is not None:
            self._fence.settle(Action(client.name, "send", piece))
        elif self._profile.framing == "stream":
            self._silence().wait_for(lambda: True)
        else:
            # Nobody knows how much of what is expected answers this piece.
            self._silence().settle(max(self._seconds, self._recorded_seconds))

    def _silence(self) -> Quiet:
        if self._quiet is None:
            self._quiet = Quiet(self._crowd)
        return self._quiet

    def _heard(self, names: Names) -> Heard:
        """What everybody has got since the last step."""
        heard: Heard = {}
        for client in self._crowd:
            data = bytes(client.got)
            if self._fence is not None:
                data = self._fence.clean(data)
            told = client.name != WITNESS or self._witness or client.end
            if told and (data or client.end):
                heard[client.name] = Got(names.hear(data), client.end)
        return heard

    def _turn_the_page(self) -> None:
        for client in self._crowd:
            client.got.clear()
            if client.end:
                self._ends[client.name] = client.end
                self._crowd.remove(client.name)
        if self._fence is not None:
            self._fence.forget()

    def _take_leave(self) -> None:
        """Everybody; the witness came first and goes last."""
        for client in reversed(list(self._crowd)):
            if not client.mute:
                self._crowd.send(client, self._profile.leave)
            if self._crowd.until([client], lambda each: bool(each.end)):
                raise RunError(
                    f"{client.name} took leave with {self._profile.leave!r}, and the "
                    f"connection did not end in {self._crowd.timeout:g} s"
                )

    def _close(self) -> None:
        self._crowd.close()
        if self._quiet is not None:
            self._quiet.close()


def quiet_of(profile: Profile, quiet: float = 0.0) -> float:
    """Seconds of quiet that a recording waits for; 0 if a fence ends its steps.

    Args:
        quiet: as asked for; 0 for the profile's, or else QUIET.
    """
    return 0.0 if profile.fence else quiet or profile.quiet or QUIET


def play(
    transcript: Transcript,
    place: Place,
    profile: Profile,
    timeout: float = TIMEOUT,
    *,
    host: str | None = None,
    quiet: float = 0.0,
) -> Iterator[Step]:
    """The transcript's actions, each with what everybody gets of it now.

    Args:
        quiet: seconds, see quiet_of.

    Raises:
        RunError: see Conversation.step.
    """
    header = transcript.header
    with Conversation(
        place,
        profile,
        timeout,
        witness=header.witness,
        host=header.host if host is None else host,
        cut=header.cut,
        quiet=quiet_of(profile, quiet),
    ) as conversation:
        for at, last, (action, _) in numbered(transcript.steps):
            try:
                heard = conversation.step(action)
                if last:
                    heard = joined(heard, conversation.look_longer())
            except RunError as error:
                raise RunError(f"step {at}: {error}") from error
            yield Step(action, heard)


def numbered(steps: Iterable[Step]) -> Iterator[tuple[int, bool, Step]]:
    """The steps with their numbers, and whether each is the last."""
    at, before = 0, None
    for step in steps:
        if before is not None:
            yield at, False, before
        at, before = at + 1, step
    if before is not None:
        yield at, True, before


def joined(heard: Heard, late: Heard) -> Heard:
    """What has come of a step, and what came later."""
    result = dict(heard)
    for name, got in late.items():
        data, end = result.get(name, Got())
        result[name] = Got(data + got.data, got.end or end)
    return result
