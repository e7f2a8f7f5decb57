"""Two servers to which the same is played, step by step: the reference and another.

Rule 1: the reference is asked first, and what it answers is what is waited for. Where
no fence proves that it has answered, and the other says more, the reference is waited
for as well: which of the two is slow makes no difference.
Rule 2: a conversation that the reference cannot be led through is none. One that only
the other cannot be led through, because it hangs, is a difference.
Rule 3: after a difference both servers are new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

from legacy_chat.baseline.compare import Difference, compare
from legacy_chat.baseline.errors import ReferenceFailedError, RunError
from legacy_chat.baseline.format import Action, Got, Heard, Step
from legacy_chat.baseline.places import Place
from legacy_chat.baseline.player import Conversation, joined
from legacy_chat.baseline.profile import Profile
from legacy_chat.baseline.quiet import LOOK
from legacy_chat.baseline.runs import Server, Target

__all__ = ["Pair", "Played"]


class Played(NamedTuple):
    """What was played.

    Attributes:
        steps: with the reference's answers, up to the first difference.
    """

    steps: list[Step]
    difference: Difference | None = None


class Pair:
    """The two servers; both are started when they are needed.

    Args:
        timeout: seconds after which a server hangs.
    """

    def __init__(
        self, reference: Target, target: Target, profile: Profile, timeout: float
    ) -> None:
        self.profile = profile
        self._targets = reference, target
        self._servers = Server(timeout), Server(timeout)
        self._timeout = timeout

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.renew()

    def renew(self) -> None:
        """End both; the next conversation is with new ones."""
        for server in self._servers:
            server.close()

    def play(
        self,
        actions: Iterable[Action],
        told: Callable[[Heard], object] = lambda heard: None,
    ) -> Played:
        """Play until the answers differ.

        Args:
            told: is called after each step with what was the same; the next action is
                asked for after that.

        Raises:
            ReferenceFailedError: the reference cannot be played to.
            RunError: the other cannot even be spoken to.
        """
        pairs = zip(self._servers, self._targets, strict=True)
        # Before a conversation binds this thread to a processor, and whom it starts.
        places = [server.place(target) for server, target in pairs]
        try:
            played = self._play(places, actions, told)
        except RunError:
            self.renew()
            raise
        if played.difference is not None or not self.profile.leave:
            self.renew()
        return played

    def _play(
        self,
        places: Sequence[Place],
        actions: Iterable[Action],
        told: Callable[[Heard], object],
    ) -> Played:
        steps: list[Step] = []
        found = None
        with self._conversation(places[0]) as theirs:
            try:
                with self._conversation(places[1]) as ours:
                    found = _in_lockstep(theirs, ours, actions, told, steps)
            except ReferenceFailedError:
                raise
            except RunError as error:
                if not steps:
                    raise
                action, recorded = steps[-1]
                found = Difference(len(steps), action, recorded, {}, str(error))
            if found is not None:
                theirs.break_off()
        return Played(steps, found)

    def _conversation(self, place: Place) -> Conversation:
        return Conversation(
            place,
            self.profile,
            self._timeout,
            witness=True,
            quiet=self.profile.quiet or LOOK,
        )


def _in_lockstep(
    theirs: Conversation,
    ours: Conversation,
    actions: Iterable[Action],
    told: Callable[[Heard], object],
    steps: list[Step],
) -> Difference | None:
    """Play until the answers differ; *steps* gets what the reference answers."""
    for action in actions:
        with _reference():
            recorded = theirs.step(action)
        steps.append(Step(action, recorded))
        now = ours.step(action, recorded)
        if late := _missing(recorded, now):
            with _reference():
                recorded = joined(recorded, theirs.rest(late))
            steps[-1] = Step(action, recorded)
        found = compare(len(steps), action, recorded, now)
        if found is not None:
            ours.break_off()
            return found
        told(recorded)
    return None


@contextmanager
def _reference() -> Iterator[None]:
    """What fails in this block is the reference's failure."""
    try:
        yield
    except RunError as error:
        raise ReferenceFailedError(f"the reference: {error}") from error


def _missing(recorded: Heard, now: Heard) -> Heard:
    """What *recorded* lacks to be *now*; nothing if more would not make it so."""
    late: Heard = {}
    for name in {**recorded, **now}:
        before, after = recorded.get(name, Got()), now.get(name, Got())
        if before == after:
            continue
        if before.end or not after.data.startswith(before.data):
            return {}
        late[name] = Got(after.data[len(before.data) :], after.end)
    return late
