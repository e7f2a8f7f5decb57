"""What the tool must know of a protocol: a TOML file of a few lines.

    name = "shout"
    framing = "stream"                       # how bytes are cut must not matter
    leave = "QUIT\\r\\n"                       # said at the end of a conversation
    server = "python shout.py --port {port}" # the reference, for minimise and fuzz

    [fence]                                  # proves that a step is over
    say = "fence {n}\\r\\n"                    # the witness says it …
    heard = ["witness: fence {n}\\r\\n"]       # … and so everybody hears it

    [[volatile]]
    name = "id"
    pattern = "id=(?P<value>[0-9a-f]+)"

Every key may be missing; without a fence a step is over when all is quiet. ``tutorial``
and ``lines`` are shipped, and show everything.

Rule: a profile is complete and right, or reading it is an error that says what is not.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from legacy_chat.baseline.errors import FormatError
from legacy_chat.baseline.format import FRAMINGS, data_of
from legacy_chat.baseline.names import Volatile

__all__ = ["FenceWords", "FuzzPlan", "Profile", "find_profile", "read_profile"]

T = TypeVar("T")

BINDINGS = ("each", "any", "address")

# How often a client does what, and of what a message is made, if nobody knows better.
ACTIONS = {
    "open": 15.0,
    "send": 85.0,
    "drop": 3.0,
    "reset": 1.0,
    "half-close": 3.0,
    "last words": 6.0,
}
MESSAGES = {"pieces": 4.0, "words": 5.0, "long": 1.0}


class FenceWords(NamedTuple):
    """What the witness says, and what everybody hears of it.

    Attributes:
        say: with ``{n}`` for a number that is said once only.
        heard: the forms in which it may arrive, the longest first, with ``{n}`` and,
            for the witness's address as the server writes it, ``{witness}``.
        words: how often it is said after an action.
        last_words: after one that says something and ends the connection.
        hello: what the witness says first; welcome: the pattern that answers it.
    """

    say: bytes
    heard: tuple[bytes, ...]
    words: int = 3
    last_words: int = 4
    hello: bytes = b""
    welcome: bytes = b""


class FuzzPlan(NamedTuple):
    """What random conversations are made of.

    Attributes:
        clients: in the room at a time, at most; steps: of a conversation.
        longest: bytes of a message.
        actions: weights of open, send, drop, reset, half-close, and "last words", which
            are a drop or a half-close that says something.
        messages: weights of "pieces" (joined), "words" (joined, with a space or not)
            and "long" (much of one, with a piece somewhere in it).
        never: patterns that nothing matches which a client has said, taken together:
            what the servers may answer differently.
    """

    clients: int = 4
    steps: int = 30
    longest: int = 4096
    fresh: int = 25
    actions: dict[str, float] = ACTIONS
    messages: dict[str, float] = MESSAGES
    words: tuple[bytes, ...] = (b"hello", b"", b"a", b"\0", b"\xff", "你好".encode())
    pieces: tuple[bytes, ...] = (b"\n", b"\r", b"\r\n", b" ", b"0", b"-1", b'"')
    fill: tuple[bytes, ...] = (b"x", b"0", b" ", "你".encode())
    never: tuple[bytes, ...] = ()


class Profile(NamedTuple):
    """A protocol; see the module's example.

    Attributes:
        leave: what everybody says at the end; the server then closes the connection.
        quiet: seconds that count as quiet, at least; 0 for what suits the machine.
        patience: seconds that an answer which is known to come is waited for, at least,
            where no fence proves that it does not.
        server: the command of the reference server; places.py says what is replaced.
    """

    name: str = "plain"
    framing: str = "segment"
    leave: bytes = b""
    quiet: float = 0.0
    patience: float = 3.0
    server: str = ""
    fence: FenceWords | None = None
    volatile: tuple[Volatile, ...] = ()
    fuzz: FuzzPlan = FuzzPlan()


def find_profile(name: str, beside: Path | None = None) -> Profile:
    """The profile of that name or at that path.

    Args:
        name: a path that ends in .toml, or a name; nothing for the plain one.
        beside: where NAME.toml is looked for before the shipped ones.

    Raises:
        FormatError: there is none, or it is wrong.
    """
    if not name:
        return Profile()
    shipped = Path(str(files("legacy_chat.baseline") / "profiles"))
    if name.endswith(".toml"):
        return read_profile(Path(name))
    for folder in filter(None, (beside, shipped)):
        if (folder / f"{name}.toml").is_file():
            return read_profile(folder / f"{name}.toml")
    known = ", ".join(sorted(path.stem for path in shipped.glob("*.toml")))
    raise FormatError(
        f"profile {name!r} is none of {known}, and no path that ends in .toml"
    )


def read_profile(path: Path) -> Profile:
    """The profile at *path*.

    Raises:
        FormatError: it cannot be read, or something in it is wrong.
    """
    try:
        table = tomllib.loads(path.read_text("utf8"))
        return _profile(table, path.stem)
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(f"profile {path}: {error}") from error


def _profile(table: dict[str, Any], stem: str) -> Profile:
    _only(table, "the profile", Profile._fields)
    framing = table.get("framing", "segment")
    if framing not in FRAMINGS:
        raise ValueError(f"framing {framing!r} is none of {', '.join(FRAMINGS)}")
    return Profile(
        str(table.get("name", stem)),
        framing,
        data_of(table.get("leave", "")),
        float(table.get("quiet", 0.0)),
        float(table.get("patience", 3.0)),
        str(table.get("server", "")),
        _fence(table["fence"]) if "fence" in table else None,
        tuple(_volatile(each) for each in table.get("volatile", [])),
        _plan(table.get("fuzz", {})),
    )


def _fence(table: dict[str, Any]) -> FenceWords:
    _only(table, "[fence]", FenceWords._fields)
    say = data_of(table.get("say", ""))
    heard = _several(table.get("heard", [table.get("say", "")]))
    if not all(b"{n}" in each for each in (say, *heard)):
        raise ValueError('[fence] "say" and each "heard" must have {n} in them')
    words = int(table.get("words", 3))
    last_words = int(table.get("last_words", words + 1))
    welcome = _pattern(table.get("welcome", ""))
    return FenceWords(
        say, heard, words, last_words, data_of(table.get("hello", "")), welcome
    )


def _volatile(table: dict[str, Any]) -> Volatile:
    _only(table, "[[volatile]]", Volatile._fields)
    name, bind = str(table.get("name", "")), table.get("bind", "each")
    if not re.fullmatch(r"[^{}0-9]+", name):
        raise ValueError(f"[[volatile]] name {name!r}: a text without braces or digits")
    if bind not in BINDINGS:
        raise ValueError(f"{name}: bind {bind!r} is none of {', '.join(BINDINGS)}")
    pattern, address = _pattern(table.get("pattern", "")), table.get("address", "")
    if not pattern or (bind == "address") != bool(address):
        raise ValueError(f'{name}: needs a pattern, and "address" only to bind by it')
    return Volatile(name, pattern, bind, address)


def _plan(table: dict[str, Any]) -> FuzzPlan:
    _only(table, "[fuzz]", FuzzPlan._fields)
    plan = FuzzPlan()
    given: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(getattr(plan, key), tuple):
            given[key] = _several(value)
        elif isinstance(getattr(plan, key), dict):
            _only(value, f"[fuzz] {key}", tuple(getattr(plan, key)))
            given[key] = {**dict.fromkeys(getattr(plan, key), 0.0), **value}
        else:
            given[key] = max(1, int(value))
    plan = plan._replace(**given)
    for each in plan.never:
        _compiles(each)
    for key in ("actions", "messages"):
        weights = getattr(plan, key).values()
        if min(weights) < 0 or not sum(weights):
            raise ValueError(f"[fuzz] {key}: weights are 0 or more, and not all 0")
    for key in ("words", "pieces", "fill"):
        if not any(getattr(plan, key)):
            raise ValueError(f"[fuzz] {key}: there is nothing to say")
    return plan


def _only(table: Any, where: str, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{where} is no table")
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: {key!r} is none of {', '.join(known)}")


def _several(values: Any) -> tuple[bytes, ...]:
    return tuple(map(data_of, [values] if isinstance(values, str | dict) else values))


def _pattern(text: str) -> bytes:
    return _compiles(text.encode())


def _compiles(pattern: bytes) -> bytes:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern {pattern.decode()!r}: {error}") from error
    return pattern
