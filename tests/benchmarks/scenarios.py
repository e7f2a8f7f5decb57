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

# Solitary visits at a time, enough for a server that is always busy.
SLOTS = 8

FLOOD_RECEIVERS = 10

# A kind, and the sizes from 1 to 9999.
NAME = re.compile(r"([a-z]+(?:-[a-z]+)?)((?:-[1-9]\d{0,3})*)")


class Scenario(NamedTuple):
    """A row of the table.

    Attributes:
        kind: the name without its numbers.
        protocol: "room", "room_echo" or "echo"; "" for no server.
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
            "room-echo": f"a room without broadcasts, {self.clients} wait for "
            "their echo",
            "room-idle": f"a room without broadcasts, {self.senders} wait for their "
            f"echo, {self.clients - self.senders} are idle",
            "visits": f"connect, send once, leave; alone, {self.clients} at a time",
            "frames": f"CPU µs of loop(timeout=0, count=1), {self.clients} silent "
            "channels",
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
    "room-echo-100",
    "room-idle-10",
    "room-idle-9000",
    "visits",
    "visits-1",
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
    "frames-100",
    "frames-480",
    "frames-1000",
)


def scenario(name: str) -> Scenario:
    """Return the scenario of that name.

    Raises:
        UnknownScenarioError: no scenario has this name.
    """
    if split := NAME.fullmatch(name):
        kind = split[1]
        match kind, [int(size) for size in split[2].split("-")[1:]]:
            case "room", [clients, senders] if senders <= clients:
                return Scenario(name, kind, "room", clients, senders, "deliveries")
            case "echo" | "room-echo", [clients]:
                protocol = kind.replace("-", "_")
                return Scenario(name, kind, protocol, clients, clients, "round trips")
            case "idle" | "room-idle", [idle]:
                protocol = "echo" if kind == "idle" else "room_echo"
                senders = ACTIVE_BESIDE_IDLE
                clients = idle + senders
                return Scenario(name, kind, protocol, clients, senders, "round trips")
            case "visits", [] | [_] as slots:
                number = slots[0] if slots else SLOTS
                # One visitor is alone in the room itself.
                protocol = "room" if number == 1 else "room_echo"
                return Scenario(name, kind, protocol, number, number, "visits")
            case "churn", []:
                # One more client stays and receives.
                return Scenario(name, kind, "room", VISITORS + 1, VISITORS, "visits")
            case "flood", []:
                clients = FLOOD_RECEIVERS + 1
                return Scenario(name, kind, "room", clients, 1, "deliveries")
            case "memory", [clients]:
                return Scenario(name, kind, "room", clients, 0, "connections")
            case "frames", [channels]:
                return Scenario(name, kind, "", channels, 0, "calls")
    raise UnknownScenarioError(
        f"scenario must be one of {', '.join(USUAL)}, also with other numbers from 1 "
        f"to 9999, got {name!r}"
    )
