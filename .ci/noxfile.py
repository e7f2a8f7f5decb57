"""The gate's steps, each of which also runs alone.

    nox -f .ci/noxfile.py -l
    nox -f .ci/noxfile.py -s lint
    nox -f .ci/noxfile.py -s wheel suite-3.12
    nox -f .ci/noxfile.py -s wheel suite -P python    # with this Python

Rule: a step changes nothing in the checkout but ``build/`` and ``dist/``.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]

# Chromium and mypy see the same on every Python: the README's test command runs these.
ONCE = ("tests/compat/trace/render/test_page.py", "tests/compat/test_types.py")

# Tests of the modules that are imported before a program; coverage imports more.
WITHOUT_COVERAGE = "not imports_its_own_modules and not known_difference"

# Seconds in which a step ends its processes after Ctrl-C.
TIME_TO_STOP = 10.0

nox.options.sessions = ["lint", "readme"]
nox.options.envdir = str(ROOT / "build" / "nox")


def run(session: nox.Session, *words: str, external: bool = False) -> None:
    """Run a command; at Ctrl-C, give it time to end its processes."""
    session.run(
        *words,
        external=external,
        interrupt_timeout=TIME_TO_STOP,
        terminate_timeout=TIME_TO_STOP,
    )


@nox.session(python=False)
def readme(session: nox.Session) -> None:
    """Run the README's test command in a copy of the checkout."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^.*pip install .*\[test\].*$", text, re.MULTILINE)
    if command is None:
        session.error("README.md has no test command")
    copy = Path(session.create_tmp()) / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    hidden = shutil.ignore_patterns(".venv", ".git", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=hidden)
    session.chdir(copy)
    run(session, "bash", "-euc", command[0], external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, lint, imports, text, structure, and types for each Python."""
    session.chdir(ROOT)
    session.install(".[test,lint]")
    run(session, "ruff", "format", "--check", ".")
    run(session, "ruff", "check", ".")
    run(session, "lint-imports", "--no-cache", "--no-logo")
    run(session, "python", "-m", "tests.prose")
    run(session, "python", "-m", "tests.structure")
    for version in VERSIONS:
        session.log(f"mypy --strict for Python {version}")
        run(session, "mypy", "--python-version", version)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and the sdist into dist/, the wheel from the sdist."""
    session.install("build")
    shutil.rmtree(DIST, ignore_errors=True)
    run(session, "python", "-m", "build", "--outdir", str(DIST), str(ROOT))


@nox.session(python=VERSIONS)
def suite(session: nox.Session) -> None:
    """Run the suite on the wheel; arguments choose tests."""
    [built] = DIST.glob("*.whl")
    extras = "test,lint,docs,programs,browser" if session.python in VERSIONS else "test"
    # Imported modules are compiled when they are imported; most never are.
    session.install("--no-compile", f"{built}[{extras}]")
    folder = Path(session.create_tmp()) / "suite"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "tests", folder / "tests")
    for path in [ROOT / "pyproject.toml", *pages()]:
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    session.chdir(folder)
    chosen = session.posargs or [f"--ignore={path}" for path in ONCE]
    # One process more than cores: a test often waits for another process.
    run(session, "python", "-m", "pytest", "-q", "-n", str(processes()), *chosen)


def pages() -> list[Path]:
    """Return the Markdown files that tests of the READMEs read."""
    folders = [ROOT / name for name in (".github", "compat", "legacy_chat")]
    found = [path for folder in folders for path in folder.rglob("*.md")]
    return [*ROOT.glob("*.md"), *found]


def processes() -> int:
    """Return the number of processes for pytest."""
    return (os.cpu_count() or 1) + 1


@nox.session(python=VERSIONS[-1])
def coverage(session: nox.Session) -> None:
    """Measure the branches that the suite covers; fail below the threshold."""
    session.chdir(ROOT)
    session.install("-e", ".[test,lint,programs]")
    run(session, "coverage", "erase")
    command = ["-m", "pytest", "-q", "-n", str(processes()), "-k", WITHOUT_COVERAGE]
    run(session, "coverage", "run", *command)
    run(session, "coverage", "combine", "-q")
    run(session, "coverage", "report")


@nox.session
def api(session: nox.Session) -> None:
    """Render the API reference into build/api/."""
    session.chdir(ROOT)
    session.install(".[docs]")
    run(session, "python", "-m", "tests.reference")


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the code, one operator at a time: does a test notice? Takes hours."""
    session.chdir(ROOT)
    session.install("-e", ".[test,mutation]")
    run(session, "python", "-m", "tests.mutation", *session.posargs)
