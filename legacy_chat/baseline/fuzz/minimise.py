"""The shortest conversation that two servers still answer differently.

The search removes a client, some steps, or a part of a message. It repeats this until
no shorter conversation differs.

Rule 1: each candidate is played to both servers; no result is assumed.
Rule 2: no candidate matches a "never" pattern of the profile, unless the given
conversation does: otherwise the search would end at a known difference.
Rule 3: characters stay whole.

Source: the removal of halves, quarters and so on is from Zeller and Hildebrandt
(Simplifying and Isolating Failure-Inducing Input, 2002).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from legacy_chat.baseline.model.errors import ReferenceFailedError
from legacy_chat.baseline.model.transcript import Action
from legacy_chat.baseline.replay.lockstep import Lockstep, Played

__all__ = ["matches_never", "minimise"]


def minimise(
    actions: Sequence[Action],
    pair: Lockstep,
    stepped: Callable[[], object] = lambda: None,
) -> Played | None:
    """Return the shortest conversation that differs; None if *actions* do not differ.

    Args:
        stepped: called after each conversation.

    Raises:
        ReferenceFailedError: *actions* cannot be played to the reference.
    """
    found = pair.play(actions)
    if found.difference is None:
        return None
    never = pair.profile.fuzz.never
    if matches_never(actions, never):
        never = ()
    best: Played | None = found
    while best is not None:
        found = best
        best = _shorter(found, pair, never, stepped)
    return found


def matches_never(actions: Sequence[Action], never: Sequence[bytes]) -> bool:
    """Return whether all the data of one client's connection matches a pattern."""
    sent: dict[str, bytes] = {}
    for action in actions:
        before = b"" if action.do == "open" else sent.get(action.client, b"")
        sent[action.client] = data = before + action.data
        if any(re.search(pattern, data) for pattern in never):
            return True
    return False


def _shorter(
    best: Played, pair: Lockstep, never: Sequence[bytes], stepped: Callable[[], object]
) -> Played | None:
    """Return the first shorter conversation that differs; None if there is none."""
    for candidate in _candidates(best.actions):
        if not _is_possible(candidate) or matches_never(candidate, never):
            continue
        try:
            played = pair.play(candidate)
        except ReferenceFailedError:
            pair.restart()
            continue
        finally:
            stepped()
        if played.difference is not None:
            return played
    return None


def _candidates(actions: list[Action]) -> Iterator[list[Action]]:
    """Yield shorter conversations, those without a client first."""
    for client in dict.fromkeys(action.client for action in actions):
        yield [action for action in actions if action.client != client]
    for start, stop in _pieces(len(actions)):
        yield actions[:start] + actions[stop:]
    for index, action in enumerate(actions):
        shorter = [replace(action, data=each) for each in _shorter_data(action.data)]
        if action.cut:
            shorter.append(replace(action, cut=""))
        for each in shorter:
            yield [*actions[:index], each, *actions[index + 1 :]]


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges to remove: halves, quarters, … single items, from the end."""
    length = size
    while length > 1:
        length = (length + 1) // 2
        for stop in range(size, 0, -length):
            yield max(0, stop - length), stop


def _shorter_data(data: bytes) -> Iterator[bytes]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield from (data[:start] + data[stop:] for start, stop in _pieces(len(data)))
    else:
        for start, stop in _pieces(len(text)):
            yield (text[:start] + text[stop:]).encode()


def _is_possible(actions: list[Action]) -> bool:
    """Return whether clients act only while connected, and each send has data."""
    connected: set[str] = set()
    for action in actions:
        client, do = action.client, action.do
        if (do == "open") == (client in connected) or (
            do == "send" and not action.data
        ):
            return False
        connected.add(client)
        if do in ("drop", "reset"):
            connected.discard(client)
    return bool(actions)
