"""Run an old program as Python itself would run it.

Rule 1: the program sees the same ``__main__``, ``sys.argv``, ``sys.path[0]`` and
``__file__``, and exits in the same way.
Rule 2: a traceback begins with the program's own first line, not with compat's.

Source: the behaviour of ``python SCRIPT``, ``python -m`` and ``python -c``; CPython
3.11, Modules/main.c, and Lib/runpy.py for the names of ``__main__``.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import io
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import (
    BuiltinImporter,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import CodeType, ModuleType, SimpleNamespace, TracebackType
from typing import Any

__all__ = ["ProgramError", "run_code", "run_module", "run_script"]


class ProgramError(Exception):
    """The program cannot be run.

    Attributes:
        status: Python's exit status for that.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def run_script(path: str, args: list[str]) -> None:
    """``python PATH ARGS…``: a script, "-", or a folder or zip with ``__main__.py``.

    Raises:
        ProgramError: the program cannot be read. The program raises anything else.
    """
    _reset_main(path, args)
    # Only a folder or a zip file has an importer; a plain file has none. The path is
    # not normalised, as in Python.
    whole = os.path.join(os.getcwd(), path) if path else os.getcwd()
    importer = None if path == "-" else pkgutil.get_importer(whole)
    if importer is not None:
        # The program is in PATH, so Python puts PATH first even with -P.
        _set_path(whole, safe=False)
        spec = importer.find_spec("__main__", None)
        if spec is None:
            raise ProgramError(f"can't find '__main__' module in {whole!r}")
        _run_spec(spec)
    elif path == "-":
        _set_path("")
        source = sys.stdin.read()
        names = {"__file__": "<stdin>", "__cached__": None}
        _run(names, lambda: compile(source, "<stdin>", "exec", dont_inherit=True))
    else:
        _set_path(os.path.dirname(os.path.realpath(path)))
        _run_file(whole)


def run_module(name: str, args: list[str]) -> None:
    """``python -m NAME ARGS…``.

    Raises:
        ProgramError: there is no such module. The program raises anything else.
    """
    _reset_main("-m", args)
    if name.startswith("."):
        raise ProgramError("Relative module names not supported")
    _set_path(os.getcwd())
    with _own_frames_hidden():
        spec = _find(name)
        if spec.submodule_search_locations is not None:
            package, name = name, f"{name}.__main__"
            try:
                spec = _find(name)
            except ProgramError as error:
                raise ProgramError(
                    f"{error}; {package!r} is a package and cannot be directly executed"
                ) from None
    sys.argv[0] = spec.origin or name
    _run_spec(spec)


def run_code(code: str, args: list[str]) -> None:
    """``python -c CODE ARGS…``."""
    _reset_main("-c", args)
    _set_path("")
    if sys.version_info >= (3, 14):
        import textwrap

        code = textwrap.dedent(code)
    if sys.version_info >= (3, 13):
        import linecache

        # Python 3.13 and later show the lines of a -c program in tracebacks.
        lines = code.splitlines(keepends=True)
        linecache.cache["<string>"] = (len(code), None, lines, "<string>")
    _run({}, lambda: compile(code, "<string>", "exec", dont_inherit=True))


def _reset_main(name: str, args: list[str]) -> None:
    """Set ``sys.argv``, and replace ``compat.__main__`` by an empty ``__main__``.

    The module stays until exit: atexit functions, threads and pickle use it.
    """
    sys.argv[:] = [name, *args]
    _program.main = sys.modules["__main__"] = ModuleType("__main__")
    _program.main.__loader__ = BuiltinImporter
    if sys.version_info < (3, 14):
        _program.main.__annotations__ = {}
    vars(_program.main)["__builtins__"] = builtins


def _find(name: str) -> ModuleSpec:
    package = name.rpartition(".")[0]
    try:
        if package:
            importlib.import_module(package)
    except ImportError as error:
        # Raise if a module that the package imports is missing, not the package.
        if error.name is None or not f"{package}.".startswith(f"{error.name}."):
            raise
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        hint = ""
        if name.endswith(".py"):
            hint = f". Try using {name[:-3]!r} instead of {name!r} as the module name."
        raise ProgramError(
            f"Error while finding module specification for {name!r} "
            f"({type(error).__name__}: {error}){hint}"
        ) from None
    if spec is None:
        raise ProgramError(f"No module named {name}")
    return spec


def _run_file(path: str) -> None:
    loader: Any
    kind = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
    loader = kind("__main__", path)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        raise ProgramError(f"can't open file {path!r}: {reason}", 2) from None
    names = {"__file__": path, "__cached__": None, "__loader__": loader}
    if path.endswith(".pyc"):
        if not source.startswith(importlib.util.MAGIC_NUMBER):
            with _own_frames_hidden():
                raise RuntimeError("Bad magic number in .pyc file")
        _run(names, lambda: loader.get_code("__main__"))
    else:
        _run(names, lambda: compile(source, path, "exec", dont_inherit=True))


def _run_spec(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    with _own_frames_hidden():
        if not hasattr(loader, "get_code") or loader.get_code(spec.name) is None:
            raise ProgramError(f"No code object available for {spec.name}")
    names = {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__loader__": loader,
        "__package__": spec.parent,
        "__spec__": spec,
    }
    _run(names, lambda: loader.get_code(spec.name))


def _run(names: dict[str, Any], compiled: Callable[[], CodeType]) -> None:
    """Execute the compiled code as ``__main__``."""
    namespace = vars(_program.main)
    namespace.update(names)
    if sys.version_info >= (3, 15):
        namespace.pop("__cached__", None)
    with _own_frames_hidden():
        exec(compiled(), namespace)


def _set_path(first: str, *, safe: bool = True) -> None:
    # With -P or PYTHONSAFEPATH, Python does not add the program's folder.
    if not sys.flags.safe_path:
        sys.path[0] = first
    elif not safe:
        sys.path.insert(0, first)
    _unload_shadowed()


def _unload_shadowed() -> None:
    """Let a program import its own ``compat`` module instead of this package.

    This package continues to work: its functions find each other in their globals.
    """
    package = __name__.partition(".")[0]
    ours = os.path.realpath(sys.modules[package].__file__ or "")
    found = PathFinder.find_spec(package, sys.path[:1])
    # A folder without __init__.py has no origin, and this package precedes it.
    if found is None or not found.origin or os.path.realpath(found.origin) == ours:
        return
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            del sys.modules[name]


@contextmanager
def _own_frames_hidden() -> Iterator[None]:
    # The exception still reaches the interpreter, which derives the exit status from
    # it. Only the printed traceback begins further in.
    try:
        yield
    except ProgramError:
        raise
    except BaseException:
        _hide_own_frames()
        raise


def _hide_own_frames() -> None:
    hook = getattr(sys, "excepthook", None)
    if not callable(hook):
        return

    def print_rest(
        kind: type[BaseException],
        error: BaseException,
        traceback: TracebackType | None,
    ) -> None:
        sys.excepthook = hook
        while traceback is not None and _is_ours(traceback):
            traceback = traceback.tb_next
        # For post-mortem debuggers, such as pdb.pm().
        sys.last_traceback = traceback
        hook(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = print_rest


def _is_ours(traceback: TracebackType) -> bool:
    # All frames outside of the program's own: those up to and including _run, and the
    # import system's in the traceback of a SyntaxError.
    name = traceback.tb_frame.f_globals.get("__name__")
    return traceback.tb_frame.f_globals is not vars(_program.main) and (
        name in ("__main__", "runpy", "compat.__main__", "compat.cli", __name__)
        or str(name).startswith(("_frozen_importlib", "importlib", "zipimport"))
    )


# The program's ``__main__``; an empty module until the program runs.
_program = SimpleNamespace(main=ModuleType("__main__"))
