"""The profile: the description of a protocol, a TOML file of a few lines.

    name = "shout"
    framing = "stream"                       # the cut into segments must not matter
    leave = "QUIT\\r\\n"                       # sent at the end of a conversation
    server = "python shout.py --port {port}" # the reference, for minimise and fuzz

    [barrier]                                  # proves that a step is over
    send = "barrier {n}\\r\\n"                   # the witness sends this …
    receive = ["witness: barrier {n}\\r\\n"]       # … and each client receives this

    [[volatile]]
    name = "id"
    pattern = "id=(?P<value>[0-9a-f]+)"

Every key is optional. Without a barrier, a step is over after ``quiet`` seconds without
data (default: 3). The shipped profiles ``tutorial`` and ``lines`` show every key.

Rule: reading an invalid profile raises an error that names the fault.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from legacy_chat.baseline.model.errors import FormatError
from legacy_chat.baseline.model.format import FRAMINGS, LONGEST_QUIET, data_of, named
from legacy_chat.baseline.model.names import Volatile, joined

__all__ = [
    "BarrierMessages",
    "FuzzPlan",
    "Profile",
    "find_profile",
    "profile_named",
    "read_profile",
]

T = TypeVar("T")

BINDINGS = ("each", "any", "address")

# Default weights of a client's actions, and of the kinds of messages.
ACTIONS = {
    "open": 15.0,
    "send": 85.0,
    "drop": 3.0,
    "reset": 1.0,
    "half-close": 3.0,
    "last words": 6.0,
}
MESSAGES = {"pieces": 4.0, "words": 5.0, "long": 1.0}


# Maximum words of a barrier after an action.
MOST_WORDS = 1000

# The largest values of a fuzz plan, and its largest weight.
MOST = {"clients": 1000, "steps": 1_000_000, "longest": 1 << 26, "fresh": 1_000_000_000}
HEAVIEST = 1e9


class BarrierMessages(NamedTuple):
    """The markers of a barrier: the witness sends them, and each client receives them.

    Attributes:
        send: a marker as the witness sends it, with ``{n}`` for a unique number.
        receive: the forms in which a marker may arrive, the longest first, with ``{n}``
            and ``{witness}``, the witness's address as the server writes it.
        rounds: the number of markers after an action.
        rounds_at_close: the same after an action that sends data and closes.
        hello: the first data of the witness; welcome: the pattern of the answer.
    """

    send: bytes
    receive: tuple[bytes, ...]
    rounds: int = 3
    rounds_at_close: int = 4
    hello: bytes = b""
    welcome: bytes = b""


class FuzzPlan(NamedTuple):
    """The parameters of random conversations.

    Attributes:
        clients: maximum simultaneous clients; steps: the steps of a conversation.
        longest: maximum bytes of a long message.
        fresh: conversations after which both servers are replaced by new ones.
        actions: weights of open, send, drop, reset, half-close, and "last words", a
            drop or a half-close that sends data.
        messages: weights of "pieces" (joined), "words" (joined, with or without spaces)
            and "long" (copies of a *fill*, with a piece among them).
        never: patterns that the joined data of a client never matches, because the
            servers may answer such data differently.
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
        leave: data that each client sends at the end; the server then closes the
            connection.
        quiet: seconds without data that end a step without a barrier. 0 means 3 seconds
            for record, and a measured time for fuzz and minimise.
        patience: minimum seconds to wait for an expected answer without a barrier.
        server: the command of the reference server; server.py lists the replacements.
    """

    name: str = "plain"
    framing: str = "segment"
    leave: bytes = b""
    quiet: float = 0.0
    patience: float = 3.0
    server: str = ""
    barrier: BarrierMessages | None = None
    volatile: tuple[Volatile, ...] = ()
    fuzz: FuzzPlan = FuzzPlan()


def find_profile(name: str) -> Profile:
    """Return the profile that the user named: a shipped one, or a file.

    Args:
        name: a shipped profile's name, or a path that ends in .toml; "" for the plain
            profile.

    Raises:
        FormatError: the profile does not exist, or is invalid.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    return _shipped(name, "no path that ends in .toml")


def profile_named(name: str) -> Profile:
    """Return the profile that a transcript names, which must be a shipped one.

    A profile has the command of a server, and an untrusted transcript must not select
    the command to run.

    Raises:
        FormatError: *name* is not a shipped profile.
    """
    return _shipped(name, "only --profile FILE.toml reads another one")


def _shipped(name: str, otherwise: str) -> Profile:
    folder = Path(str(files("legacy_chat.baseline") / "profiles"))
    shipped = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    plain = Profile()
    if name in ("", plain.name):
        return plain
    if name not in shipped:
        known = ", ".join((plain.name, *shipped))
        raise FormatError(f"profile {name[:60]!r} is none of {known}, and {otherwise}")
    return read_profile(shipped[name])


def read_profile(path: Path) -> Profile:
    """Return the profile at *path*.

    Raises:
        FormatError: the file cannot be read, or is invalid.
    """
    try:
        table = tomllib.loads(path.read_text("utf8"))
        return _profile(table, path.stem)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"profile {path}: {error}") from error


def _profile(table: dict[str, Any], stem: str) -> Profile:
    _only(table, "the profile", Profile._fields)
    framing = table.get("framing", "segment")
    if framing not in FRAMINGS:
        raise ValueError(f"framing {named(framing)} is none of {', '.join(FRAMINGS)}")
    volatile = tuple(_volatile(each) for each in table.get("volatile", []))
    # The joined pattern may be invalid although each pattern is valid.
    _compiles(joined(volatile))
    return Profile(
        _text(table, "name", stem),
        framing,
        data_of(table.get("leave", "")),
        _number(table, "quiet", 0.0, 0, LONGEST_QUIET),
        _number(table, "patience", 3.0, 0, LONGEST_QUIET),
        _text(table, "server"),
        _barrier(table["barrier"]) if "barrier" in table else None,
        volatile,
        _plan(table.get("fuzz", {})),
    )


def _barrier(table: dict[str, Any]) -> BarrierMessages:
    _only(table, "[barrier]", BarrierMessages._fields)
    send = data_of(table.get("send", ""))
    receive = _several(table.get("receive", [table.get("send", "")]))
    if not receive or not all(b"{n}" in each for each in (send, *receive)):
        raise ValueError('[barrier] "send" and each "receive" must have {n} in them')
    rounds = int(_number(table, "rounds", 3, 1, MOST_WORDS))
    at_close = int(_number(table, "rounds_at_close", rounds + 1, 1, MOST_WORDS + 1))
    welcome = _pattern(table, "welcome")
    return BarrierMessages(
        send, receive, rounds, at_close, data_of(table.get("hello", "")), welcome
    )


def _volatile(table: dict[str, Any]) -> Volatile:
    _only(table, "[[volatile]]", Volatile._fields)
    name, bind = _text(table, "name"), table.get("bind", "each")
    if not re.fullmatch(r"[^{}0-9]+", name):
        raise ValueError(f"[[volatile]] name {name!r}: a text without braces or digits")
    if bind not in BINDINGS:
        raise ValueError(f"{name}: bind {named(bind)} is none of {', '.join(BINDINGS)}")
    pattern, address = _pattern(table, "pattern"), _text(table, "address")
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
            weights = {each: _number(value, each, 0.0, 0, HEAVIEST) for each in value}
            given[key] = {**dict.fromkeys(getattr(plan, key), 0.0), **weights}
        else:
            given[key] = int(_number(table, key, 0, 1, MOST[key]))
    plan = plan._replace(**given)
    for each in plan.never:
        _compiles(each)
    for key in ("actions", "messages"):
        weights = getattr(plan, key).values()
        if not any(weights):
            raise ValueError(f"[fuzz] {key}: weights are 0 or more, and not all 0")
    for key in ("words", "pieces", "fill"):
        if not any(getattr(plan, key)):
            raise ValueError(f"[fuzz] {key}: there is nothing to say")
    if not all(plan.fill):
        raise ValueError("[fuzz] fill: each text must have at least one byte, got ''")
    return plan


def _only(table: Any, where: str, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{where} is no table")
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: {key!r} is none of {', '.join(known)}")


def _several(values: Any) -> tuple[bytes, ...]:
    return tuple(map(data_of, [values] if isinstance(values, str | dict) else values))


def _text(table: dict[str, Any], key: str, default: str = "") -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f'"{key}" must be a text, got {named(value)}')
    return value


def _number(
    table: dict[str, Any], key: str, default: float, least: float, most: float
) -> float:
    """Return a number from *least* to *most*, a whole one if the default is an int."""
    value = table.get(key, default)
    kinds = (int,) if type(default) is int else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        whole = "a whole number" if kinds == (int,) else "a number"
        rule = f"{whole} from {least:,} to {most:,}"
        raise ValueError(f'"{key}" must be {rule}, got {named(value)}')
    return float(value)


def _pattern(table: dict[str, Any], key: str) -> bytes:
    return _compiles(_text(table, key).encode())


def _compiles(pattern: bytes) -> bytes:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"the pattern {pattern.decode()!r}: {error}") from error
    return pattern
