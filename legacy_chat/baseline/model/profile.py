"""The profile: the description of a protocol, a TOML file of a few lines.

    name = "shout"
    framing = "stream"                       # the cut into segments must not matter
    leave = "QUIT\\r\\n"                       # sent at the end of a conversation
    server = "python shout.py --port {port}" # the reference, for minimise and fuzz

    [barrier]                                # proves that a step is over
    send = "barrier {n}\\r\\n"                 # the witness sends this …
    receive = ["witness: barrier {n}\\r\\n"]   # … and each client receives this

    [[volatile]]
    name = "id"
    pattern = "id=(?P<value>[0-9a-f]+)"

Every key is optional. Without a barrier, a step is over after ``quiet`` seconds without
data (default: 3). The shipped profiles ``tutorial`` and ``lines`` show every key.

Rule: reading an invalid profile raises an error that names the fault.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from legacy_chat.baseline.model import fields
from legacy_chat.baseline.model.errors import FormatError
from legacy_chat.baseline.model.names import Volatile, joined_pattern
from legacy_chat.baseline.model.transcript import FRAMINGS, LONGEST_QUIET

__all__ = [
    "BarrierMessages",
    "FuzzPlan",
    "Profile",
    "find_profile",
    "profile_named",
    "read_profile",
]

PROFILES = Path(__file__).parents[1] / "profiles"

# Default weights of a client's actions, and of the kinds of messages.
ACTIONS = {"open": 15.0, "send": 85.0, "drop": 3.0, "reset": 1.0}
ACTIONS |= {"half-close": 3.0, "send and close": 6.0}
MESSAGES = {"pieces": 4.0, "words": 5.0, "long": 1.0}

Seconds = Annotated[float, fields.number(0, LONGEST_QUIET)]

# Maximum markers of a barrier after an action.
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class BarrierMessages:
    """The markers of a barrier: the witness sends them, and each client receives them.

    Attributes:
        send: a marker as the witness sends it, with ``{n}`` for a unique number.
        receive: the forms in which it may arrive, the longest first, with ``{n}`` and
            ``{witness}``, the witness's address as the server writes it; () for *send*.
        rounds: the number of markers after an action.
        rounds_at_close: the same if the action sends data and closes; 0 for one more.
        hello: the first data of the witness; welcome: the pattern of the answer.
    """

    send: fields.Data = b""
    receive: fields.Datas = ()
    rounds: Annotated[int, fields.number(1, MOST_ROUNDS, whole=True)] = 3
    rounds_at_close: Annotated[int, fields.number(1, MOST_ROUNDS + 1, whole=True)] = 0
    hello: fields.Data = b""
    welcome: fields.Pattern = b""

    def __post_init__(self) -> None:
        for each in (self.send, *self.receive):
            if b"{n}" not in each:
                raise fields.wrong("barrier.send and .receive", "texts with {n}", each)

    def rounds_after(self, *, closes: bool) -> int:
        """Return the number of markers that prove the end of a step."""
        return (self.rounds_at_close or self.rounds + 1) if closes else self.rounds


@dataclass(frozen=True)
class FuzzPlan:
    """The parameters of random conversations.

    Attributes:
        clients: maximum simultaneous clients; steps: the steps of a conversation.
        longest: maximum bytes of a long message.
        restart_after: conversations after which both servers are replaced by new ones.
        actions: weights of the actions; "send and close" is a drop or half-close with
            data.
        messages: weights of "pieces" (joined), "words" (joined, with or without spaces)
            and "long" (copies of a *fill*, with a piece among them).
        never: patterns that a client's joined data never matches, because the servers
            may answer it differently.
    """

    clients: Annotated[int, fields.number(1, 1000, whole=True)] = 4
    steps: Annotated[int, fields.number(1, 1_000_000, whole=True)] = 30
    longest: Annotated[int, fields.number(1, 1 << 26, whole=True)] = 4096
    restart_after: Annotated[int, fields.number(1, 1_000_000_000, whole=True)] = 25
    actions: Annotated[dict[str, float], fields.weights(ACTIONS)] = field(
        default_factory=ACTIONS.copy
    )
    messages: Annotated[dict[str, float], fields.weights(MESSAGES)] = field(
        default_factory=MESSAGES.copy
    )
    words: fields.Datas = (b"hello", b"", b"a", b"\0", b"\xff", "你好".encode())
    pieces: fields.Datas = (b"\n", b"\r", b"\r\n", b" ", b"0", b"-1", b'"')
    fill: fields.Datas = (b"x", b"0", b" ", "你".encode())
    never: Annotated[tuple[bytes, ...], fields.list_of(fields.pattern)] = ()

    def __post_init__(self) -> None:
        if not any(self.words) or not any(self.pieces) or not all(self.fill):
            rule = "with at least one byte: a word, a piece and each fill"
            raise fields.wrong("fuzz texts", rule, (self.words, self.pieces, self.fill))


@dataclass(frozen=True)
class Profile:
    """A protocol; see the module's example.

    Attributes:
        leave: the last data of each client, after which the server closes.
        quiet: seconds without data that end a step without a barrier. 0 means 3 seconds
            for record, and a measured time for fuzz and minimise.
        patience: minimum seconds to wait for an expected answer without a barrier.
        server: the command of the reference server; server.py lists the replacements.
    """

    name: fields.Text = "plain"
    framing: Annotated[str, fields.one_of(*FRAMINGS)] = "segment"
    leave: fields.Data = b""
    quiet: Seconds = 0.0
    patience: Seconds = 3.0
    server: fields.Text = ""
    barrier: Annotated[BarrierMessages | None, fields.table_of(BarrierMessages)] = None
    volatile: Annotated[
        tuple[Volatile, ...], fields.list_of(fields.table_of(Volatile))
    ] = ()
    fuzz: Annotated[FuzzPlan, fields.table_of(FuzzPlan)] = FuzzPlan()  # frozen

    def __post_init__(self) -> None:
        # The joined pattern may be invalid although each pattern is valid.
        fields.pattern(joined_pattern(self.volatile).decode(), "volatile")


read_profile_table = fields.table_of(Profile)


def find_profile(name: str) -> Profile:
    """Return the profile that the user named.

    Args:
        name: a shipped profile, "" for the plain one, or a path that ends in .toml.

    Raises:
        FormatError: the profile does not exist, or is invalid.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    return _shipped(name, "does not end in .toml")


def profile_named(name: str) -> Profile:
    """Return the profile that a transcript names, which must be a shipped one.

    A profile has the command of a server, and an untrusted transcript must not select
    the command to run: FormatError.
    """
    return _shipped(name, "only --profile FILE.toml reads another one")


def read_profile(path: Path) -> Profile:
    """Return the profile at *path*; raise FormatError if that fails."""
    try:
        table = tomllib.loads(path.read_text("utf8"))
        return read_profile_table({"name": path.stem, **table}, "")
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"profile {path}: {error}") from error


def _shipped(name: str, otherwise: str) -> Profile:
    shipped = {path.stem: path for path in sorted(PROFILES.glob("*.toml"))}
    plain = Profile()
    if name in ("", plain.name):
        return plain
    if name not in shipped:
        known = ", ".join((plain.name, *shipped))
        raise FormatError(f"profile {name[:60]!r} is none of {known}, and {otherwise}")
    return read_profile(shipped[name])
