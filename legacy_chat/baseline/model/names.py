"""Names that replace values which differ in every run: ``用户{a} 说:hi``.

A profile has patterns for such values. A value that no pattern matches, or an address
of no client, stays unchanged and counts as a difference.

Rule 1: within a conversation, a name denotes one value and a value has one name, so a
server that confuses two values is detected.
Rule 2: binding is reversible. Text that only looks like a name, such as ``{a}`` sent by
a client, is written ``{{}a}``; so is ``{{}``.
Rule 3: names are also replaced in sent data: a token from the server can be sent back
as ``{token1}``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from legacy_chat.baseline.model import fields

__all__ = ["Names", "Volatile", "joined_pattern"]

# A possible name, or the escape of a brace; and the opening brace of either.
BRACED = re.compile(rb"\{(\{|[^{}]+)\}")
BEGINNING = re.compile(rb"\{(?=(\{|[^{}]+)\})")


@dataclass(frozen=True)
class Volatile:
    """A kind of value that differs in every run.

    Attributes:
        name: the name that replaces the value.
        pattern: matches the value, as the group ``value`` if the pattern has one.
        bind: "each": different values are ``{id1}``, ``{id2}``. "any": all are
            ``{time}``, because two are equal only by chance. "address": the name of the
            client with the address.
        address: how the server writes an address, with ``{ip}`` and ``{port}``.
    """

    name: Annotated[str, fields.matching("[^{}0-9]+", "without braces or digits")] = ""
    pattern: fields.Pattern = b""
    bind: Annotated[str, fields.one_of("each", "any", "address")] = "each"
    address: fields.Text = ""

    def __post_init__(self) -> None:
        if not self.name or not self.pattern:
            raise fields.wrong("volatile", "a table with a name and a pattern", self)
        if (self.bind == "address") != bool(self.address):
            rule = 'given with bind = "address", and only then'
            raise fields.wrong("volatile.address", rule, self.address)


class Names:
    """The bound values of one conversation."""

    def __init__(self, volatile: Sequence[Volatile]) -> None:
        self._volatile = volatile
        self._pattern = re.compile(joined_pattern(volatile)) if volatile else None
        self._values: dict[bytes, bytes] = {}
        self._names: dict[tuple[str, bytes], str] = {}
        self._counts: Counter[str] = Counter()

    def __copy__(self) -> Names:
        other = Names(self._volatile)
        other._values |= self._values
        other._names |= self._names
        other._counts |= self._counts
        return other

    def bind_client(self, client: str, ip: str, port: int) -> None:
        """Bind the address to the name *client* from now on."""
        for each in self._volatile:
            if each.bind == "address":
                written = each.address.replace("{ip}", ip).replace("{port}", str(port))
                self._bind(each, written.encode(), client)

    def written(self, client: str) -> bytes:
        """Return the client's address as the server writes it; b"" if unknown."""
        return self._values.get(client.encode(), b"")

    def to_names(self, data: bytes, *, new: bool = True) -> bytes:
        """Return received data with names for values; bind *new* values, too."""
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

    def to_values(self, data: bytes) -> bytes:
        """Return data to send, with values in place of names."""
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


def joined_pattern(volatile: Sequence[Volatile]) -> bytes:
    """Return one pattern for all, so that no value is bound twice; the first one wins.

    ``lastgroup`` identifies the pattern, because the outermost group closes last.
    """
    return b"|".join(
        b"(?P<v%d>%s)" % (i, each.pattern.replace(b"(?P<value>", b"(?P<value%d>" % i))
        for i, each in enumerate(volatile)
    )
