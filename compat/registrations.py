"""The registrations of one map's channels, with the interest of each.

Rule 1: the map belongs to the caller: any code may change it at any time. A resync
compares the whole map with the registrations.
Rule 2: the interest of a channel that reports changes (compat.async_chat) is cached.
Any other object is polled in every turn, because its interest may depend on anything.
Rule 3: assignments to a channel or a class take effect at the channel's next event.
Rule 4: between two calls of loop(), and between two turns for a channel that is polled
in every turn, nothing here holds the map, a channel or a socket.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from threading import get_ident
from typing import Any

from compat import instrument
from compat._types import Map
from compat.async_chat import (
    async_chat,
    attach,
    detach,
    has_cached_interest,
    keeps_answers,
    wants_to_write,
)
from compat.descriptors import Descriptors, descriptor_of
from compat.kernel_interest import KernelInterest
from compat.pollers import IN, OUT, PRI, READ_ONLY
from compat.registration import NO_ATTRIBUTES, Registration, overridden
from compat.settled import FEW_CHANNELS, SettledChannels, unsettled
from compat.wakeup import Waker

__all__ = ["Registrations"]

# Seconds between two resyncs, which find unreported changes: a channel that replaced
# another one in the map, or a socket that was closed without its channel. A file that
# dup2 put under a registered number is found by the tenth resync.
RESYNC_INTERVAL = 0.1

# The share of time that resyncs may use. One takes a microsecond per channel, so the
# interval grows from 1,000 channels on.
RESYNC_SHARE = 0.01


# When does a turn have to poll a channel's interest? asyncore's answer is: always. It
# costs two calls per channel and turn, however few channels are active. Edge-triggered
# registration for both events, as in other loops, would avoid the question, but then a
# handler that reads only once, as asyncore's handlers do, would lose events.
#
# So interest is cached, and a change must reach the loop. There are four ways:
# - The channel reports it (interest_changed); every method of async_chat does.
# - Its handlers have just run: the loop compares the channel after each dispatch.
# - The map has grown: its newest keys are the new channels.
# - Otherwise a resync finds it. That costs as much as one turn of asyncore, so it has
#   at most RESYNC_SHARE of the time. It comes on entry, and before a long wait.
#
# A loop with a count runs a turn or two, and then any code of the program may run. It
# keeps the registrations for the next call, but caches no interest: each turn compares
# all keys of the map, and polls each channel (compat.settled lists the exceptions).


class Registrations:
    """The registrations of a map's channels, in one loop and thread.

    Args:
        waker: ends the wait; None for a turn of a loop that nothing wakes.
        caches_interest: False to poll every channel in every turn.
        as_poll2: poll interest as ``asyncore.poll2`` does.
    """

    def __init__(
        self,
        waker: Waker | None,
        descriptors: Descriptors,
        caches_interest: bool,
        as_poll2: bool,
    ) -> None:
        self.map: Map = {}
        self.waker = waker
        self._caches_interest = caches_interest
        self._as_poll2 = as_poll2
        self.thread = get_ident()
        # In the order of the map, except for channels with cached interest.
        self.by_key: dict[Any, Registration] = {}
        # During a resync: the old registrations that the map has not confirmed yet.
        self._before: dict[Any, Registration] = {}
        self._always_poll: list[Registration] = []
        # The channels that this turn has polled, by key, and the registrations that
        # hold one of them.
        self._polled: dict[Any, Any] = {}
        self._holding: list[Registration] = []
        # The classes of the map that inherit readable and writable of async_chat.
        self._kinds: set[type] = set()
        self._settled = SettledChannels()
        # The kernel's side.
        self.kernel = KernelInterest(descriptors)
        # The channels whose key is an object with a fileno(), not a number.
        self._by_object: list[Registration] = []
        # The channels that have reported a change since the last update.
        self.pending_updates: deque[Registration] = deque()
        # The map position of the next new channel.
        self._next_position = 0
        # The error of select() for the first key that is not a descriptor.
        self._key_error: Exception | None = None
        # True if the next turn has to resync.
        self.is_stale = True
        # The time of the last update, and of the next resync.
        self.now = self.resync_at = 0.0

    def detach(self, registration: Registration) -> None:
        """Unregister a channel that leaves, before its descriptor is closed.

        Afterwards the descriptor would no longer identify the kernel's registration.
        """
        if get_ident() == self.thread:
            if self.by_key.get(registration.key) is registration:
                del self.by_key[registration.key]
            self._unregister(registration)

    def enter(self, map: Map) -> None:
        """Begin a call of ``loop()``; the map may be another one than before."""
        self.map = map
        waker = self.waker
        if waker is not None and not self.kernel.descriptors.is_for(
            waker.fileno(), waker
        ):
            self.is_stale = True

    def leave(self) -> None:
        """End the call: hold neither the map nor a channel."""
        if self._caches_interest or self._by_object:
            self._release()
        else:
            self.let_go()
        self.map = {}

    def hold(self, ready: Iterable[int]) -> None:
        """Hold the channels of these descriptors until the end of the turn."""
        found = [each for fd in ready for each in self.kernel.by_fd.get(fd, ())]
        # poll2 dispatches to the channel under the number.
        found += [self.by_key[fd] for fd in ready if fd in self.by_key]
        self._settled.forget()
        for each in (*found, *self.kernel.closed):
            if each.always_poll:
                self._holding.append(each)
                each.hold(self._polled.get(each.key))

    def let_go(self) -> None:
        """End the turn: hold only channels with cached interest."""
        self._polled.clear()
        for each in self._holding:
            each.let_go()
        self._holding.clear()

    def _release(self) -> None:
        """Let no channel report here, or be held from here, any more."""
        for registration in (*self.by_key.values(), *self._before.values()):
            _detach(registration)
        # Without a cycle of references, the channels are freed at once.
        self.let_go()
        self.kernel.clear()
        lists = self._always_poll, self._by_object, self.pending_updates
        for held in (self.by_key, self._before, *lists):
            held.clear()
        self.is_stale = True

    # Synchronising with the map.

    def update(self) -> bool:
        """Update registrations from the map; return whether this was a full resync."""
        self.now = time.monotonic()
        added: list[tuple[Any, Any]] | None = []
        if len(self.map) != len(self.by_key):
            added = self._added()
        if (
            added is None
            or self.now >= self.resync_at
            or self._must_rebuild()
            or (channels := self._channels_to_poll()) is None
        ):
            self.resync()
            return True
        if len(self.by_key) <= FEW_CHANNELS:
            self._find_changes()
        self._polled = channels
        self._poll_always(list(channels.values()))
        while self.pending_updates:
            self._apply_report(self.pending_updates.popleft())
        for key, channel in added:
            if self.map.get(key) is channel and key not in self.by_key:
                self._add(key, channel, self._next_position)
                self._next_position += 1
        if self._key_error or self._by_object:
            self._check_keys()
        return False

    def _check_keys(self) -> None:
        """Raise the error of select() for a key that is not a descriptor.

        As in asyncore, it comes only after all channels have been polled.
        """
        error, self._key_error = self._key_error, None
        if error:
            raise error
        for each in self._by_object:
            if each.interest and not (self._as_poll2 and each.always_poll):
                # Another channel's readable() may have closed it meanwhile. select()
                # calls fileno() now; poll2 has called it when it polled the channel.
                descriptor_of(each.key)

    def resync(self) -> None:
        """Find the changes that no channel has reported."""
        began = time.monotonic()
        channels = self._snapshot()
        if self._must_rebuild() or not self._has_same_channels(channels):
            self._rebuild(channels)
        else:
            registrations, found = list(self.by_key.values()), list(channels.values())
            self._polled = channels
            self._poll(
                (
                    (registrations[position], found[position])
                    for position in unsettled(registrations, found, self._kinds, True)
                ),
                anew=True,
            )
        self.kernel.sync(self.waker)
        now = time.monotonic()
        self.resync_at = now + max(RESYNC_INTERVAL, (now - began) / RESYNC_SHARE)
        self._check_keys()

    def _rebuild(self, channels: dict[Any, Any]) -> None:
        """Compare the map with the registrations, and poll all channels."""
        self.is_stale = False
        self.pending_updates.clear()
        self._settled.forget()
        before = self._before = self.by_key
        self.by_key, self._always_poll, self._polled = {}, [], {}
        self._kinds = {
            kind
            for kind in set(map(type, channels.values()))
            if issubclass(kind, async_chat) and keeps_answers(kind)
        }
        for position, (key, channel) in enumerate(channels.items()):
            known = before.pop(key, None)
            if not (known is None or known.always_poll or known.channel is channel):
                self._unregister(known)
                known = None
            self._add(key, channel, position, known)
        self._next_position = len(self.by_key)
        for registration in before.values():
            self._unregister(registration)
        self._before = {}

    def _has_same_channels(self, channels: dict[Any, Any]) -> bool:
        known = zip(self.by_key.values(), channels.values(), strict=False)
        return list(channels) == list(self.by_key) and all(
            each.always_poll or each.channel is channel for each, channel in known
        )

    def _must_rebuild(self) -> bool:
        return (
            self.is_stale
            # A fork has dropped the poller.
            or self.kernel.descriptors.poller is None
            or not all(map(keeps_answers, self._kinds))
        )

    def _added(self) -> list[tuple[Any, Any]] | None:
        # The channels added last; None if they do not explain the map's size. Channels
        # added while polling are polled in the next turn.
        count = len(self.map) - len(self.by_key)
        if count < 0 or type(self.map) is not dict:
            return None
        try:
            newest = list(islice(reversed(self.map.items()), count))
        except RuntimeError:
            # On free-threaded Python, another thread has changed the map meanwhile.
            return None
        if any(key in self.by_key for key, _ in newest):
            return None
        return newest[::-1]

    def _snapshot(self) -> dict[Any, Any]:
        return self.map.copy() if type(self.map) is dict else dict(self.map.items())

    def _channels_to_poll(self) -> dict[Any, Any] | None:
        """Return the channels that every turn polls; None if the map has others."""
        polled = self._always_poll
        if len(polled) == len(self.by_key):
            # No interest is cached. Then this compares all keys and their order.
            channels = self._snapshot()
            if len(channels) > len(polled):
                # update() adds the new ones, which come last.
                channels = dict(islice(channels.items(), len(polled)))
            return channels if list(channels) == list(self.by_key) else None
        channels = {
            each.key: channel
            for each in polled
            if each.has_joined(channel := self.map.get(each.key))
        }
        return channels if len(channels) == len(polled) else None

    def _find_changes(self) -> None:
        # Report for code that changes a channel's attributes from outside.
        cached = [each for each in self.by_key.values() if not each.always_poll]
        for each in cached:
            if wants_to_write(each.channel) is not bool(each.interest & OUT):
                each.interest_changed()
        for each in overridden(cached):
            each.interest_changed()

    def _apply_report(self, registration: Registration) -> None:
        key = registration.key
        registration.is_pending = False
        # Otherwise the channel has left, and may have joined again.
        if self.by_key.get(key) is registration:
            if self.map.get(key) is registration.channel:
                self._poll([(registration, registration.channel)], anew=True)
            else:
                del self.by_key[key]
                self._unregister(registration)

    def _add(
        self, key: Any, channel: Any, position: int, known: Registration | None = None
    ) -> None:
        registration = known or Registration(self, key)
        if known is None and not isinstance(key, int):
            self._by_object.append(registration)
        if (
            self._caches_interest
            and registration.always_poll
            and attach(channel, registration)
        ):
            registration.always_poll, registration.channel = False, channel
            registration.kind = type(channel)
            self._kinds.add(registration.kind)
            if registration.interest:
                self.kernel.apply(registration.fd)
        registration.position, registration.is_pending = position, False
        self.by_key[key] = registration
        if registration.always_poll:
            registration.remember(channel)
            self._always_poll.append(registration)
            self._polled[key] = channel
        self._poll([(registration, channel)], anew=True)

    def _unregister(self, registration: Registration) -> None:
        self.kernel.set(registration, registration.fd, 0, None)
        _detach(registration)
        if registration in self._by_object:
            self._by_object.remove(registration)

    # Updating interest.

    def update_overridden(self, registrations: Iterable[Registration]) -> bool:
        """Poll channels with a replaced ``readable`` or ``writable``; return if any."""
        replaced = overridden(registrations)
        if replaced:
            self._poll([(each, each.channel) for each in replaced], anew=True)
        return bool(replaced)

    def _poll_always(self, channels: list[Any]) -> None:
        """Poll the channels without cached interest, which are polled in every turn."""
        pairs: Iterable[tuple[Registration, Any]]
        # The number behind an object may change at any time.
        anew = bool(self._by_object) or instrument.current is not None
        if anew or self._caches_interest or not self._kinds:
            pairs = zip(self._always_poll, channels, strict=True)
        else:
            pairs = self._settled.others(self._always_poll, channels, self._kinds)
        self._poll(pairs, anew=anew)

    def _poll(
        self, pairs: Iterable[tuple[Registration, Any]], *, anew: bool = False
    ) -> None:
        """Poll the channels, and update the registrations that differ.

        Args:
            anew: compare also with the kernel's side, where other code may have changed
                the descriptor.
        """
        observer = instrument.current
        urgent = 0 if self._as_poll2 else PRI
        for each, channel in pairs:
            interest = READ_ONLY if channel.readable() else 0
            if channel.writable():
                # A listening socket is never writable; select() would report it.
                interest |= urgent if channel.accepting else OUT | urgent
            if interest == each.known_interest and not anew:
                try:
                    if channel.socket is each.socket_ref():
                        continue
                except AttributeError:
                    # Another object, without a socket, is under this key now.
                    each.known_interest = -1
            self._update_interest(each, channel, interest)
            if observer is not None:
                # From the registration: without a descriptor, it has no interest.
                reads, writes = bool(each.interest & IN), bool(each.interest & OUT)
                observer.channel_polled(each.key, channel, reads, writes)

    def _update_interest(
        self, registration: Registration, channel: Any, interest: int
    ) -> None:
        if not registration.always_poll:
            registration.attributes = vars(channel)
            if registration.kind not in self._kinds or overridden((registration,)):
                self._check_caching(registration, channel)
        # Not an attribute of the class; see Registration.is_current.
        sock = getattr(channel, "__dict__", NO_ATTRIBUTES).get("socket")
        try:
            fd = descriptor_of(registration.key) if interest else registration.fd
        except (TypeError, ValueError) as error:
            if self._as_poll2:
                raise
            self._key_error = self._key_error or error
            return
        is_registered = not interest or (
            registration.fd == fd and self.kernel.descriptors.is_for(fd, sock)
        )
        if registration.known_interest != interest or not is_registered:
            self.kernel.set(registration, fd, interest, sock)
        if not registration.always_poll:
            registration.socket = sock

    def _check_caching(self, registration: Registration, channel: Any) -> None:
        # If the channel no longer reports, every turn polls it from now on.
        if has_cached_interest(channel):
            registration.kind = type(channel)
            self._kinds.add(registration.kind)
            return
        _detach(registration)
        registration.always_poll = True
        registration.remember(channel)
        self._polled[registration.key] = channel
        self._holding.append(registration)
        self._always_poll.append(registration)
        self._always_poll.sort(key=lambda each: each.position)
        self.kernel.read_only.pop(registration.fd, None)


def _detach(registration: Registration) -> None:
    if not registration.always_poll:
        detach(registration.channel, registration)
