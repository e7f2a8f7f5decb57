"""READMEs: links resolve, contents lists are complete, both languages agree."""

from __future__ import annotations

import re

import pytest

from tests.readmes import (
    CHINESE,
    CODE,
    ENGLISH,
    LINK,
    PAGES,
    TRANSLATED,
    Section,
    anchor,
    chinese,
    path_of,
    sections,
    target,
    text_of,
)
from tests.support import ROOT

TOP = "README.md"
PAIRS = [(page, chinese(page)) for page in ENGLISH[: len(TRANSLATED)]]

# Words before the first command of the README at the top, and its lines.
WORDS, LINES = 100, 220

# Prose inside code blocks: comments, and the labels of a chart's arrows.
PROSE = re.compile(r'(^|(?<=\s))#\s.*$|(?<=\|)"[^"]*"(?=\|)', re.MULTILINE)

FIGURE = re.compile(r"\d[\d,.]*(?<=\d)")


def links(text: str) -> list[str]:
    return [link for link in LINK.findall(text) if "://" not in link]


def section_pairs(english: str, chinese: str) -> list[tuple[Section, Section]]:
    return list(zip(sections(english), sections(chinese), strict=True))


def test_readme_at_the_top_is_short_and_begins_with_a_command() -> None:
    assert len(text_of(TOP).splitlines()) <= LINES
    assert len(text_of(TOP).partition("```sh\n")[0].split()) <= WORDS


def test_pages_are_all_readmes_of_the_checkout() -> None:
    folders = ("compat", "legacy_chat", "tests")
    found = [*ROOT.glob("README*.md")]
    found += [path for name in folders for path in (ROOT / name).rglob("README*.md")]
    assert {path.relative_to(ROOT).as_posix() for path in found} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: str) -> None:
    found = [link for link in links(text_of(page)) if not link.startswith("#")]
    assert found
    assert [link for link in found if not target(page, link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_anchors_of_links_are_headings(page: str) -> None:
    for link in links(text_of(page)):
        path, _, wanted = link.partition("#")
        if wanted:
            read = (target(page, path) if path else path_of(page)).resolve()
            titles = re.findall(r"^#+ (.*)$", read.read_text("utf-8"), re.MULTILINE)
            assert wanted in map(anchor, titles), link


@pytest.mark.parametrize("page", PAGES)
def test_contents_list_names_every_section(page: str) -> None:
    titles = [each.title for each in sections(page) if each.level == 2]
    contents = [link[1:] for link in links(sections(page)[0].prose) if link[0] == "#"]
    assert contents == [anchor(title) for title in titles]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_pages_of_both_languages_link_to_each_other(english: str, chinese: str) -> None:
    assert "README.zh-CN.md" in links(sections(english)[0].prose)
    assert "README.md" in links(text_of(chinese)[:200])


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_sections_are_the_same_in_both_languages(english: str, chinese: str) -> None:
    levels = [[each.level for each in sections(page)] for page in (english, chinese)]
    assert levels[0] == levels[1]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_code_is_the_same_in_both_languages(english: str, chinese: str) -> None:
    for one, other in section_pairs(english, chinese):
        codes = [
            [(language, PROSE.sub("", text)) for language, text in each.blocks]
            for each in (one, other)
        ]
        assert codes[0] == codes[1]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_figures_of_tables_are_the_same_in_both_languages(
    english: str, chinese: str
) -> None:
    for one, other in section_pairs(english, chinese):
        figures = [
            [sorted(FIGURE.findall(row)) for row in each.rows()]
            for each in (one, other)
        ]
        assert figures[0] == figures[1]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_code_and_links_in_prose_are_the_same_in_both_languages(
    english: str, chinese: str
) -> None:
    for one, other in section_pairs(english, chinese):
        assert {*CODE.findall(one.prose)} == {*CODE.findall(other.prose)}, one.title
        targets = [
            {
                link.partition("#")[0].replace(".zh-CN", "")
                for link in links(each.prose)
                if link not in ("README.md", "README.zh-CN.md")
            }
            for each in (one, other)
        ]
        assert targets[0] == targets[1], one.title


@pytest.mark.parametrize("page", CHINESE)
def test_chinese_pages_link_to_chinese_pages(page: str) -> None:
    for link in links(text_of(page)):
        path = link.partition("#")[0]
        if path.endswith("README.md") and path != "README.md":
            assert not target(
                page, path.replace("README.md", "README.zh-CN.md")
            ).exists()
