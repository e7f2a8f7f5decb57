"""Render the API reference from the docstrings: python -m tests.reference [FOLDER]

FOLDER is build/api by default.

Rule: pdoc evaluates every annotation. A name that exists only for type checkers gets a
value here, so that a warning always means a mistake.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import compat
import legacy_chat
from tests.support import ROOT

__all__ = ["MODULES", "main"]

# Modules with public names, in the order of the index.
MODULES = (
    "compat",
    "compat.tls",
    "compat.trace",
    "legacy_chat",
    "legacy_chat.baseline",
)


def main(folder: Path) -> None:
    """Render all modules into a folder."""
    import pdoc

    stub = types.ModuleType("_typeshed")
    buffer = bytes | bytearray | memoryview
    vars(stub).update(ReadableBuffer=buffer, WriteableBuffer=bytearray | memoryview)
    sys.modules["_typeshed"] = stub
    for kind in _named_tuples():
        # Their __new__ has the annotations as text, without the module of its names.
        kind.__new__.__annotations__ = typing.get_type_hints(kind)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*MODULES, output_directory=folder)


def _named_tuples() -> Iterator[type]:
    for package in (compat, legacy_chat):
        walk = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for found in walk:
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for value in vars(module).values():
                own = getattr(value, "__module__", "") == found.name
                if own and isinstance(value, type) and tuple in value.__bases__:
                    yield value


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "api")
