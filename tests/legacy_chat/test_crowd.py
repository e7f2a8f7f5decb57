"""A full room: as many concurrent clients as each loop is meant for.

Each client receives every message, counted to the byte.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import DEADLINE, Peer, room

CROWD = {"select": 900, "poll": 3000, "selectors": 3000}
MESSAGES = ("大家好!", "nice to see you all.", "😀 bye.")


def allow(sockets: int) -> None:
    """Raise this process's descriptor limit; the server raises its own."""
    resource = pytest.importorskip("resource")
    wanted = sockets + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{sockets} clients need a higher ulimit -Hn than {hard}")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@contextmanager
def connected(address: tuple[str, int], count: int) -> Iterator[list[Peer]]:
    peers: list[Peer] = []
    try:
        while len(peers) < count:
            peers.append(Peer(address))
        yield peers
    finally:
        for peer in peers:
            peer.close()


def receive_all(peers: list[Peer], sizes: list[int]) -> None:
    """Receive until every peer has that number of bytes."""
    with selectors.DefaultSelector() as selector:
        waiting = 0
        for peer, size in zip(peers, sizes, strict=True):
            if len(peer.got) < size:
                waiting += 1
                selector.register(peer.sock, selectors.EVENT_READ, (peer, size))
        while waiting:
            ready = selector.select(DEADLINE)
            assert ready, f"{waiting} peers wait in vain"
            for key, _ in ready:
                peer, size = key.data
                peer.receive()
                assert not peer.ended
                if len(peer.got) >= size:
                    waiting -= 1
                    selector.unregister(peer.sock)


@pytest.mark.timeout(120)
def test_every_client_of_a_full_room_gets_every_message(loop: str) -> None:
    crowd = CROWD[loop]
    allow(crowd)
    with (
        room(loop, "--backlog", "4096") as (_, address),
        connected(address, crowd) as peers,
    ):
        first, last = peers[0], peers[-1]
        # When the last client's own words return, all clients are in the room.
        last.send("in.")
        last.wait_for("in.")
        expected = dict.fromkeys(peers, f"用户{last.name} 说:in.")
        expected[last] = "in."
        for speaker, text in zip(
            (first, peers[crowd // 2], last), MESSAGES, strict=True
        ):
            speaker.send(text)
            for peer in peers:
                said = text if peer is speaker else f"用户{speaker.name} 说:{text}"
                expected[peer] += said
            sizes = [len(expected[peer].encode()) for peer in peers]
            receive_all(peers, sizes)
        assert all(peer.got.decode() == expected[peer] for peer in peers)


def test_client_beyond_the_limit_of_select_is_refused() -> None:
    allow(1100)
    with (
        room("select", "--backlog", "4096") as (server, address),
        connected(address, 1030) as peers,
    ):
        server.wait_for("cannot accept", err=True)
        first = peers[0]
        first.send("still served.")
        first.wait_for("still served.")
        assert peers[-1].wait_for_end().decode() == "服务器 说:服务器繁忙"
        for peer in peers[1:101]:
            peer.close()
        # The turn that reads this word detects the closed peers; the next turn detects
        # those that were sent data in that turn.
        for word in ("one.", "two."):
            first.send(word)
            first.wait_for(word)
        late = Peer(address)
        late.send("in at last.")
        first.wait_for("in at last.")
        late.close()


def test_peer_reads_from_a_plain_socket() -> None:
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    theirs.send(b"hi!")
    assert peer.wait_for("hi!") == b"hi!"
    theirs.close()
    assert peer.wait_for_end() == b"hi!"
    ours.close()
