"""Two servers in lockstep, the reference and the target: each step is played to both.

Rule 1: each step is played to the reference first; the target then gets time for the
same answer. Without a barrier, if the target sends more, the reference gets time for
that, too. So the result does not depend on which server is slower.
Rule 2: a conversation that cannot be played to the reference does not count. If only
the target cannot be played to, for example because it hangs, that is a difference.
Rule 3: after a difference, both servers are replaced by new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from legacy_chat.baseline.model.compare import Mismatch, compare
from legacy_chat.baseline.model.errors import ReferenceFailedError, ReplayError
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.model.transcript import (
    Action,
    Answers,
    Received,
    Step,
    TranscriptHeader,
    joined,
)
from legacy_chat.baseline.replay.player import Player, conversation
from legacy_chat.baseline.replay.quiescence import LAST_POLL
from legacy_chat.baseline.replay.server import LazyServer, Target

__all__ = ["Lockstep", "Played"]


class Played(NamedTuple):
    """A conversation that was played.

    Attributes:
        steps: the steps with the reference's answers, up to the first difference.
    """

    steps: list[Step]
    difference: Mismatch | None = None

    @property
    def actions(self) -> list[Action]:
        """Return the actions of the steps."""
        return [step.action for step in self.steps]


class Lockstep:
    """The two servers; one without an answer for *timeout* seconds counts as hung."""

    def __init__(
        self, reference: Target, target: Target, profile: Profile, timeout: float
    ) -> None:
        self.profile = profile
        self._timeout = timeout
        self._servers = [(LazyServer(timeout), each) for each in (reference, target)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.restart()

    def restart(self) -> None:
        """Terminate both servers; the next conversation starts new ones."""
        for server, _ in self._servers:
            server.close()

    def play(
        self,
        actions: Iterable[Action],
        answered: Callable[[Answers], object] = lambda answers: None,
    ) -> Played:
        """Play until the answers differ.

        *answered* gets the common answer of each step, before the next of *actions*.
        """
        # First: a conversation binds this thread, and processes that it starts, to one
        # processor.
        reference, target = (server.endpoint(each) for server, each in self._servers)
        steps: list[Step] = []
        found = None
        header, quiet = TranscriptHeader(witness=True), self.profile.quiet or LAST_POLL
        rest = self.profile, self._timeout, header, quiet
        try:
            with conversation(reference, *rest) as theirs:
                try:
                    with conversation(target, *rest) as ours:
                        found = _in_lockstep(theirs, ours, actions, answered, steps)
                except ReferenceFailedError:
                    raise
                except ReplayError as error:
                    if not steps:
                        raise
                    last = steps[-1]
                    found = Mismatch(len(steps), *last, {}, str(error))
                if found is not None:
                    theirs.abort()
        except ReplayError:
            self.restart()
            raise
        if found is not None or not self.profile.leave:
            self.restart()
        return Played(steps, found)


def _in_lockstep(
    theirs: Player,
    ours: Player,
    actions: Iterable[Action],
    answered: Callable[[Answers], object],
    steps: list[Step],
) -> Mismatch | None:
    """Play until the answers differ; add the reference's answers to *steps*."""
    for action in actions:
        with _reference():
            recorded = theirs.step(action)
        steps.append(Step(action, recorded))
        now = ours.step(action, recorded)
        if late := _missing(recorded, now):
            with _reference():
                recorded = joined(recorded, theirs.late_answers(late))
            steps[-1] = Step(action, recorded)
        if found := compare(len(steps), action, recorded, now):
            ours.abort()
            return found
        answered(recorded)
    return None


@contextmanager
def _reference() -> Iterator[None]:
    """Raise ReferenceFailedError for a ReplayError in this block."""
    try:
        yield
    except ReplayError as error:
        raise ReferenceFailedError(f"the reference: {error}") from error


def _missing(recorded: Answers, now: Answers) -> Answers:
    """Return the data that *recorded* lacks to equal *now*; {} if that cannot be."""
    late: Answers = {}
    for name in {**recorded, **now}:
        before, after = recorded.get(name, Received()), now.get(name, Received())
        if before == after:
            continue
        if before.end or not after.data.startswith(before.data):
            return {}
        late[name] = Received(after.data[len(before.data) :], after.end)
    return late
