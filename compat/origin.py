"""Where asyncore, asynchat and compat come from: the file, and its package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType

__all__ = ["origin", "origin_of_compat", "version_of"]


def origin(module: ModuleType) -> str:
    """Return a module's package, its version, and its file."""
    return f"{version_of(module)}, {module.__file__}"


def version_of(module: ModuleType) -> str:
    """Return a module's package and its version."""
    # Imported here: these import half of the standard library, and a program may have
    # its own module named random or email.
    import importlib.metadata
    import platform

    if sys.version_info < (3, 12):
        return f"standard library of Python {platform.python_version()}"
    package = f"py{module.__name__}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        # A frozen program, or one that ships the module itself.
        return f"{module.__name__} of no package that is installed"


def origin_of_compat() -> str:
    """Return the distributions that own the imported ``compat``, and its file.

    pip lets one distribution silently overwrite the files of another.
    """
    file = sys.modules["compat"].__file__
    if file is None:
        return "compat/__init__.py is missing: reinstall legacy-chat"
    owners = sorted(set(_owners(file)))
    if not owners:
        return f"no installed distribution, {file}"
    clash = " (one has overwritten the other)" if len(owners) > 1 else ""
    return f"{' and '.join(owners)}, {file}{clash}"


def _owners(file: str) -> Iterator[str]:
    # Imported here, as in version_of.
    import importlib.metadata

    for each in importlib.metadata.distributions():
        for path in each.files or ():
            # Compare the names first, because resolving a path costs system calls.
            if str(path).endswith("compat/__init__.py"):
                own = os.path.realpath(str(each.locate_file(path)))
                if own == os.path.realpath(file):
                    yield f"{each.metadata['Name']} {each.version}"
