"""The READMEs name what exists, show what is printed, and agree with each other.

Rule: a README is read here as text, by its headings, tables, links and code. Only a
person can judge the quality of the Chinese translation.
"""

from __future__ import annotations

import ast
import asyncore
import functools
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import compat
import legacy_chat
from compat.trace import cli as views
from compat.trace.doctor import rules
from compat.trace.model import Turn
from compat.trace.reader import Reader, read_trace
from compat.trace.render.mermaid import diagram
from compat.trace.render.text import lines
from legacy_chat import cli as command
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.runner import play
from tests.soak import __main__ as soak
from tests.support import ROOT

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
BOTH = (ENGLISH, CHINESE)

# Sections by their position: their titles are translated.
SEE_IT, READ_IT = 3, 13

# Words before the first command, with the link to the other language.
SOON = 100

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)#]+)[^)]*\)")
CODE = re.compile(r"`([^`]+)`")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(
    r"(?:legacy-chat (?:baseline )?[a-z]+|python -m compat(?:\.trace [a-z]+)?)(?= |$)"
)

# Prose inside code blocks: comments, and the labels of a chart's arrows.
PROSE = re.compile(r'(^|(?<=\s))#\s.*$|(?<=\|)"[^"]*"(?=\|)', re.MULTILINE)

# Words that look like names: a letter of a message, asyncore's word for a dict.
WORDS = ("o", "map")


class Section(NamedTuple):
    """The text under a heading, up to the next heading.

    Attributes:
        blocks: language and text of the fenced blocks; prose: everything else.
    """

    level: int
    title: str
    blocks: list[tuple[str, str]]
    prose: str

    def rows(self) -> list[str]:
        """Return all rows of its tables, with heads and rules."""
        return [line for line in self.prose.splitlines() if line.startswith("|")]

    def tables(self) -> list[list[str]]:
        """Return the rows of each of its tables, without head and rule."""
        found = re.findall(r"(?:^\|.*\n)+", self.prose, re.MULTILINE)
        return [table.splitlines()[2:] for table in found]

    def items(self) -> list[str]:
        """Return the items of its numbered list, each on one line."""
        _, *found = re.split(r"^\d+\. ", self.prose, flags=re.MULTILINE)
        return [" ".join(each.split("\n\n")[0].split()) for each in found]


@functools.cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@functools.cache
def sections(name: str) -> list[Section]:
    blocks = iter(FENCE.findall(text_of(name)))
    text = FENCE.sub("\0", text_of(name))
    _, *parts = re.split(r"^(#+) (.*)\n", text, flags=re.MULTILINE)
    return [
        Section(
            len(parts[at]),
            parts[at + 1],
            [next(blocks) for _ in range(parts[at + 2].count("\0"))],
            parts[at + 2],
        )
        for at in range(0, len(parts), 3)
    ]


def pairs() -> list[tuple[Section, Section]]:
    return list(zip(sections(ENGLISH), sections(CHINESE), strict=True))


def place(link: str) -> Path:
    """Return the target of a relative link; the packages may be installed elsewhere."""
    package = {"compat": compat, "legacy_chat": legacy_chat}.get(link.split("/")[0])
    if package is None:
        return ROOT / link
    return Path(str(package.__file__)).parent.parent / link


def module(link: str) -> ModuleType:
    parts = Path(link).with_suffix("").parts
    return importlib.import_module(".".join(parts))


def is_in(modules: list[ModuleType], name: str) -> bool:
    """Return whether one of the modules, or of their classes, has that name."""
    scopes: list[Any] = list(modules)
    for each in modules:
        own = (value for value in vars(each).values() if isinstance(value, type))
        scopes += [value for value in own if value.__module__ == each.__name__]
    return any(_has(scope, name) for scope in scopes)


def _has(scope: Any, name: str) -> bool:
    for part in name.split("."):
        if not hasattr(scope, part):
            return part in getattr(scope, "__annotations__", {})
        scope = getattr(scope, part)
    return True


# Both READMEs agree.


def test_each_names_the_other_at_its_top() -> None:
    assert LINK.findall(text_of(CHINESE).splitlines()[0]) == [ENGLISH]
    assert CHINESE in LINK.findall(sections(ENGLISH)[0].prose.split("\n\n")[0])


def test_the_sections_are_the_same() -> None:
    assert [each.level for each in sections(ENGLISH)] == [
        each.level for each in sections(CHINESE)
    ]


def test_the_code_is_the_same_but_for_the_prose_in_it() -> None:
    for english, chinese in pairs():
        assert [
            (language, PROSE.sub("", text)) for language, text in chinese.blocks
        ] == [(language, PROSE.sub("", text)) for language, text in english.blocks]


def test_the_tables_have_the_same_rows_with_the_same_figures() -> None:
    figure = re.compile(r"\d[\d,.]*(?<=\d)")
    for english, chinese in pairs():
        assert [sorted(figure.findall(row)) for row in chinese.rows()] == [
            sorted(figure.findall(row)) for row in english.rows()
        ]


def test_names_and_links_are_the_same() -> None:
    for english, chinese in pairs():
        for pattern in (CODE, LINK):
            said = {*pattern.findall(english.prose)} - {CHINESE}
            assert {*pattern.findall(chinese.prose)} == said, english.title


# Everything that is named exists.


@pytest.mark.parametrize("name", BOTH)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    links = [link for link in LINK.findall(text_of(name)) if "://" not in link]
    assert len(links) > len(sections(name))
    assert [link for link in links if not place(link).exists()] == []


def test_there_is_something_to_run_soon() -> None:
    before = text_of(ENGLISH).partition("```sh\n")[0]
    assert len(before.split()) <= SOON


@pytest.mark.parametrize("name", BOTH)
def test_files_to_read_define_the_names_listed_for_them(name: str) -> None:
    section = sections(name)[READ_IT]
    files, _ = section.tables()
    described = [*files, *section.items()]
    assert (len(files), len(section.items())) == (9, 8)
    for each in described:
        links = LINK.findall(each)
        modules = [module(link) for link in links]
        for code in CODE.findall(each):
            if code in links or not NAME.fullmatch(code) or code in compat.LOOPS:
                continue
            if code.startswith("asyncore."):
                assert is_in([asyncore], code.removeprefix("asyncore."))
                continue
            assert is_in(modules, code) or code in WORDS, (code, each)


@pytest.mark.parametrize("name", BOTH)
def test_the_files_take_an_hour(name: str) -> None:
    files, _ = sections(name)[READ_IT].tables()
    assert sum(int(row.split("|")[1]) for row in files) == 60


@pytest.mark.parametrize("name", BOTH)
def test_life_of_a_message_names_functions_that_exist(name: str) -> None:
    section = sections(name)[READ_IT]
    links = [link for link in LINK.findall(section.prose) if "test" not in link]
    modules = [module(link) for link in links]
    [(language, chart)] = section.blocks
    named = re.findall(r'\["([\w.]+)"\]', chart)
    assert language == "mermaid"
    assert len(named) > 8
    assert [each for each in named if not is_in(modules, each)] == []


@pytest.mark.parametrize("name", BOTH)
def test_suggested_changes_and_their_tests_exist(name: str) -> None:
    _, changes = sections(name)[READ_IT].tables()
    for row in changes:
        _, where, old, new, _, notices, _ = row.split("|")
        [link] = LINK.findall(where)
        [code] = CODE.findall(old)
        source = place(link).read_text(encoding="utf-8")
        assert source.count(code) == 1, code
        for change in CODE.findall(new):
            ast.parse(change if not change.startswith("if ") else change + ": pass")
        tests = "".join(
            place(each).read_text(encoding="utf-8") for each in LINK.findall(notices)
        )
        names = re.findall(r"`(test_\w+)`", notices)
        assert names
        assert [each for each in names if f"def {each}(" not in tests] == []


# Commands and their options.


@pytest.fixture
def options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], set[str]]:
    """Return a function that lists the options in a command's help."""
    monkeypatch.setenv("COLUMNS", "200")

    def options(words: str) -> set[str]:
        main, *argv = words.removeprefix("python -m ").split()
        with pytest.raises(SystemExit) as left:
            MAINS[main]([*argv, "--help"])
        assert left.value.code == 0, words
        return set(OPTION.findall(capsys.readouterr().out))

    return options


def _compat_main(argv: list[str]) -> object:
    return importlib.import_module("compat.cli").main(argv)


MAINS: dict[str, Callable[[list[str]], object]] = {
    "legacy-chat": command.main,
    "compat": _compat_main,
    "compat.trace": views.main,
    "tests.soak": soak.main,
}

COMMANDS = [
    *(f"legacy-chat {each}" for each in ("serve", "connect", "lesson")),
    *(
        f"legacy-chat baseline {each}"
        for each in ("record", "check", "show", "diff", "fuzz", "minimise")
    ),
    "python -m compat",
    *(
        f"python -m compat.trace {each}"
        for each in ("text", "mermaid", "html", "perfetto", "doctor", "diff")
    ),
    "python -m tests.soak",
]


def commands(name: str) -> Iterator[tuple[str, str]]:
    """Yield each command in the text, with its arguments."""
    for line in re.sub(r"\n {8,}(?=\[--)", " ", text_of(name)).splitlines():
        for found in COMMAND.finditer(line):
            rest = re.split(r"[`#&]| \| ", line[found.end() :])[0]
            yield found[0], rest


def test_every_option_belongs_to_the_command_that_it_is_given_to(
    options: Callable[[str], set[str]],
) -> None:
    known = {each: options(each) for each in COMMANDS}
    seen = 0
    for words, rest in commands(ENGLISH):
        if words not in known:
            # "legacy-chat baseline" alone, and words of a sentence.
            assert not OPTION.findall(rest), (words, rest)
            continue
        seen += 1
        assert set(OPTION.findall(rest)) <= known[words], (words, rest)
    assert seen > 20
    everything = set().union(*known.values())
    assert set(OPTION.findall(text_of(ENGLISH))) <= everything


def test_the_views_are_those_that_there_are(
    capsys: pytest.CaptureFixture[str], options: Callable[[str], set[str]]
) -> None:
    shown, choices = sections(ENGLISH)[SEE_IT].tables()
    named = [CODE.findall(row)[0].split()[0] for row in shown]
    with pytest.raises(SystemExit):
        views.main(["--help"])
    printed = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert named == printed
    for view in named[:4]:
        assert {"--turns", "--channel", "--calls-only"} <= options(
            f"python -m compat.trace {view}"
        )
    for row in choices:
        option = CODE.findall(row)[0].split()[0]
        assert option in options("python -m compat")
        assert option in options("legacy-chat serve")


def test_the_lessons_are_those_that_there_are() -> None:
    said = " ".join(sections(CHINESE)[SEE_IT].prose.split())
    for number, lesson in enumerate(LESSONS, 1):
        title = lesson.title.zh.replace("，还是", "还是")
        assert f"{number} {title}" in said
    said = " ".join(sections(ENGLISH)[SEE_IT].prose.split()).lower()
    for number, lesson in enumerate(LESSONS, 1):
        assert f"{number} {lesson.title.en.lower()}" in said


# Shown output equals printed output.


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Turn], Any, Reader]:
    """Return turns 3 and 4 of lesson 2, its peers' ports, and the reader."""
    trace = tmp_path_factory.mktemp("readme") / "hello.trace"
    first, *_ = play(LESSONS[1], "selectors", trace)
    reader = Reader()
    turns = [turn for turn in read_trace(trace, reader) if turn.number in (3, 4)]
    return turns, first.seen.ports, reader


def test_the_picture_is_drawn_from_the_lesson(
    hello: tuple[list[Turn], Any, Reader],
) -> None:
    turns, ports, reader = hello
    drawn = re.sub(r", waited [\d.]+ \w+", "", diagram(turns, reader))
    for name, port in ports.items():
        peer = name.title()
        drawn = drawn.replace(f"用户127.0.0.1{port}", f"用户#123;{peer}#125;")
        drawn = drawn.replace(f"127.0.0.1:{port}", peer)
    drawn = re.sub(r"^.*: (Audience\.)?push\(.*\n", "", drawn, flags=re.MULTILINE)
    assert drawn == next(
        text for kind, text in sections(ENGLISH)[SEE_IT].blocks if kind == "mermaid"
    )


def test_the_trace_is_printed_so(hello: tuple[list[Turn], Any, Reader]) -> None:
    turns, _, reader = hello
    printed = "\n".join(lines(turns[0], reader))
    shown = next(
        text
        for kind, text in sections(ENGLISH)[SEE_IT].blocks
        if text.startswith("turn 3 ")
    )
    assert _uncounted(shown) == _uncounted(printed)


def _uncounted(text: str) -> list[str]:
    """Return the lines without times, ports and padding, which differ in each run."""
    text = re.sub(r"用户127\.0\.0\.1\d+", "用户", text)
    # A slow machine has other units, too.
    text = re.sub(r"[\d.]+ (s|µs|ms)\b", "TIME", text)
    text = re.sub(r"\.py:\d+", ".py", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_doctor_still_gives_that_advice() -> None:
    shown = next(
        text for _, text in sections(ENGLISH)[SEE_IT].blocks if "doctor server" in text
    )
    advice = re.findall(r"^   do: (.*)$", shown, re.MULTILINE)
    source = Path(str(rules.__file__)).read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(source))
    known = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert advice
    assert set(advice) <= known
