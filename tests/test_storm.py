"""A small storm; ``python -m tests.storm`` is the long run."""

from __future__ import annotations

import sys

import pytest

from tests.storm import A_WORD, storm


@pytest.mark.skipif(sys.platform != "linux", reason="needs many loopback addresses")
def test_vanishing_clients_cost_the_others_nothing(loop: str) -> None:
    result = storm(loop, connections=600)
    assert result.opened == 600
    assert result.words == 600 // A_WORD
