"""Every wait of a pool ends, also while the server sends without end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from legacy_chat.baseline import ReplayError
from legacy_chat.baseline.replay import client_pool
from legacy_chat.baseline.replay.client_pool import Client, ClientPool

Lockstep = tuple[ClientPool, Client]


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lockstep]:
    """A client whose server sends without end and reads nothing."""
    monkeypatch.setattr(client_pool, "STEP_SIZE", 1 << 40)
    people = ClientPool(timeout=0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    client = people.add("a", ours)

    def talk() -> None:
        try:
            while True:
                theirs.sendall(b"tick" * 10_000)
        except OSError:
            # The pool has closed its end.
            theirs.close()

    thread = threading.Thread(target=talk)
    thread.start()
    yield people, client
    people.close()
    thread.join()


def test_until_ends_while_data_arrives(talker: Lockstep) -> None:
    people, client = talker
    assert people.until([client], lambda each: False) == [client]
    assert client.received


def test_send_fails_while_data_arrives(talker: Lockstep) -> None:
    people, client = talker
    with pytest.raises(ReplayError, match=r"accepts no more data from a for 0\.1 s"):
        people.send(client, b"x" * 100_000_000)


def test_step_larger_than_limit_is_an_error(
    talker: Lockstep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_pool, "STEP_SIZE", 1 << 20)
    people, client = talker
    people.timeout = 60.0
    with pytest.raises(ReplayError, match="sent more than 1 MiB in one step"):
        people.until([client], lambda each: False)
    assert len(client.received) <= (1 << 20) + client_pool.READ_SIZE
