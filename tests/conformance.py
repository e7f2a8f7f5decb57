"""CPython's own tests of asyncore and asynchat, on every loop of ours.

    python -m tests.conformance [--python PATH ...]

Python 3.11 is the last to have ``test.test_asyncore`` and ``test.test_asynchat``. Here
they run on the original modules and under ``compat.install()``, and each single test
must end on each loop as it ends on the originals of the same Python.

Rule 1: the two files run unmodified from the folder of a Python 3.11. ``test.support``
is the running Python's; if it has none, that 3.11's.
Rule 2: one run is one process, with its own folder, the loopback and a deadline.
Rule 3: the originals run twice. A test with two outcomes there is fickle, and may have
either outcome on a loop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import compat

__all__ = ["MISSING", "Report", "compare", "find_tests", "main"]

# Environment variable: a Python 3.11, or the folder of its test package.
VARIABLE = "LEGACY_CHAT_PYTHON311"

TESTS = ("test_asyncore", "test_asynchat")

MISSING = (
    f"no Python 3.11 with {' and '.join(TESTS)} in its test package, neither on the "
    f"PATH nor in pyenv; name one in the environment variable {VARIABLE}"
)

# Seconds; one run takes about three.
DEADLINE = 50.0

ROOT = Path(__file__).resolve().parent.parent
ORIGINALS = ("originals", "originals, again")
COLUMNS = ("passed", "failed", "errors", "skipped")
LOOPBACK = ("", "localhost", "127.0.0.1", "::1")


class Run(NamedTuple):
    """The result of one run.

    Attributes:
        ended: the outcome of each test: one of COLUMNS; "skipped" has its reason too.
        details: the tracebacks of the tests that did not pass.
        entered: how often our loop was entered.
        broken: why the run did not finish; empty if it did.
    """

    ended: dict[str, str]
    details: dict[str, str]
    entered: int = 0
    broken: str = ""

    def count(self) -> dict[str, int]:
        """Return the number of tests with each outcome."""
        ways = Counter(way.partition(":")[0] for way in self.ended.values())
        return {column: ways[column] for column in COLUMNS}


class Report(NamedTuple):
    """The runs on one Python, by loop, with the two runs of the originals."""

    python: str
    runs: dict[str, Run]

    def fickle(self) -> list[str]:
        """Return the tests that have two outcomes on the originals."""
        first, again = (self.runs[name].ended for name in ORIGINALS)
        return sorted(
            test for test in {**first, **again} if first.get(test) != again.get(test)
        )

    def differences(self) -> list[str]:
        """Return each test whose outcome on a loop differs from the originals'."""
        known = [self.runs[name].ended for name in ORIGINALS]
        tests = sorted({test for run in self.runs.values() for test in run.ended})
        found = []
        for name, run in self.runs.items():
            where = f"Python {self.python}, {name}"
            if run.broken:
                found.append(f"{where}: {run.broken}")
                continue
            for test in tests:
                now, before = run.ended.get(test), [each.get(test) for each in known]
                if now not in before:
                    text = f"{where}: {test}: {now}, on the originals {before[0]}"
                    found.append(f"{text}\n{run.details.get(test, '')}".rstrip())
        return found


def find_tests() -> Path | None:
    """Return the test package of a Python 3.11 that has the two files, or None."""
    for place in _places():
        if all((place / f"{name}.py").is_file() for name in TESTS):
            return place
    return None


def compare(python: str, tests: Path) -> Report:
    """Run all loops on the interpreter *python* in parallel: they mostly wait."""
    names = [
        *ORIGINALS,
        *(name for name, loop in compat.LOOPS.items() if loop.is_available()),
    ]
    with ThreadPoolExecutor(len(names)) as pool:
        runs = list(pool.map(lambda name: _run(python, name, tests), names))
    code = "import platform; print(platform.python_version())"
    return Report(_output(python, code) or python, dict(zip(names, runs, strict=True)))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0 if no outcome differs from the originals', else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Run CPython's tests of asyncore and asynchat on all our loops.",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        nargs="+",
        action="extend",
        help="interpreters that have compat's requirements (default: this one)",
    )
    # One run in its own process: the loop, the test package, the file of its report.
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.run:
        _run_here(*given.run)
        return 0
    tests = find_tests()
    if tests is None:
        print(MISSING, file=sys.stderr)
        return 1
    return _report(tests, given.python or [sys.executable])


def _report(tests: Path, pythons: list[str]) -> int:
    fickle, differences = [], []
    print(f"{' and '.join(TESTS)} of {tests}\n")
    row = "{:<8} {:<17}" + " {:>8}" * 6
    print(row.format("Python", "loop", "tests", *COLUMNS, "entered"))
    for python in pythons:
        report = compare(python, tests)
        for name, run in report.runs.items():
            numbers = (len(run.ended), *run.count().values(), run.entered or "-")
            print(row.format(report.python, name, *numbers), flush=True)
        fickle += [f"Python {report.python}: {test}" for test in report.fickle()]
        differences += report.differences()
    print("\nwith two outcomes on the originals:", *(fickle or ["none"]), sep="\n  ")
    print("differing from the originals:", *(differences or ["none"]), sep="\n  ")
    return 1 if differences else 0


def _places() -> Iterator[Path]:
    if named := os.environ.get(VARIABLE):
        yield Path(named)
        yield from _test_package(Path(named))
        return
    if sys.version_info[:2] == (3, 11):
        yield Path(sysconfig.get_path("stdlib"), "test")
    for folder in os.get_exec_path():
        yield from _test_package(Path(folder, "python3.11"))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in sorted(pyenv.glob("versions/3.11*")):
        yield version / "lib" / "python3.11" / "test"


def _test_package(python: Path) -> Iterator[Path]:
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    if python.is_file() and (library := _output(str(python), code)):
        yield Path(library, "test")


def _output(python: str, code: str) -> str:
    """Return the output of *code*; empty for a pyenv shim that is not active."""
    command = [python, "-Ic", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _run(python: str, name: str, tests: Path) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        command = [python, "-m", "tests.conformance", "--run", name, tests, result]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Run({}, {}, broken=f"not finished after {DEADLINE:g} s")
        if not result.exists():
            return Run({}, {}, broken=f"exit status {done.returncode}\n{done.stderr}")
        return Run(**json.loads(result.read_text()))


def _run_here(name: str, tests: str, result: str) -> None:
    """Run the tests in this process; *name*: a loop, any other for the originals."""
    sys.dont_write_bytecode = True
    # The tests create sockets and files under relative names.
    os.chdir(Path(result).parent)
    sys.addaudithook(_refuse_other_hosts)
    entered = _install_and_count(name) if name in compat.LOOPS else []
    suite = unittest.TestSuite()
    for module in _load(tests):
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    results = _Results()
    suite.run(results)
    run = Run(results.ended, results.details, len(entered))
    Path(result).write_text(json.dumps(run._asdict()))


def _install_and_count(name: str) -> list[None]:
    """Install a loop that counts its entries: the proof that our loop ran at all.

    The last column of the table names the function that enters the loop.
    """
    entered: list[None] = []
    *rest, enter = compat.LOOPS[name]

    def enter_and_count(*args: Any) -> Any:
        entered.append(None)
        return enter(*args)

    compat.LOOPS[name] = compat.LOOPS[name]._make([*rest, enter_and_count])
    compat.install(name)
    return entered


def _load(tests: str) -> Iterator[ModuleType]:
    try:
        import test
    except ImportError:
        # Some distributions have no test package.
        test = sys.modules["test"] = ModuleType("test")
        test.__path__ = []
    # After the running Python's own test package.
    test.__path__.append(tests)
    for name in TESTS:
        spec = PathFinder.find_spec(f"test.{name}", [tests])
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def _refuse_other_hosts(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.bind", "socket.connect", "socket.sendto"):
        address = args[1]
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            raise PermissionError(f"{address} is not on the loopback")


class _Results(unittest.TestResult):
    """The outcome of each test, and the traceback of those that did not pass."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, str] = {}
        self.details: dict[str, str] = {}

    def startTest(self, test: Any) -> None:  # noqa: N802
        super().startTest(test)
        self.ended.setdefault(test.id(), "passed")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.ended[test.id()] = f"skipped: {reason}"

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._note(test, "failed", self.failures)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._note(test, "errors", self.errors)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            way = ("failed", self.failures) if failed else ("errors", self.errors)
            self._note(test, *way)

    def _note(self, test: Any, way: str, described: list[tuple[Any, str]]) -> None:
        self.ended[test.id()] = way
        self.details[test.id()] = described[-1][1]


if __name__ == "__main__":
    sys.exit(main())
