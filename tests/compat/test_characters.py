"""Untrusted text cannot control a terminal, and keeps the characters that it needs."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.characters import one_line, visible

UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


@given(st.text())
def test_escapes_leave_no_invisible_characters(text: str) -> None:
    for each in (one_line(text), *re.split("[\n\t]", visible(text))):
        left = {c for c in each if unicodedata.category(c) in UNSEEN}
        assert left <= {"\u200c", "\u200d"}
    assert "\n" not in one_line(text)
    assert visible(text.replace("\\", "")).count("\n") == text.count("\n")


def test_characters_between_letters_are_seen_or_escapes() -> None:
    fillers = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u3164\ufe0f\uffa0\U000e0100"
    every = [*map(chr, range(sys.maxunicode + 1))]
    hidden = [each for each in every if unicodedata.category(each) in UNSEEN]
    assert one_line("a".join([*hidden, *fillers])).isascii()
    seen = "a".join(each for each in every if unicodedata.category(each)[0] in "NPSZL")
    seen = re.sub("[\u2028\u2029\u115f\u1160\u3164\uffa0]", "", seen)
    assert one_line(seen) == seen


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0647\u200d",
        "\u0915\u094d\u200d\u0937 \u0915\u094d\u200c\u0937",
        "\u1820\u180b",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f469\U0001f3fd\u200d\U0001f680",
        "1\ufe0f\u20e3 \u2764\ufe0e \u845b\U000e0100",
        "\u3000\u00a0\u202f",
    ],
)
def test_text_keeps_the_joiners_and_selectors_it_needs(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200db\ufe0f", r"a\u200db\ufe0f"),
        ("\u200d \u200c", r"\u200d \u200c"),
        ("\U0001f642\ufe0f\ufe00", "\U0001f642\ufe0f" + r"\ufe00"),
        ("\u0915\u200d\u200d", "\u0915\u200d" + r"\u200d"),
        ("\u4f60\u200d", "\u4f60" + r"\u200d"),
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4" + r"\U000e0067\U000e007f"),
        ("\u200b\ufeff\xad\u206a\ufff9", r"\u200b\ufeff\xad\u206a\ufff9"),
    ],
)
def test_joiners_and_selectors_elsewhere_are_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown
