"""The harness: it leaves nothing behind, and each peer has another port."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from legacy_chat.lessons.engine.harness import Harness, ScenarioError


def test_harness_leaves_nothing_behind(loop: str) -> None:
    stdout, open_files = sys.stdout, count_descriptors()
    with Harness(loop) as harness:
        harness.open_room()
        harness.join("ann").send("hi")
        assert harness.map
    assert sys.stdout is stdout
    assert harness.map == {}
    assert count_descriptors() == open_files


def test_peers_of_two_rooms_have_different_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports: list[int] = []

    class Again(socket.socket):
        """A socket class that can get the port of another room's peer."""

        def bind(self, address: Any) -> None:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            super().bind((address[0], ports.pop() if ports else address[1]))

        def connect(self, address: Any) -> None:
            if not self.getsockname()[1]:
                self.bind(("127.0.0.1", 0))
            super().connect(address)

    with Harness("select") as harness:
        harness.open_room()
        monkeypatch.setattr(socket, "socket", Again)
        ann = harness.join("ann")
        monkeypatch.undo()
        harness.open_room()
        monkeypatch.setattr(socket, "socket", Again)
        ports.append(ann.port)
        bob = harness.join("bob")
        assert not ports
        assert bob.port != ann.port
        assert harness.session(bob).server is harness.room


def test_wait_that_times_out_names_the_peer(loop: str) -> None:
    with Harness(loop) as harness:
        harness.open_room()
        ann = harness.join("ann")
        ann.sock.settimeout(0.05)
        with pytest.raises(ScenarioError, match="ann timed out waiting"):
            ann.receive("a word")


def count_descriptors() -> int:
    """Return the number of this process's descriptors, where the system has it."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
