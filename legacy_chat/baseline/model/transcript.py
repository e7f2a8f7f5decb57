"""Transcripts: the actions of clients, and the data that each client received.

Rule: data is compared as one byte string per client and step, with the end of the
connection. Packets and times are not part of a transcript.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from legacy_chat.baseline.model import fields
from legacy_chat.baseline.model.segments import read_cut

__all__ = [
    "FRAMINGS",
    "LONGEST_QUIET",
    "Action",
    "Answers",
    "Received",
    "Step",
    "Transcript",
    "TranscriptHeader",
    "joined",
    "numbered",
]

# Whether the cut of a message into segments matters: yes, or no.
FRAMINGS = ("segment", "stream")

# The maximum of quiet, in seconds.
LONGEST_QUIET = 3600.0

# An address or a name. It replaces {host} in a command, and must not be an option.
HOST = r"([\w:][\w.:%-]*)?"


@dataclass(frozen=True)
class Action:
    """The action of a client in a step.

    Attributes:
        do: "open", "send", "drop" (close), "reset", "half-close".
        data: the data to send; a drop or a half-close follows it without a wait.
        cut: the cut of the data into segments, see segments.py; "" for one segment.
    """

    client: str
    do: str
    data: bytes = b""
    cut: str = ""


class Received(NamedTuple):
    """The data that one client received in a step, and the end of its connection.

    Attributes:
        end: one of fields.ENDS; "" while the connection is open.
    """

    data: bytes = b""
    end: str = ""


# The data of a step, by client. A client that received nothing is not in it.
Answers = dict[str, Received]


class Step(NamedTuple):
    """An action, and the data that it caused, by client in the order of arrival."""

    action: Action
    answers: Answers


@dataclass(frozen=True)
class TranscriptHeader:
    """The properties of a whole transcript.

    Attributes:
        profile: the name of the profile of the recording.
        framing: "segment": the same bytes in other segments are another conversation;
            "stream": the cut must not matter. "" for the profile's framing.
        cut: the cut of every send without its own.
        host: the address that the clients connect to, if not the server's own.
        witness: whether the data of the barrier's witness is included.
        quiet: seconds without data that ended a step; 0 if a barrier did.
    """

    title: fields.Text = ""
    recorded_from: fields.Text = ""
    profile: fields.Text = ""
    framing: Annotated[str, fields.one_of("", *FRAMINGS)] = ""
    cut: Annotated[str, read_cut] = ""
    host: Annotated[str, fields.matching(HOST, "an address or a name")] = ""
    witness: Annotated[bool, fields.boolean] = False
    quiet: Annotated[float, fields.number(0, LONGEST_QUIET)] = 0.0


class Transcript(NamedTuple):
    """A header and the steps.

    Attributes:
        steps: for a file, each iteration reads them again.
    """

    header: TranscriptHeader
    steps: Iterable[Step]

    def clients(self) -> list[str]:
        """Return all clients, in the order of their appearance."""
        names: dict[str, None] = {}
        for action, answers in self.steps:
            names |= dict.fromkeys([action.client, *answers])
        return list(names)


def numbered(steps: Iterable[Step]) -> Iterator[tuple[int, bool, Step]]:
    """Yield each step with its number and whether it is the last."""
    at, before = 0, None
    for step in steps:
        if before is not None:
            yield at, False, before
        at, before = at + 1, step
    if before is not None:
        yield at, True, before


def joined(answers: Answers, late: Answers) -> Answers:
    """Return the data of a step with the late data added."""
    result = dict(answers)
    for name, (data, end) in late.items():
        before = result.get(name, Received())
        result[name] = Received(before.data + data, end or before.end)
    return result
