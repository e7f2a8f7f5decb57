"""Admission control: a maximum of clients, in total and for each address."""

from __future__ import annotations

from collections import Counter

from legacy_chat.limits import Limits

__all__ = ["Places"]


class Places:
    """Admission control: a maximum of clients, in total and for each address."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_clients
        self._most_from_one = limits.max_per_address
        self._from: Counter[str] = Counter()

    def refusal(self, connected: int, address: str) -> str:
        """Return why one more client is rejected, one of REFUSED; "" to admit it."""
        if self._most and connected >= self._most:
            return "full"
        if self._most_from_one and self._from[address] >= self._most_from_one:
            return "address"
        return ""

    def take(self, address: str) -> None:
        """Count a client that was admitted."""
        if self._most_from_one:
            self._from[address] += 1

    def give_back(self, address: str) -> None:
        """Stop counting a client that has left."""
        if self._most_from_one:
            self._from[address] -= 1
            if self._from[address] <= 0:
                del self._from[address]
