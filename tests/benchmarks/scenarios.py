"""The scenarios, by name.

Rule: a name contains all parameters. ``room-20-2`` is not in USUAL, and works too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["USUAL", "Scenario", "UnknownScenarioError", "scenario"]

# Active clients beside the idle ones.
ACTIVE_BESIDE_IDLE = 10

# Simultaneous visits: 20 clients are in the room, five join or leave.
VISITORS = 25

FLOOD_RECEIVERS = 10


class Scenario(NamedTuple):
    """A row of the table.

    Attributes:
        kind: the first word of the name.
        protocol: "room" or "echo".
        clients: simultaneous connections, senders included.
        senders: number of them that send.
        unit: the counted unit.
    """

    name: str
    kind: str
    protocol: str
    clients: int
    senders: int
    unit: str

    @property
    def about(self) -> str:
        """Describe the scenario in a few words."""
        return {
            "room": f"a room of {self.clients}, {self.senders} of them send",
            "echo": f"{self.clients} clients, each waits for its echo",
            "idle": f"{self.senders} wait for their echo, "
            f"{self.clients - self.senders} are idle",
            "churn": f"connect, send once, leave; {self.senders} visits at a time",
            "flood": f"one sends 1 KiB without a pause, {self.clients - 1} receive",
            "memory": f"a room of {self.clients} silent clients",
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
    """Return the scenario of that name.

    Raises:
        UnknownScenarioError: no scenario has this name.
    """
    kind, *sizes = name.split("-")
    if all(re.fullmatch(r"[1-9]\d{0,3}", size) for size in sizes):
        match kind, [int(size) for size in sizes]:
            case "room", [clients, senders] if senders <= clients:
                return Scenario(name, kind, "room", clients, senders, "deliveries")
            case "echo", [clients]:
                return Scenario(name, kind, "echo", clients, clients, "round trips")
            case "idle", [idle]:
                clients = idle + ACTIVE_BESIDE_IDLE
                senders = ACTIVE_BESIDE_IDLE
                return Scenario(name, kind, "echo", clients, senders, "round trips")
            case "churn", []:
                # One more client stays and receives.
                return Scenario(name, kind, "room", VISITORS + 1, VISITORS, "visits")
            case "flood", []:
                clients = FLOOD_RECEIVERS + 1
                return Scenario(name, kind, "room", clients, 1, "deliveries")
            case "memory", [clients]:
                return Scenario(name, kind, "room", clients, 0, "connections")
    raise UnknownScenarioError(
        f"scenario must be one of {', '.join(USUAL)}, also with other numbers from 1 "
        f"to 9999, got {name!r}"
    )
