"""A profile is complete and right, or the error says what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from legacy_chat.baseline import FormatError, Profile, find_profile


def written(folder: Path, text: str) -> Profile:
    path = folder / "mine.toml"
    path.write_text(text, "utf8")
    return find_profile(str(path))


@pytest.mark.parametrize("name", ["tutorial", "lines"])
def test_the_shipped_ones_are_found_by_name(name: str) -> None:
    assert find_profile(name).name == name


def test_one_beside_the_transcript_is_found_by_name(tmp_path: Path) -> None:
    written(tmp_path, 'leave = "bye"')
    assert find_profile("mine", tmp_path) == Profile("mine", leave=b"bye")


def test_whatever_is_missing_has_a_default(tmp_path: Path) -> None:
    assert written(tmp_path, "") == Profile("mine")
    profile = written(tmp_path, '[fuzz]\nwords = ["a", {base64 = "/w=="}]')
    assert profile.fuzz.words == (b"a", b"\xff")
    assert profile.fuzz.actions == Profile().fuzz.actions


def test_weights_that_are_not_named_are_nothing(tmp_path: Path) -> None:
    profile = written(tmp_path, "[fuzz.messages]\nwords = 2")
    assert profile.fuzz.messages == {"pieces": 0, "words": 2, "long": 0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('framing = "packet"', "'packet' is none of segment, stream"),
        ("frame = 1", "'frame' is none of name, framing"),
        ('[fence]\nsay = "hello"', "must have {n}"),
        ('[[volatile]]\nname = "id"', "needs a pattern"),
        ('[[volatile]]\nname = "id1"\npattern = "x"', "without braces or digits"),
        ('[[volatile]]\nname = "id"\npattern = "("', "unterminated"),
        (
            '[[volatile]]\nname = "id"\npattern = "x"\nbind = "none"',
            "none of each, any",
        ),
        ("[fuzz.actions]\nshout = 1", "'shout' is none of open, send"),
        ("[fuzz]\nnever = ['(']", "unterminated"),
        ("[fuzz.actions]\nsend = 0", "not all 0"),
        ("[fuzz]\nwords = []", "nothing to say"),
        ("volatile = 5", "not iterable"),
        ("name = ", "Invalid value"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        written(tmp_path, text)


@pytest.mark.parametrize("name", ["nobody", "nowhere.toml"])
def test_one_that_is_missing_is_an_error(name: str) -> None:
    with pytest.raises(FormatError, match=name):
        find_profile(name)
