"""A profile is valid, or the error names the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from legacy_chat.baseline import FormatError, Profile, find_profile
from legacy_chat.baseline.model.profile import profile_named


def written(folder: Path, text: str) -> Profile:
    path = folder / "mine.toml"
    path.write_text(text, "utf8")
    return find_profile(str(path))


@pytest.mark.parametrize("name", ["tutorial", "lines"])
def test_shipped_profiles_are_found_by_name(name: str) -> None:
    assert find_profile(name).name == name


def test_profile_beside_the_transcript_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('server = "touch owned {port}"', "utf8")
    monkeypatch.chdir(tmp_path)
    assert find_profile("mine.toml").name == "mine"
    for name in ("mine", "mine.toml", "./mine.toml", str(path), "../mine"):
        with pytest.raises(FormatError, match=r"only --profile FILE\.toml reads"):
            profile_named(name)


def test_transcript_names_a_shipped_profile_or_none() -> None:
    assert profile_named("tutorial") == find_profile("tutorial")
    assert profile_named("") == profile_named("plain") == Profile()


def test_missing_fields_have_defaults(tmp_path: Path) -> None:
    assert written(tmp_path, "") == Profile("mine")
    profile = written(tmp_path, '[fuzz]\nwords = ["a", {base64 = "/w=="}]')
    assert profile.fuzz.words == (b"a", b"\xff")
    assert profile.fuzz.actions == Profile().fuzz.actions


def test_missing_weights_are_zero(tmp_path: Path) -> None:
    profile = written(tmp_path, "[fuzz.messages]\nwords = 2")
    assert profile.fuzz.messages == {"pieces": 0, "words": 2, "long": 0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('framing = "packet"', "framing must be one of segment, stream, got 'packet'"),
        ("frame = 1", "key must be one of name, framing, .* got 'frame'"),
        ('[barrier]\nsend = "hello"', "texts with {n}"),
        ('[[volatile]]\nname = "id"', "with a name and a pattern"),
        ('[[volatile]]\nname = "id1"\npattern = "x"', "without braces or digits"),
        ('[[volatile]]\nname = "id"\npattern = "("', "unterminated"),
        (
            '[[volatile]]\nname = "id"\npattern = "x"\nbind = "none"',
            "one of each, any",
        ),
        ("[fuzz.actions]\nshout = 1", "fuzz.actions key must be one of open, send"),
        ("[fuzz]\nnever = ['(']", "unterminated"),
        ("[fuzz.actions]\nsend = 0", "not all 0"),
        ("[fuzz]\nwords = []", "a text or a list of texts, got \\[\\]"),
        ("volatile = 5", "volatile must be a list, got 5"),
        ("name = 5", "name must be a text, got 5"),
        ("server = []", "server must be a text, got "),
        ("quiet = nan", "quiet must be a number from 0 to"),
        ("quiet = true", "quiet must be a number from 0 to"),
        ("patience = inf", "patience must be a number from 0 to"),
        ("barrier = 1", "barrier must be a table, got 1"),
        (
            "[barrier]\nsend = '{n}'\nrounds = 0",
            "barrier.rounds must be a whole number from 1",
        ),
        ("[barrier]\nsend = '{n}'\nreceive = []", "a text or a list of texts"),
        ("[barrier]\nsend = '{n}'\nwelcome = 1", "barrier.welcome must be a text"),
        ("[barrier]\nsend = '{n}'\nrounds = 1.5", "whole number"),
        ('[[volatile]]\nname = "x"\npattern = 5', "volatile.pattern must be a text"),
        ('[[volatile]]\nname = "x"\npattern = "a{9999999999999}"', "too large"),
        ('[[volatile]]\nname = "x"\npattern = "(?i)a"', "global flags"),
        (2 * '[[volatile]]\nname = "x"\npattern = "(?P<n>a)"\n', "redefinition"),
        ("[fuzz]\nfill = ['', 'x']", "at least one byte"),
        ("[fuzz]\nlongest = 99999999999", "fuzz.longest must be a whole number"),
        ("[fuzz.actions]\nsend = inf", "fuzz.actions.send must be a number from 0"),
        ("[fuzz.messages]\nwords = 'x'", "fuzz.messages.words must be a number from 0"),
        ("leave = " + 100_000 * "[", "recursion"),
        ("quiet = " + 5000 * "9", "4300"),
        ("name = ", "Invalid value"),
    ],
)
def test_invalid_profile_is_an_error_with_its_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    with pytest.raises(FormatError, match=why):
        written(tmp_path, text)


@pytest.mark.parametrize("name", ["nobody", "nowhere.toml"])
def test_missing_profile_is_an_error(name: str) -> None:
    with pytest.raises(FormatError, match=name):
        find_profile(name)
