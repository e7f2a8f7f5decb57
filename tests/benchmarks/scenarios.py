"""What the servers are put through, by name.

Rule: a name says all of it. ``room-20-2`` is none of the usual scenarios, but is
understood as they are.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["USUAL", "Scenario", "UnknownScenarioError", "scenario"]

# Idle clients have some beside them that are not.
ACTIVE_BESIDE_IDLE = 10

# Visits that are under way at a time: 20 are in the room, five come or go.
VISITORS = 25

FLOOD_LISTENERS = 10


class Scenario(NamedTuple):
    """A row of the table.

    Attributes:
        kind: the word that the name begins with.
        protocol: what the server speaks: "room" or "echo".
        clients: connections at a time, those of *speakers* among them.
        speakers: how many of them say something.
        unit: what is counted.
    """

    name: str
    kind: str
    protocol: str
    clients: int
    speakers: int
    unit: str

    @property
    def about(self) -> str:
        """The scenario in a few words."""
        return {
            "room": f"a room of {self.clients}, {self.speakers} of them speak",
            "echo": f"{self.clients} clients, each plays ping-pong",
            "idle": f"{self.speakers} play ping-pong, {self.clients - self.speakers} "
            "are idle",
            "churn": f"come, speak once, leave; {self.speakers} visits at a time",
            "flood": f"one sends all it can, {self.clients - 1} listen; 1 KiB each",
            "memory": f"a room of {self.clients} that say nothing",
        }[self.kind]


class UnknownScenarioError(ValueError):
    """No scenario has this name."""


USUAL = (
    "room-100-1",
    "room-100-10",
    "room-100-100",
    "room-500-50",
    "echo-10",
    "echo-100",
    "echo-900",
    "idle-10",
    "idle-900",
    "idle-5000",
    "idle-9000",
    "churn",
    "flood",
    "memory-5000",
)


def scenario(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UnknownScenarioError: there is none.
    """
    kind, *sizes = name.split("-")
    if all(re.fullmatch(r"[1-9]\d{0,3}", size) for size in sizes):
        match kind, [int(size) for size in sizes]:
            case "room", [clients, speakers] if speakers <= clients:
                return Scenario(name, kind, "room", clients, speakers, "deliveries")
            case "echo", [clients]:
                return Scenario(name, kind, "echo", clients, clients, "round trips")
            case "idle", [idle]:
                clients = idle + ACTIVE_BESIDE_IDLE
                speakers = ACTIVE_BESIDE_IDLE
                return Scenario(name, kind, "echo", clients, speakers, "round trips")
            case "churn", []:
                # And one that stays and listens.
                return Scenario(name, kind, "room", VISITORS + 1, VISITORS, "visits")
            case "flood", []:
                clients = FLOOD_LISTENERS + 1
                return Scenario(name, kind, "room", clients, 1, "deliveries")
            case "memory", [clients]:
                return Scenario(name, kind, "room", clients, 0, "connections")
    raise UnknownScenarioError(
        f"{name!r} is no scenario; these are: {', '.join(USUAL)}; "
        "other numbers from 1 to 9999 may stand in the place of theirs"
    )
