"""Texts of a user become values, or an error with the rule and the value."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.values import Range, address, byte_count, byte_string, file_name


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("out", b"out"),
        (r"/quit\r\n", b"/quit\r\n"),
        (r"\x00\xff\0\t\\", b"\x00\xff\0\t\\"),
        (r"\\n", b"\\n"),
        ("再见", "再见".encode()),
        (os.fsdecode(b"\xff\xfe"), b"\xff\xfe"),
    ],
)
def test_bytes_are_written_with_a_few_escapes(text: str, data: bytes) -> None:
    assert byte_string(text) == data


@pytest.mark.parametrize(
    "text", ["", "\\", r"\q", r"\x", r"\x1", r"\xgg", r"\u4f60", r"\N{DIGIT ONE}"]
)
def test_any_other_escape_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"must have|escapes must be"):
        byte_string(text)


@given(st.binary(min_size=1))
def test_every_terminator_can_be_written(data: bytes) -> None:
    assert byte_string("".join(f"\\x{byte:02x}" for byte in data)) == data


def test_range_has_no_bool_and_only_its_numbers() -> None:
    numbers = Range(2, 3, or_zero=True)
    assert [n for n in (0, 1, 2, 2.5, 3, 4) if numbers.has(n)] == [0, 2, 2.5, 3]
    assert not Range(0, 1, whole=True).has(True)
    assert not Range(0, 1, whole=True).has(1.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
        (":80", ("127.0.0.1", 80)),
        ("80", ("127.0.0.1", 80)),
    ],
)
def test_address_may_omit_a_default_host(text: str, value: tuple[str, int]) -> None:
    assert address(text, "127.0.0.1") == value


@pytest.mark.parametrize("text", ["80", ":80", "localhost:", "a:65536", "a:-1", ""])
def test_address_without_host_or_port_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be .*, got "):
        address(text)


def test_byte_count_has_units_of_1024() -> None:
    assert [byte_count(each) for each in ("7", "4K", "64m", "1G", "1.5K", "", "K")] == [
        7,
        4096,
        64 << 20,
        1 << 30,
        -1,
        -1,
        -1,
    ]


def test_empty_file_name_is_an_error() -> None:
    assert file_name("-") == "-"
    with pytest.raises(ValueError, match="must be the name of a file, got ''"):
        file_name("")
