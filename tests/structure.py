"""Check the structure of the code: sizes, private names, import cycles.

    python -m tests.structure [FOLDER…]

prints ``file:line: finding`` for each, and exits with 1 if there is any.

Rule 1: a function has at most 40 lines, its docstring included; a module at most 450.
Rule 2: an attribute with one leading underscore is used only in a module that defines
it. Exceptions are the rows of ALLOWED, at most five, each with its reason.
Rule 3: no cycle of imports exists, not even of imports for type checkers only.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

LONGEST_FUNCTION = 40
LONGEST_MODULE = 450

PACKAGES = ("compat", "legacy_chat")

# Private names of other modules that may be used, and the reason.
ALLOWED: dict[str, str] = {
    "_DISCONNECTED": "asyncore's list of errors, which the original send uses, too",
    "_exception": "asyncore's function, which poll calls and a program may replace",
    "_fileno": "asyncore's number of a channel, also after its socket is closed",
    "_getframe": "sys's function; the documentation has no other name for it",
}

# Documented methods and attributes of typing.NamedTuple.
NAMED_TUPLE = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A source file."""

    name: str
    path: Path
    tree: ast.Module
    lines: int


def modules(folder: Path) -> Iterator[Module]:
    """Yield the modules below a folder of the checkout."""
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        parts = path.resolve().relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield Module(name, path, ast.parse(source), len(source.splitlines()))


def long_parts(module: Module) -> Iterator[tuple[int, str]]:
    """Yield a module and functions that are too long."""
    if module.lines > LONGEST_MODULE:
        yield 1, f"the module has {module.lines} lines, more than {LONGEST_MODULE}"
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.lineno, f"{node.name} has {lines} lines"


def foreign_names(module: Module) -> Iterator[tuple[int, str]]:
    """Yield private names that the module uses and does not define."""
    defined = set(_defined(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            name = node.attr
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            used = name not in defined and not own
        elif isinstance(node, ast.ImportFrom):
            names = [each.name for each in node.names if _is_private(each.name)]
            name, used = (names[0], True) if names else ("", False)
        else:
            continue
        if used and _is_private(name) and name not in {*ALLOWED, *NAMED_TUPLE}:
            yield node.lineno, f"{name} is private to another module"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            # __slots__
            yield from (
                each.value
                for each in node.value.elts
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


def imports(module: Module, known: set[str]) -> set[str]:
    """Return the modules of *known* that a module imports, anywhere in it."""
    package = module.name
    if module.path.name != "__init__.py":
        package = module.name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(filter(None, [*(parts if node.level else []), node.module]))
            names = {f"{base}.{each.name}" for each in node.names}
            found |= names if names & known else {base}
    return (found & known) - {module.name}


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield a cycle of imports through each module that is in one, shortest first."""
    seen: set[str] = set()
    for start in sorted(graph):
        if start in seen:
            continue
        paths = [[start]]
        visited = {start}
        while paths:
            path = paths.pop(0)
            for following in sorted(graph[path[-1]]):
                if following == start:
                    seen |= set(path)
                    yield [*path, start]
                    paths = []
                    break
                if following not in visited:
                    visited.add(following)
                    paths.append([*path, following])


def findings(folders: Sequence[Path]) -> Iterator[str]:
    """Yield everything to change in the modules of some folders."""
    found = [module for folder in folders for module in modules(folder)]
    for module in found:
        path = module.path.resolve().relative_to(ROOT)
        for check in (long_parts, foreign_names):
            for line, text in check(module):
                yield f"{path}:{line}: {text}"
    graph: dict[str, set[str]] = defaultdict(set)
    known = {module.name for module in found}
    for module in found:
        graph[module.name] = imports(module, known)
    for cycle in cycles(graph):
        yield f"import cycle: {' -> '.join(cycle)}"


def main(argv: list[str]) -> int:
    """Print the findings; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.structure")
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path)
    folders = parser.parse_args(argv).folders or [ROOT / name for name in PACKAGES]
    count = 0
    for finding in findings(folders):
        count += 1
        print(finding)
    print(f"{count} findings", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
