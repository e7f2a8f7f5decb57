"""Admission control: a maximum of clients, in total and for each address."""

from __future__ import annotations

from collections import Counter

from legacy_chat.limits import Limits

__all__ = ["AdmissionControl"]


class AdmissionControl:
    """Counts the admitted clients by address, and decides about one more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_address: Counter[str] = Counter()

    def refusal(self, connected: int, address: str) -> str:
        """Return why one more client is rejected, one of REFUSED; "" to admit it."""
        total, per_address = self._limits.max_clients, self._limits.max_per_address
        if total and connected >= total:
            return "full"
        if per_address and self._by_address[address] >= per_address:
            return "address"
        return ""

    def add(self, address: str) -> None:
        """Count a client that was admitted."""
        if self._limits.max_per_address:
            self._by_address[address] += 1

    def remove(self, address: str) -> None:
        """Stop counting a client that has left."""
        if self._limits.max_per_address:
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]
