"""Two servers in lockstep, the reference and the target: each step is played to both.

Rule 1: each step is played to the reference first; the target then gets time for the
same answer. Without a barrier, if the target sends more, the reference gets time for
that, too. So the result does not depend on which server is slower.
Rule 2: a conversation that cannot be played to the reference does not count. If only
the target cannot be played to, for example because it hangs, that is a difference.
Rule 3: after a difference, both servers are replaced by new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

from legacy_chat.baseline.model.compare import Mismatch, compare
from legacy_chat.baseline.model.errors import ReferenceFailedError, RunError
from legacy_chat.baseline.model.format import Action, Answers, Received, Step
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.replay.batch import Server, Target
from legacy_chat.baseline.replay.player import Player, joined
from legacy_chat.baseline.replay.quiescence import LOOK
from legacy_chat.baseline.replay.server import Endpoint

__all__ = ["Lockstep", "Played"]


class Played(NamedTuple):
    """A conversation that was played.

    Attributes:
        steps: the steps with the reference's answers, up to the first difference.
    """

    steps: list[Step]
    difference: Mismatch | None = None


class Lockstep:
    """The two servers; both are started on demand.

    Args:
        timeout: seconds without an answer after which a server counts as hung.
    """

    def __init__(
        self, reference: Target, target: Target, profile: Profile, timeout: float
    ) -> None:
        self.profile = profile
        self._targets = reference, target
        self._servers = Server(timeout), Server(timeout)
        self._timeout = timeout

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.renew()

    def renew(self) -> None:
        """Terminate both servers; the next conversation starts new ones."""
        for server in self._servers:
            server.close()

    def play(
        self,
        actions: Iterable[Action],
        told: Callable[[Answers], object] = lambda answers: None,
    ) -> Played:
        """Play until the answers differ.

        Args:
            told: called after each step with the common answer, before the next action
                is taken from *actions*.

        Raises:
            ReferenceFailedError: the reference cannot be played to.
            RunError: a server cannot be started, or the target fails before a step.
        """
        pairs = zip(self._servers, self._targets, strict=True)
        # First: a conversation binds this thread, and processes that it starts, to one
        # processor.
        endpoints = [server.endpoint(target) for server, target in pairs]
        try:
            played = self._play(endpoints, actions, told)
        except RunError:
            self.renew()
            raise
        if played.difference is not None or not self.profile.leave:
            self.renew()
        return played

    def _play(
        self,
        endpoints: Sequence[Endpoint],
        actions: Iterable[Action],
        told: Callable[[Answers], object],
    ) -> Played:
        steps: list[Step] = []
        found = None
        with self._conversation(endpoints[0]) as theirs:
            try:
                with self._conversation(endpoints[1]) as ours:
                    found = _in_lockstep(theirs, ours, actions, told, steps)
            except ReferenceFailedError:
                raise
            except RunError as error:
                if not steps:
                    raise
                action, recorded = steps[-1]
                found = Mismatch(len(steps), action, recorded, {}, str(error))
            if found is not None:
                theirs.break_off()
        return Played(steps, found)

    def _conversation(self, endpoint: Endpoint) -> Player:
        return Player(
            endpoint,
            self.profile,
            self._timeout,
            witness=True,
            quiet=self.profile.quiet or LOOK,
        )


def _in_lockstep(
    theirs: Player,
    ours: Player,
    actions: Iterable[Action],
    told: Callable[[Answers], object],
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
    """Raise ReferenceFailedError for a RunError in this block."""
    try:
        yield
    except RunError as error:
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
