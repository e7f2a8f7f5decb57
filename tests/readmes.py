"""The READMEs as sections with prose, code blocks, tables and lists.

Rule: a page is read as text. Only a reader can judge the Chinese translation.
"""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import compat
import legacy_chat
from tests.support import ROOT

# Folder of each README that also exists in Chinese; "" is the top.
TRANSLATED = (
    "",
    "compat",
    "compat/trace",
    "legacy_chat",
    "legacy_chat/baseline",
    "legacy_chat/lessons",
)

ENGLISH = tuple(f"{folder}/README.md".lstrip("/") for folder in (*TRANSLATED, "tests"))
CHINESE = tuple(f"{folder}/README.zh-CN.md".lstrip("/") for folder in TRANSLATED)
PAGES = (*ENGLISH, *CHINESE)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)]+)\)")
CODE = re.compile(r"`([^`]+)`")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Section(NamedTuple):
    """The text under a heading, up to the next heading.

    Attributes:
        blocks: language and text of the fenced blocks.
        prose: everything else.
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


def chinese(page: str) -> str:
    """Return the Chinese page of an English one."""
    return page.replace("README.md", "README.zh-CN.md")


def path_of(page: str) -> Path:
    """Return a page's path, in the checkout that the tests are in."""
    return ROOT / page


@functools.cache
def text_of(page: str) -> str:
    """Return the text of a page."""
    return path_of(page).read_text(encoding="utf-8")


@functools.cache
def sections(page: str) -> list[Section]:
    """Return the sections of a page in their order."""
    blocks = iter(FENCE.findall(text_of(page)))
    text = FENCE.sub("\0", text_of(page))
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


def section(page: str, title: str) -> Section:
    """Return a section by its English title, also of a Chinese page."""
    titles = [each.title for each in sections(page.replace(".zh-CN", ""))]
    return sections(page)[titles.index(title)]


def anchor(title: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def target(page: str, link: str) -> Path:
    """Return the target of a relative link; the packages may be installed elsewhere."""
    path = path_of(page).parent / link.partition("#")[0]
    if path.exists():
        return path
    *_, package = (name for name in path.relative_to(ROOT).parts[:1])
    installed = {"compat": compat, "legacy_chat": legacy_chat}.get(package)
    if installed is None:
        return path
    return Path(str(installed.__file__)).parent.parent / path.relative_to(ROOT)


def module(page: str, link: str) -> ModuleType:
    """Import the module that a link leads to."""
    path = (path_of(page).parent / link).resolve().relative_to(ROOT)
    return importlib.import_module(".".join(path.with_suffix("").parts))


def has_name(modules: list[ModuleType], name: str) -> bool:
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
