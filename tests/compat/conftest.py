"""Fixtures of the TLS tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.secure import KINDS, tcp_pair


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """Each kind of async_chat, with the mixin."""
    return KINDS[request.param]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection with small buffers."""
    with tcp_pair() as ends:
        yield ends
