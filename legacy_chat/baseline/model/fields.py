"""Readers of the values in a profile and in a transcript.

A reader is a function of a value and its name; it returns the value as the program uses
it. A dataclass that is read from a file has ``Annotated[TYPE, READER]`` fields.

Rule: a wrong value is a ValueError ``NAME must be RULE, got VALUE``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

from compat.values import Range, shown

T = TypeVar("T")
Reader = Callable[[Any, str], Any]

# The largest weight of a random choice.
HEAVIEST = 1e9

# Texts that denote the end of a connection where data could stand.
ENDS = ("eof", "reset", "refused")


def wrong(name: str, rule: str, value: object) -> ValueError:
    """Return the error of a wrong value."""
    return ValueError(f"{name} must be {rule}, got {shown(value)}".lstrip())


def checked(rule: str, holds: Callable[[Any], object]) -> Reader:
    """Return a reader of a value for which *holds* is true."""

    def read(value: Any, name: str) -> Any:
        if not holds(value):
            raise wrong(name, rule, value)
        return value

    return read


text = checked("a text", lambda value: isinstance(value, str))
boolean = checked("true or false", lambda value: isinstance(value, bool))


def one_of(*allowed: str) -> Reader:
    """Return a reader of one of some texts."""
    names = ", ".join(filter(None, allowed))
    return checked(f"one of {names}", lambda value: value in allowed)


def matching(expression: str, rule: str) -> Reader:
    """Return a reader of a text that *expression* matches as a whole."""
    match = re.compile(expression).fullmatch
    return checked(rule, lambda value: isinstance(value, str) and match(value))


def number(least: float, most: float, *, whole: bool = False) -> Reader:
    """Return a reader of a number from *least* to *most*."""
    numbers = Range(least, most, whole)
    return checked(numbers.rule, numbers.has)


def list_of(reader: Reader) -> Reader:
    """Return a reader of a list, as a tuple."""
    a_list = checked("a list", lambda value: isinstance(value, list))
    return lambda values, name: tuple(reader(v, name) for v in a_list(values, name))


def table_of(cls: type[T]) -> Callable[[Any, str], T]:
    """Return a reader of a table as the dataclass *cls*; its own name may be empty."""
    hints = get_type_hints(cls, include_extras=True)
    readers = {name: hint.__metadata__[0] for name, hint in hints.items()}
    return lambda table, name: cls(**_values(readers, table, name))


def weights(choices: Iterable[str]) -> Reader:
    """Return a reader of the weights of some choices; a missing one is 0."""
    readers = dict.fromkeys(choices, number(0, HEAVIEST))

    def read(table: Any, name: str) -> dict[str, float]:
        result = dict.fromkeys(readers, 0.0) | _values(readers, table, name)
        if not any(result.values()):
            raise wrong(name, "weights, not all 0", table)
        return result

    return read


def data(value: Any, name: str) -> bytes:
    """Read bytes: a text, or ``{"base64": …}``."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise wrong(name, "without half of a surrogate pair", value) from None
    if not isinstance(value, dict) or not isinstance(value.get("base64"), str):
        raise wrong(name, 'a text or {"base64": a text}', value)
    try:
        return base64.b64decode(value["base64"], validate=True)
    except ValueError as error:
        raise wrong(name, f"base64 ({error})", value["base64"]) from None


def datas(value: Any, name: str) -> tuple[bytes, ...]:
    """Read a tuple of bytes: one text, or a list with at least one."""
    values = [value] if isinstance(value, str | dict) else value
    if not isinstance(values, list) or not values:
        raise wrong(name, "a text or a list of texts", value)
    return tuple(data(each, name) for each in values)


def pattern(value: Any, name: str) -> bytes:
    """Read a regular expression for bytes."""
    expression: bytes = text(value, name).encode()
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise wrong(name, f"a pattern ({error})", value) from error
    return expression


def json_data(value: bytes) -> str | dict[str, str]:
    """Return the JSON value that *data* reads; one of ENDS is written in base64."""
    try:
        decoded = value.decode()
    except UnicodeDecodeError:
        decoded = ENDS[0]
    if decoded in ENDS:
        return {"base64": base64.b64encode(value).decode()}
    return decoded


def _values(readers: Mapping[str, Reader], table: Any, name: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise wrong(name, "a table", table)
    for key in table:
        if key not in readers:
            raise wrong(f"{name} key".strip(), f"one of {', '.join(readers)}", key)
    return {
        key: readers[key](value, f"{name}.{key}".lstrip("."))
        for key, value in table.items()
    }


Text = Annotated[str, text]
Datas = Annotated[tuple[bytes, ...], datas]
Data = Annotated[bytes, data]
Pattern = Annotated[bytes, pattern]
