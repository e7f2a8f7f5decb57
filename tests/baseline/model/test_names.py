"""Names stand for values, and received text is never mistaken for a name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from legacy_chat.baseline.model.names import Names, Volatile

ADDRESS = Volatile("client", rb"<(?P<value>[0-9.:]+)>", "address", "{ip}:{port}")
TOKEN = Volatile("token", rb"[0-9a-f]{8}")
TIME = Volatile("time", rb"\d\d:\d\d", "any")


def names() -> Names:
    bound = Names([ADDRESS, TOKEN, TIME])
    bound.bind_client("a", "127.0.0.1", 5000)
    return bound


def test_only_addresses_of_clients_are_replaced() -> None:
    assert names().to_names(b"<127.0.0.1:5000> hi") == b"<{a}> hi"
    assert names().to_names(b"<127.0.0.1:5001> hi") == b"<127.0.0.1:5001> hi"
    assert names().to_names(b"127.0.0.1:5000 hi") == b"127.0.0.1:5000 hi"


def test_equal_values_have_the_same_name() -> None:
    answers = names().to_names(b"aaaaaaaa bbbbbbbb aaaaaaaa")
    assert answers == b"{token1} {token2} {token1}"


def test_all_times_have_one_name() -> None:
    assert names().to_names(b"from 12:00 to 13:30") == b"from {time} to {time}"


def test_a_value_can_be_sent_back_by_its_name() -> None:
    bound = names()
    bound.to_names(b"your token: cafe0001")
    assert bound.to_values(b"AUTH {token1} {token2} {a}") == (
        b"AUTH cafe0001 {token2} 127.0.0.1:5000"
    )


def test_sent_data_binds_no_names() -> None:
    bound = names()
    assert bound.to_names(b"cafe0001 12:00", new=False) == b"cafe0001 12:00"
    bound.to_names(b"cafe0001")
    assert bound.to_names(b"cafe0001", new=False) == b"{token1}"


def test_literal_braces_are_escaped() -> None:
    assert names().to_names(b"{a} {b} {{}") == b"{{}a} {b} {{}{}"


@given(st.lists(st.sampled_from([b"{", b"}", b"a", b"b", b"<127.0.0.1:5000>", b"x"])))
def test_received_data_round_trips_through_its_names(pieces: list[bytes]) -> None:
    bound = names()
    data = b"".join(pieces)
    assert bound.to_values(bound.to_names(data)) == data


@given(st.lists(st.sampled_from(["{", "}", "{a}", "a", "<127.0.0.1:5000>"])))
def test_different_bytes_have_different_names(pieces: list[str]) -> None:
    data = "".join(pieces).encode()
    literal = data.replace(b"<127.0.0.1:5000>", b"<{a}>")
    assert names().to_names(data) != names().to_names(literal) or data == literal
