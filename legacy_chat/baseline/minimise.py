"""The shortest conversation that two servers still answer differently.

Everything is tried that makes it shorter: without a client, without some of its steps,
without some of what is said in a step; again and again, until nothing helps any more.

Rule 1: whatever is tried is played to both servers anew; nothing is guessed.
Rule 2: what the profile says never to say is not said, unless the conversation that was
given says it: or the search would end at a difference that everybody knows.
Rule 3: characters stay whole.

Source: the idea of taking away halves, quarters and so on is Zeller and Hildebrandt's
(Simplifying and Isolating Failure-Inducing Input, 2002).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from legacy_chat.baseline.errors import ReferenceFailedError
from legacy_chat.baseline.format import Action
from legacy_chat.baseline.pair import Pair, Played

__all__ = ["minimise", "says_never"]


def minimise(
    actions: Sequence[Action],
    pair: Pair,
    stepped: Callable[[], object] = lambda: None,
) -> Played | None:
    """The shortest that still differs; None if *actions* do not.

    Args:
        stepped: is called after each conversation.

    Raises:
        ReferenceFailedError: the reference cannot be led through *actions*.
    """
    found = pair.play(actions)
    if found.difference is None:
        return None
    never = pair.profile.fuzz.never
    if says_never(actions, never):
        never = ()
    best = found
    while True:
        shorter = _shorter(best, pair, never, stepped)
        if shorter is None:
            return best
        best = shorter


def says_never(actions: Sequence[Action], never: Sequence[bytes]) -> bool:
    """Whether a client says, all in all, what matches one of the patterns."""
    said: dict[str, bytes] = {}
    for action in actions:
        before = b"" if action.do == "open" else said.get(action.client, b"")
        said[action.client] = text = before + action.data
        if any(re.search(pattern, text) for pattern in never):
            return True
    return False


def _shorter(
    best: Played, pair: Pair, never: Sequence[bytes], stepped: Callable[[], object]
) -> Played | None:
    """The first that is shorter and still differs."""
    actions = [step.action for step in best.steps]
    for candidate in _candidates(actions):
        if not _is_possible(candidate) or says_never(candidate, never):
            continue
        try:
            played = pair.play(candidate)
        except ReferenceFailedError:
            pair.renew()
            continue
        finally:
            stepped()
        if played.difference is not None:
            return played
    return None


def _candidates(actions: list[Action]) -> Iterator[list[Action]]:
    """Everything that is a little shorter, what saves most first."""
    for client in dict.fromkeys(action.client for action in actions):
        yield [action for action in actions if action.client != client]
    for start, stop in _pieces(len(actions)):
        yield actions[:start] + actions[stop:]
    for index, action in enumerate(actions):
        for data in _shorter_data(action.data):
            yield [*actions[:index], action._replace(data=data), *actions[index + 1 :]]
        if action.cut:
            yield [*actions[:index], action._replace(cut=""), *actions[index + 1 :]]


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """Halves, quarters, … single ones: what may be taken away, from the end on."""
    length = size
    while length > 1:
        length = (length + 1) // 2
        for stop in range(size, 0, -length):
            yield max(0, stop - length), stop


def _shorter_data(data: bytes) -> Iterator[bytes]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        for start, stop in _pieces(len(data)):
            yield data[:start] + data[stop:]
        return
    for start, stop in _pieces(len(text)):
        yield (text[:start] + text[stop:]).encode()


def _is_possible(actions: list[Action]) -> bool:
    """Nobody acts who has not come, or has left; somebody says something."""
    here: set[str] = set()
    for client, do, data, _ in actions:
        if (do == "open") == (client in here) or (do == "send" and not data):
            return False
        here.add(client)
        if do in ("drop", "reset"):
            here.discard(client)
    return bool(actions)
