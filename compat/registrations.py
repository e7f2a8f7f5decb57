"""The registrations of one map's channels, with the interest of each.

Rule 1: the map belongs to the caller: any code may change it at any time. A resync
compares the whole map with the registrations.
Rule 2: the interest of a channel that reports changes (compat.async_chat) is cached.
Any other object is polled in every turn, because its interest may depend on anything.
Rule 3: assignments to a channel or a class take effect at the channel's next event.
Rule 4: a Registrations object lives no longer than the loop that it was made for; then
nothing holds the map and its channels. The kernel's side (compat.descriptors) stays.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from functools import reduce
from itertools import islice
from operator import or_
from threading import get_ident
from typing import Any

from compat import instrument
from compat._types import Map
from compat.async_chat import (
    attach,
    detach,
    has_cached_interest,
    keeps_answers,
    wants_to_write,
)
from compat.descriptors import Descriptors, descriptor_of
from compat.pollers import IN, OUT, PRI
from compat.wakeup import Waker

__all__ = ["Registration", "Registrations", "overridden"]

# The interest of a channel that has nothing to write.
READ_ONLY = IN | PRI

# Seconds between two resyncs, which find unreported changes: a channel that replaced
# another one in the map, or a socket that was closed without its channel.
RESYNC_INTERVAL = 0.1

# The share of time that resyncs may use, for any number of channels.
RESYNC_SHARE = 0.02

# Up to this many channels are compared in every turn; that costs less than polling.
FEW_CHANNELS = 8

_NOTHING: dict[str, Any] = {}


class Registration:
    """A channel in the map, its cached interest, and its descriptor in the kernel."""

    __slots__ = (
        "_owner",
        "always_poll",
        "attributes",
        "channel",
        "fd",
        "interest",
        "is_pending",
        "key",
        "kind",
        "position",
        "socket",
    )

    def __init__(self, owner: Registrations, key: Any, channel: Any) -> None:
        self._owner, self.key, self.channel = owner, key, channel
        # True if the interest is not cached: every turn polls the channel.
        self.always_poll = True
        # The class of a channel with cached interest, and the attributes of any.
        self.kind: type = object
        self.attributes: dict[str, Any] = _NOTHING
        # The channel's position in the map.
        self.position = 0
        # The kernel's side: the descriptor, the interest (0: not registered), and the
        # socket for which that holds.
        self.fd, self.interest, self.socket = -1, 0, None
        # True if the next turn updates the interest.
        self.is_pending = False

    def interest_changed(self) -> None:
        """Update this channel's interest in the next turn, which begins at once."""
        owner = self._owner
        if not self.is_pending:
            self.is_pending = True
            owner.pending_updates.append(self)
        if get_ident() != owner.thread and owner.waker is not None:
            owner.waker.wake()

    def unregister(self) -> None:
        """Unregister the channel, which leaves the map with its socket still open."""
        self._owner.detach(self)

    def is_current(self, map: Map) -> bool:
        """Return whether channel and socket are the same as when it was polled."""
        return (
            map.get(self.key) is self.channel
            # Not an attribute of the class: another object may have a method or a
            # property named socket, which is another object each time.
            and self.attributes.get("socket") is self.socket
        )

    @property
    def is_orphaned(self) -> bool:
        """True if a fork has left the loop's thread in the parent."""
        return self._owner.waker is not None and self._owner.waker.is_orphaned


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
# The kernel has one registration per descriptor, but the map may hold several channels
# on one descriptor (under a number and under an object with a fileno()). The kernel's
# interest is the union of theirs.


class Registrations:
    """The registrations of a map's channels, in one loop and thread.

    Args:
        waker: ends the wait; None for a turn of a loop that nothing wakes.
        caches_interest: False for a turn or two, in which caching does not pay.
        as_poll2: poll interest as ``asyncore.poll2`` does.
    """

    def __init__(
        self,
        map: Map,
        waker: Waker | None,
        descriptors: Descriptors,
        *,
        caches_interest: bool,
        as_poll2: bool,
    ) -> None:
        self.map = map
        self.waker = waker
        self._descriptors = descriptors
        self._caches_interest = caches_interest
        self._as_poll2 = as_poll2
        self.thread = get_ident()
        self.by_key: dict[Any, Registration] = {}
        # During a resync: the old registrations that the map has not confirmed yet.
        self._before: dict[Any, Registration] = {}
        self._always_poll: list[Registration] = []
        # The classes of the others; they must not replace readable or writable.
        self._kinds: set[type] = set()
        self.by_fd: dict[int, list[Registration]] = {}
        # The channels with cached interest that only want to read, alone on their
        # descriptor: nearly all, nearly always.
        self.read_only: dict[int, Registration] = {}
        # The channels whose key is an object with a fileno(), not a number.
        self._by_object: list[Registration] = []
        # The channels that have reported a change since the last update.
        self.pending_updates: deque[Registration] = deque()
        # The channels whose descriptor was closed without them.
        self.closed: list[Registration] = []
        # The map position of the next new channel.
        self._next_position = 0
        # The error of select() for the first key that is not a descriptor.
        self._key_error: Exception | None = None
        # True if the next turn has to resync.
        self.is_stale = True
        # The time of the next resync.
        self.resync_at = 0.0

    def detach(self, registration: Registration) -> None:
        """Unregister a channel that leaves, before its descriptor is closed.

        Afterwards the descriptor would no longer identify the kernel's registration.
        """
        if get_ident() == self.thread:
            if self.by_key.get(registration.key) is registration:
                del self.by_key[registration.key]
            self._unregister(registration)

    def release(self) -> None:
        """Let no channel report here, or be held from here, any more."""
        for registration in (*self.by_key.values(), *self._before.values()):
            _detach(registration)
        # Without a cycle of references, the channels are freed at once.
        dicts = self.by_key, self._before, self.by_fd, self.read_only
        lists = self._always_poll, self._by_object, self.pending_updates, self.closed
        for held in (*dicts, *lists):
            held.clear()
        self.is_stale = True

    # Synchronising with the map.

    def update(self) -> bool:
        """Update registrations from the map; return whether this was a full resync."""
        added = None if self._must_resync() else self._added()
        if added is None:
            self.resync()
            return True
        if len(self.by_key) <= FEW_CHANNELS:
            self._find_changes()
        for registration in self._always_poll:
            if self.map.get(registration.key) is not registration.channel:
                self.resync()
                return True
            self._update_interest(registration)
        while self.pending_updates:
            self._apply_report(self.pending_updates.popleft())
        for key, channel in added:
            if self.map.get(key) is channel and key not in self.by_key:
                registration = self._register(key, channel, self._next_position)
                self._next_position += 1
                self._update_interest(registration)
        return False

    def check_keys(self) -> None:
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
        """Compare the map with the registrations, and poll all channels."""
        began = time.monotonic()
        verify = began >= self._descriptors.verify_at
        self.is_stale = False
        self.pending_updates.clear()
        before = self._before = self.by_key
        self.by_key, self._always_poll = {}, []
        self._kinds.clear()
        for position, (key, channel) in enumerate(list(self.map.items())):
            known = before.pop(key, None)
            if known is not None and known.channel is not channel:
                self._unregister(known)
                known = None
            self._update_interest(self._register(key, channel, position, known))
        self._next_position = len(self.by_key)
        for registration in before.values():
            self._unregister(registration)
        self._before = {}
        self._sync_descriptors(verify)
        now = time.monotonic()
        self.resync_at = now + max(RESYNC_INTERVAL, (now - began) / RESYNC_SHARE)
        if verify:
            self._descriptors.verify_at = self.resync_at

    def _must_resync(self) -> bool:
        return (
            self.is_stale
            # No interest is cached: polling all channels is a resync.
            or len(self._always_poll) == len(self.by_key)
            # A fork has dropped the poller.
            or self._descriptors.poller is None
            or time.monotonic() >= self.resync_at
            or not all(map(keeps_answers, self._kinds))
        )

    def _added(self) -> list[tuple[Any, Any]] | None:
        # The channels added last; None if they do not explain the map's size. Channels
        # added while polling are polled in the next turn.
        count = len(self.map) - len(self.by_key)
        if count <= 0 or type(self.map) is not dict:
            return None if count else []
        try:
            newest = list(islice(reversed(self.map.items()), count))
        except RuntimeError:
            # On free-threaded Python, another thread has changed the map meanwhile.
            return None
        if any(key in self.by_key for key, _ in newest):
            return None
        return newest[::-1]

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
                self._update_interest(registration)
            else:
                del self.by_key[key]
                self._unregister(registration)

    def _sync_descriptors(self, verify: bool) -> None:
        """Register the waker, drop leftover registrations, *verify* the others."""
        waker_fd = -1
        if self.waker is not None:
            waker_fd = self.waker.fileno()
            if not self._descriptors.is_registered(waker_fd, IN, self.waker):
                self._descriptors.register(waker_fd, IN, self.waker)
        for fd in list(self._descriptors):
            if fd not in self.by_fd and fd != waker_fd:
                self._descriptors.unregister(fd)
        if verify:
            # dup2 may have put another open file under a registered number.
            for fd in list(self.by_fd):
                self._apply_interest(fd, anew=True)

    def _register(
        self, key: Any, channel: Any, position: int, known: Registration | None = None
    ) -> Registration:
        registration = known or Registration(self, key, channel)
        if known is None:
            if not isinstance(key, int):
                self._by_object.append(registration)
            if self._caches_interest and attach(channel, registration):
                registration.always_poll = False
        registration.position, registration.is_pending = position, False
        self.by_key[key] = registration
        if registration.always_poll:
            self._always_poll.append(registration)
        return registration

    def _unregister(self, registration: Registration) -> None:
        self._set_interest(registration, registration.fd, 0, None)
        _detach(registration)
        if registration in self._by_object:
            self._by_object.remove(registration)

    # Updating interest.

    def update_overridden(self, registrations: Iterable[Registration]) -> bool:
        """Poll channels with a replaced ``readable`` or ``writable``; return if any."""
        replaced = overridden(registrations)
        for each in replaced:
            self._update_interest(each)
        return bool(replaced)

    def _update_interest(self, registration: Registration) -> None:
        channel = registration.channel
        attributes = registration.attributes = getattr(channel, "__dict__", _NOTHING)
        if not registration.always_poll:
            self._check_caching(registration)
        reads, writes = channel.readable(), channel.writable()
        interest = READ_ONLY if reads else 0
        if writes:
            if not self._as_poll2:
                interest |= PRI
            # A listening socket is never writable; select() would report it at once.
            if not channel.accepting:
                interest |= OUT
        sock = attributes.get("socket")
        try:
            fd = descriptor_of(registration.key) if interest else registration.fd
        except (TypeError, ValueError) as error:
            if self._as_poll2:
                raise
            self._key_error = self._key_error or error
        else:
            is_registered = not interest or (
                registration.fd == fd
                and registration.socket is sock
                and self._descriptors.is_for(fd, sock)
            )
            if registration.interest != interest or not is_registered:
                self._set_interest(registration, fd, interest, sock)
            registration.socket = sock
        if (observer := instrument.current) is not None:
            reads, writes = (bool(registration.interest & each) for each in (IN, OUT))
            observer.channel_polled(registration.key, channel, reads, writes)

    def _check_caching(self, registration: Registration) -> None:
        # If the channel no longer reports, every turn polls it from now on.
        channel = registration.channel
        if has_cached_interest(channel):
            registration.kind = type(channel)
            self._kinds.add(registration.kind)
            return
        _detach(registration)
        registration.always_poll = True
        self._always_poll.append(registration)
        self._always_poll.sort(key=lambda each: each.position)
        self.read_only.pop(registration.fd, None)

    def _set_interest(
        self, registration: Registration, fd: int, interest: int, sock: Any
    ) -> None:
        """Store a channel's interest and apply it to the kernel."""
        if registration.interest:
            self.by_fd[registration.fd].remove(registration)
            if registration.fd != fd:
                self._apply_interest(registration.fd)
        registration.fd, registration.interest, registration.socket = fd, interest, sock
        if interest:
            self.by_fd.setdefault(fd, []).append(registration)
        self._apply_interest(fd)

    def _apply_interest(self, fd: int, *, anew: bool = False) -> None:
        """Apply the joint interest of all channels on a descriptor to the kernel."""
        sharing = self.by_fd.get(fd)
        self.read_only.pop(fd, None)
        if not sharing:
            self.by_fd.pop(fd, None)
            self._descriptors.unregister(fd)
            return
        first = sharing[0]
        if first.interest == READ_ONLY and not first.always_poll and len(sharing) == 1:
            self.read_only[fd] = first
        interest = reduce(or_, [each.interest for each in sharing])
        if not anew and self._descriptors.is_registered(fd, interest, first.socket):
            return
        if not self._descriptors.register(fd, interest, first.socket):
            self.closed += [each for each in sharing if each not in self.closed]


def overridden(registrations: Iterable[Registration]) -> list[Registration]:
    """Return those whose ``readable``, ``writable`` or class was replaced."""
    return [
        each
        for each in registrations
        if (
            "readable" in each.attributes
            or "writable" in each.attributes
            or type(each.channel) is not each.kind
        )
        and not each.always_poll
    ]


def _detach(registration: Registration) -> None:
    if not registration.always_poll:
        detach(registration.channel, registration)
