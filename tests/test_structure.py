"""The structure of the code holds, and its check finds each kind of violation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.structure import (
    ALLOWED,
    PACKAGES,
    Module,
    cycles,
    findings,
    foreign_names,
    imports,
    long_parts,
)
from tests.support import ROOT

# Allowances for private names of other modules.
MOST_ALLOWED = 5


def parsed(source: str, name: str = "package.module") -> Module:
    path = Path(name.replace(".", "/")).with_suffix(".py")
    return Module(name, path, ast.parse(source), len(source.splitlines()))


@pytest.mark.skipif(
    not (ROOT / "compat" / "__init__.py").exists(), reason="only in a checkout"
)
def test_packages_have_no_finding() -> None:
    assert list(findings([ROOT / name for name in PACKAGES])) == []


def test_allowances_are_few_and_have_reasons() -> None:
    assert len(ALLOWED) <= MOST_ALLOWED
    assert all(ALLOWED.values())


def test_long_function_and_long_module_are_found() -> None:
    lines = ["def f():", *["    pass"] * 40]
    assert [line for line, _ in long_parts(parsed("\n".join(lines)))] == [1]
    assert list(long_parts(parsed("\n".join(lines[:-1])))) == []
    assert len(list(long_parts(parsed("pass\n" * 451)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return x._private",
        "from package import _private",
        "class C:\n    def f(self):\n        return self.other._private",
    ],
)
def test_private_name_of_another_module_is_found(source: str) -> None:
    [(_, text)] = foreign_names(parsed(source))
    assert text.startswith("_private")


@pytest.mark.parametrize(
    "source",
    [
        "class C:\n    def __init__(self, x):\n        self._a = x\n        x._a = 1",
        "class C:\n    def f(self):\n        return self._inherited",
        "from __future__ import annotations\nx.__name__",
        "pair._replace(a=1)",
    ],
)
def test_own_and_documented_names_are_not_findings(source: str) -> None:
    assert list(foreign_names(parsed(source))) == []


def test_imports_are_found_at_any_depth() -> None:
    source = "if TYPE_CHECKING:\n    from . import b\ndef f():\n    import package.c"
    known = {"package", "package.a", "package.b", "package.c"}
    assert imports(parsed(source, "package.a"), known) == {"package.b", "package.c"}


def test_cycle_is_found_once() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert list(cycles(graph)) == [["a", "b", "c", "a"]]
