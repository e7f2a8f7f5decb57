"""Where asyncore and asynchat come from: the standard library, or a backport."""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = ["origin", "version_of"]


def origin(module: ModuleType) -> str:
    """Which package a module comes from, its version, and the file."""
    return f"{version_of(module)}, {module.__file__}"


def version_of(module: ModuleType) -> str:
    """Which package a module comes from, and its version."""
    # Not above: half of the standard library comes with them, and a program may have a
    # module of its own that is called random or email.
    import importlib.metadata
    import platform

    if sys.version_info < (3, 12):
        return f"standard library of Python {platform.python_version()}"
    package = f"py{module.__name__}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        # A frozen program, or one that has brought the module along.
        return f"{module.__name__} of no package that is installed"
