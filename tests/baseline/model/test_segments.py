"""However a message is cut, its pieces are the message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legacy_chat.baseline.model.segments import cut, read_cut


@given(st.binary(), st.sampled_from(["", "every byte", "at 0 3 99", "random 7"]))
def test_pieces_join_to_the_message(data: bytes, how: str) -> None:
    pieces = cut(data, how)
    assert b"".join(pieces) == data
    assert all(pieces)


def test_cut_splits_at_the_requested_places() -> None:
    assert cut(b"hello", "every byte") == [b"h", b"e", b"l", b"l", b"o"]
    assert cut(b"hello", "at 1 4") == [b"h", b"ell", b"o"]
    assert cut(b"hello" * 9, "random 1") == cut(b"hello" * 9, "random 1")
    assert cut(b"hello" * 9, "random 1") != cut(b"hello" * 9, "random 2")


@pytest.mark.parametrize("how", ["at", "at x", "random", "random 1 2", "every", "5"])
def test_unknown_way_to_cut_is_an_error(how: str) -> None:
    with pytest.raises(ValueError, match="every byte"):
        cut(b"hello", how)
    with pytest.raises(ValueError, match="mine must be one of"):
        read_cut(how, "mine")
