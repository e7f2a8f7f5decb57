"""The channels of a frame loop that a turn need not poll.

Between two calls of ``loop(count=1)`` any code may run, so nothing about a channel can
be taken for granted. But a ``compat.async_chat`` reports each change of its interest.
One that only wanted to read, as nearly all do, stays *settled* until then.

Rule 1: a channel is settled only if polling it would have no effect: its class inherits
``readable`` and ``writable``, and the kernel knows its socket and its interest.
Rule 2: if any channel of the process has reported a change, or a handler has run, all
channels are looked at again.
Rule 3: nothing here keeps a channel alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import call, is_
from typing import Any, Protocol, TypeAlias
from weakref import ref

from compat._runtime import this_process
from compat.pollers import READ_ONLY

__all__ = ["FEW_CHANNELS", "SettledChannels", "unsettled"]

# Up to this many channels are looked at in every turn; that costs less than polling.
FEW_CHANNELS = 8


class Polled(Protocol):
    """The part of a registration that is used here."""

    fd: int
    known_interest: int
    socket_ref: Callable[[], Any]


Pairs: TypeAlias = Iterator[tuple[Any, Any]]


class SettledChannels:
    """The channels of a map that were settled in the last turn, and the others."""

    def __init__(self) -> None:
        # this_process.reports before the last look at all channels; -1 to look again.
        self._reports = -1
        # The channels at that time, and the pairs' positions that were not settled.
        self._channels: list[ref[Any]] = []
        self._others: list[int] = []

    def forget(self) -> None:
        """Look at all channels in the next turn: a handler may have changed any."""
        self._reports = -1

    def others(
        self,
        registrations: Sequence[Polled],
        channels: Sequence[Any],
        kinds: set[type],
    ) -> Pairs:
        """Yield the registrations and channels that this turn must poll, in map order.

        Args:
            kinds: the classes that pass ``keeps_answers``.
        """
        reports, are_known = this_process.reports, self._are_known(channels)
        if are_known and reports == self._reports and len(channels) > FEW_CHANNELS:
            for position in self._others:
                yield registrations[position], channels[position]
            return
        self.forget()
        others = []
        for position in unsettled(registrations, channels, kinds):
            others.append(position)
            yield registrations[position], channels[position]
        if not are_known:
            self._channels = _references(channels)
        self._reports, self._others = reports, others

    def _are_known(self, channels: Sequence[Any]) -> bool:
        known = self._channels
        return len(known) == len(channels) and all(map(is_, map(call, known), channels))


def unsettled(
    registrations: Iterable[Polled],
    channels: Iterable[Any],
    kinds: set[type],
    thorough: bool = False,
) -> Iterator[int]:
    """Yield the positions of the channels that are not settled.

    Args:
        thorough: find also sockets that were closed without their channel.
    """
    # One loop without calls, because it may run in every turn.
    for position, (each, channel) in enumerate(
        zip(registrations, channels, strict=True)
    ):
        if (
            type(channel) in kinds
            and each.known_interest == READ_ONLY
            and channel.connected
        ):
            own = channel.__dict__
            outbox, sock = own.get("_compat_outbox"), each.socket_ref()
            if (
                (outbox is None or not outbox.queue)
                and own.get("socket") is sock
                and "_compat_paused" not in own
                and "readable" not in own
                and "writable" not in own
                and not (thorough and (sock is None or sock.fileno() != each.fd))
            ):
                continue
        yield position


def _references(channels: Sequence[Any]) -> list[ref[Any]]:
    try:
        return list(map(ref, channels))
    except TypeError:
        # An object without weak references: look at all channels in each turn.
        return []
