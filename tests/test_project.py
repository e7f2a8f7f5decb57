"""Settings of the repository agree: versions, top level, links of its pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.readmes import LINK, anchor
from tests.support import ROOT

# Names at the top, beside dotfiles and the names in .gitignore.
TOP = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "README.zh-CN.md",
    "compat",
    "legacy_chat",
    "pyproject.toml",
    "tests",
}

# Versions of the workflow that no classifier names: without the GIL, and a prerelease.
ALSO_TESTED = {"3.14t", "3.15"}

PAGES = sorted((ROOT / ".github").rglob("*.md"))

checkout = pytest.mark.skipif(
    not (ROOT / ".ci").exists(), reason="only in a checkout, not beside a wheel"
)


def versions(path: str) -> set[str]:
    """Return the Python versions in the first list of versions in a file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(r'[\[(]("3\.11".*?)[\])]', text)
    assert found
    return set(re.findall(r'"(3\.\d+t?)"', found[1]))


@checkout
def test_python_versions_are_the_same_in_all_settings() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = re.findall(
        r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"])
    )
    assert versions(".ci/noxfile.py") == set(named)
    assert versions(".ci/gate.py") == set(named)
    assert versions(".github/workflows/test.yml") == {*named, *ALSO_TESTED}
    assert project["project"]["requires-python"] == f">={named[0]}"


@checkout
def test_top_of_the_checkout_has_known_names_only() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    kept = {name.strip("/") for name in ignored}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - kept == TOP


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_github_pages_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        name, _, wanted = link.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), link
        if wanted:
            titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert wanted in map(anchor, titles), link


@checkout
@pytest.mark.parametrize("name", ["gate.py", "noxfile.py", "run"])
def test_test_files_named_in_the_gate_exist(name: str) -> None:
    text = (ROOT / ".ci" / name).read_text(encoding="utf-8")
    missing = [
        path
        for path in re.findall(r"tests/[\w/]+\.py", text)
        if not (ROOT / path).exists()
    ]
    assert missing == []
