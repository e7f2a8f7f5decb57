"""Two servers to which the same is played, step by step: the reference and another.

Rule 1: the reference is asked first, and what it answers is what is waited for.
Rule 2: a conversation that the reference cannot be led through is none. One that only
the other cannot be led through, because it hangs, is a difference.
Rule 3: after a difference both servers are new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

from legacy_chat.baseline.compare import Difference, compare
from legacy_chat.baseline.errors import ReferenceFailedError, RunError
from legacy_chat.baseline.format import Action, Heard, Step
from legacy_chat.baseline.places import Place
from legacy_chat.baseline.player import Conversation
from legacy_chat.baseline.profile import Profile
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
        return Conversation(place, self.profile, self._timeout, witness=True)


def _in_lockstep(
    theirs: Conversation,
    ours: Conversation,
    actions: Iterable[Action],
    told: Callable[[Heard], object],
    steps: list[Step],
) -> Difference | None:
    """Play until the answers differ; *steps* gets what the reference answers."""
    for action in actions:
        steps.append(_ask(theirs, action))
        recorded = steps[-1].heard
        found = compare(len(steps), action, recorded, ours.step(action, recorded))
        if found is not None:
            ours.break_off()
            return found
        told(recorded)
    return None


def _ask(reference: Conversation, action: Action) -> Step:
    try:
        return Step(action, reference.step(action))
    except RunError as error:
        raise ReferenceFailedError(f"the reference: {error}") from error
