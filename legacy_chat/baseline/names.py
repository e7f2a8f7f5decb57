"""Names in the place of what is another value in every run: ``用户{a} 说:hi``.

A profile says by patterns where such values stand. A value that no pattern finds, or
that is found and belongs to nobody, stays as it is: it is a difference.

Rule 1: within a conversation a name means one value and a value has one name, so that a
server which mixes up two of them is found out.
Rule 2: binding can be undone. Text that only looks like a name, ``{a}`` said by a
client, is written ``{{}a}``, and so is ``{{}``.
Rule 3: names also stand in what is sent: a token that the server has given can be sent
back as ``{token1}``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Names", "Volatile", "joined"]

# What may be a name, or the escape of a brace; and its beginning.
BRACED = re.compile(rb"\{(\{|[^{}]+)\}")
BEGINNING = re.compile(rb"\{(?=(\{|[^{}]+)\})")


class Volatile(NamedTuple):
    """A value that changes from run to run.

    Attributes:
        name: what stands for it.
        pattern: where it stands; its group ``value`` if it has one, else all of it.
        bind: "each": every other value gets another number, ``{id1}``, ``{id2}``;
            "any": all are ``{time}``, because whether two agree is chance;
            "address": the name of the client whose *address* it is.
        address: how the server writes an address, with ``{ip}`` and ``{port}``.
    """

    name: str
    pattern: bytes
    bind: str = "each"
    address: str = ""


class Names:
    """The values that are bound in one conversation."""

    def __init__(self, volatile: Sequence[Volatile]) -> None:
        self._volatile = volatile
        self._pattern = re.compile(joined(volatile)) if volatile else None
        self._values: dict[bytes, bytes] = {}
        self._names: dict[tuple[str, bytes], str] = {}
        self._counts: Counter[str] = Counter()

    def copy(self) -> Names:
        """The same values; what is bound later is bound in one of them only."""
        other = Names(self._volatile)
        other._values.update(self._values)
        other._names.update(self._names)
        other._counts.update(self._counts)
        return other

    def bind_client(self, client: str, ip: str, port: int) -> None:
        """From here on its address is *client*'s name."""
        for each in self._volatile:
            if each.bind == "address":
                written = each.address.replace("{ip}", ip).replace("{port}", str(port))
                self._bind(each, written.encode(), client)

    def written(self, client: str) -> bytes:
        """The client's address as the server writes it, or nothing if nobody knows."""
        return self._values.get(client.encode(), b"")

    def hear(self, data: bytes, *, new: bool = True) -> bytes:
        """What was got, with names for values.

        Args:
            new: give names to values that have none.
        """
        if self._pattern is None:
            return self._escaped(data)
        pieces, end = [], 0
        for match in self._pattern.finditer(data):
            index = int((match.lastgroup or "")[1:])
            group = f"value{index}"
            start, stop = match.span(group if group in match.re.groupindex else 0)
            name = self._name(self._volatile[index], data[start:stop], new)
            if name is not None:
                pieces += [self._escaped(data[end:start]), b"{%s}" % name.encode()]
                end = stop
        return b"".join([*pieces, self._escaped(data[end:])])

    def say(self, data: bytes) -> bytes:
        """What is to be sent, with values for names."""
        return BRACED.sub(self._value, data) if b"{" in data else data

    def _name(self, volatile: Volatile, value: bytes, new: bool) -> str | None:
        if volatile.bind == "any" and new:
            return self._bind(volatile, value, volatile.name)
        known = self._names.get((volatile.name, value))
        if known is not None or volatile.bind == "address" or not new:
            return known
        self._counts[volatile.name] += 1
        name = f"{volatile.name}{self._counts[volatile.name]}"
        return self._bind(volatile, value, name)

    def _bind(self, volatile: Volatile, value: bytes, name: str) -> str:
        if volatile.bind != "any":
            self._names[volatile.name, value] = name
        self._values[name.encode()] = value
        return name

    def _value(self, match: re.Match[bytes]) -> bytes:
        return b"{" if match[1] == b"{" else self._values.get(match[1], match[0])

    def _escaped(self, data: bytes) -> bytes:
        return BEGINNING.sub(self._brace, data) if b"{" in data else data

    def _brace(self, match: re.Match[bytes]) -> bytes:
        return b"{{}" if match[1] == b"{" or match[1] in self._values else b"{"


def joined(volatile: Sequence[Volatile]) -> bytes:
    """One pattern for all, so that nothing is bound twice; the first that fits wins.

    ``lastgroup`` tells which it was: the outermost group is the last to be closed.
    """
    return b"|".join(
        b"(?P<v%d>%s)" % (i, each.pattern.replace(b"(?P<value>", b"(?P<value%d>" % i))
        for i, each in enumerate(volatile)
    )
