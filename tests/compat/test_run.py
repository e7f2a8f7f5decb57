"""``python -m compat`` beside plain python: the same programs, the same outcome.

Rule: python itself says what is right. Each program runs twice, and what it printed, on
both streams, and how it ended are compared.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT, process

FACTS = """\
import sys
main = sys.modules["__main__"]
kinds = {"__loader__", "__builtins__", "__spec__"}
for name, value in sorted(vars(main).items()):
    if name.startswith("__"):
        print(name, type(value).__name__ if name in kinds else value)
print(main.__dict__ is globals(), sys.argv, sys.path[0])
print(getattr(__spec__, "name", None))
"""

CHAINED = """\
def fail():
    raise ValueError("first")
try:
    fail()
except ValueError as error:
    raise KeyError("second") from error
"""

AT_EXIT = """\
import atexit, pickle
class Kept:
    pass
def last():
    import __main__
    print(__main__.Kept is Kept, pickle.loads(pickle.dumps(Kept())).__class__ is Kept)
atexit.register(last)
"""

HOOK = """\
import sys
def hook(kind, error, traceback):
    print("mine:", kind.__name__, traceback.tb_frame.f_code.co_name)
sys.excepthook = hook
1 / 0
"""

LAST_HOOK = """\
import atexit, sys
hook = sys.excepthook
atexit.register(lambda: print(sys.excepthook is hook))
1 / 0
"""

ON_LOOP = """\
import asyncore, compat, socket
for name, row in compat.LOOPS.items():
    *rest, enter = row
    noted = lambda *args, name=name, enter=enter: (print(name), enter(*args))[1]
    compat.LOOPS[name] = row._make([*rest, noted])
here, there = socket.socketpair()
there.close()
class Once(asyncore.dispatcher):
    writable = lambda self: False
    def handle_read(self):
        self.close()
Once(here)
asyncore.loop()
"""

Same = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def same(tmp_path: Path) -> Same:
    """Run a program both ways, in a folder of programs; return what came of it."""
    for name, source in {
        "facts.py": FACTS,
        "chained.py": CHAINED,
        "at_exit.py": AT_EXIT,
        "hook.py": HOOK,
        "broken.py": "x = (",
        "imports_broken.py": "import broken",
        "imports_nothing.py": "import there_is_no_such_module",
        "package/__init__.py": "",
        "package/__main__.py": FACTS,
        "package/module.py": "from . import other\n" + FACTS,
        "package/other.py": "",
        "folder/__main__.py": FACTS,
        "empty/readme.txt": "",
        "broken_package/__init__.py": "import package.nothing",
        "broken_package/__main__.py": "",
        "own/script.py": "import email, random",
        "own/email.py": "print('the program has its own')",
        "own/random.py": "print('and another')",
        "last_hook.py": LAST_HOOK,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("__main__.py", FACTS)

    def run(
        *argv: str, typed: str = "", without_frozen: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        plain, ours = (
            subprocess.run(
                [sys.executable, "-W", "ignore", *through, *argv],
                input=typed,
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                timeout=30,
                check=False,
            )
            for through in ((), ("-m", "compat"))
        )
        assert ours.stdout == plain.stdout
        if without_frozen:
            frozen = re.compile(r'(Traceback .*|  File "<frozen .*)\n')
            ours.stderr, plain.stderr = (
                frozen.sub("", each.stderr) for each in (ours, plain)
            )
        assert ours.stderr == plain.stderr
        assert ours.returncode == plain.returncode
        return ours

    return run


@pytest.mark.parametrize(
    "program",
    [
        "facts.py one --loop two -m",
        "-m package one",
        "-m package.module --which",
        "-mpackage",
        "folder one",
        "./folder/ one",
        "package/../facts.py",
        "own/script.py",
        "packed.zip one",
        "at_exit.py",
    ],
)
def test_the_program_sees_what_it_would_have_seen(same: Same, program: str) -> None:
    assert same(*program.split()).returncode == 0


def test_code_on_the_command_line_or_typed_is_a_program_too(same: Same) -> None:
    assert "['-c', 'one']" in same("-c", FACTS, "one").stdout
    assert "['-', 'one']" in same("-", "one", typed=FACTS).stdout


def test_a_safe_path_stays_safe(same: Same) -> None:
    same("facts.py", PYTHONSAFEPATH="1")


@pytest.mark.parametrize(
    "program",
    [
        "nowhere.py",
        "-m nowhere",
        "-m os.nowhere",
        "-m email",
        "empty",
        "broken.py",
        "imports_broken.py",
        "imports_nothing.py",
        "chained.py",
        "hook.py",
        "last_hook.py",
        "-m package.other.py",
    ],
)
def test_what_goes_wrong_is_said_as_python_says_it(same: Same, program: str) -> None:
    assert same(*program.split()).returncode in (1, 2)


@pytest.mark.parametrize(
    "program", ["-m chained", "-m broken", "-m package.broken", "-m broken_package"]
)
def test_a_modules_traceback_is_pythons_but_for_its_own_frames(
    same: Same, tmp_path: Path, program: str
) -> None:
    (tmp_path / "package" / "broken.py").write_text("x = (")
    assert same(*program.split(), without_frozen=True).returncode == 1


def test_the_program_runs_in_its_own_folder_whatever_is_there(tmp_path: Path) -> None:
    for name in ("email", "random", "platform"):
        (tmp_path / f"{name}.py").write_text(f"print('own {name}')\n")
    (tmp_path / "script.py").write_text("import email, random, platform\n")
    argv = (sys.executable, "-m", "compat", "script.py")
    with process(*argv, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}) as program:
        assert program.wait() == 0
    assert program.out == ["own email", "own random", "own platform"]


def test_the_program_runs_on_the_loop_asked_for(loop: str, tmp_path: Path) -> None:
    argv = (sys.executable, "-m", "compat", "--loop", loop, "-c", ON_LOOP)
    with process(*argv, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}) as program:
        assert program.wait() == 0
    assert program.out == [loop]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit('bye')", 1),
        ("import sys; sys.exit(7)", 7),
        ("raise SystemExit", 0),
        ("1/0", 1),
        ("def", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_the_program_ends_as_it_would_have_ended(
    same: Same, code: str, status: int
) -> None:
    assert same("-c", code).returncode == status


def test_ctrl_c_ends_a_program_that_loops_as_python_would(
    loop: str, tmp_path: Path
) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        "import asyncore, socket\n"
        "here, there = socket.socketpair()\n"
        "channel = asyncore.dispatcher(here)\n"
        "channel.writable = lambda: False\n"
        "print(asyncore.loop.__module__, flush=True)\n"
        "asyncore.loop()\n"
    )
    argv = (sys.executable, "-m", "compat", "--loop", loop, str(script))
    with process(*argv, env={"PYTHONPATH": str(ROOT)}) as program:
        program.wait_for("^compat.install$")
        os.kill(program.pid, signal.SIGINT)
        assert program.wait() == -signal.SIGINT
    assert program.err[-1] == "KeyboardInterrupt"
    assert str(script) in program.err[1]


def test_no_program_is_an_error_that_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compat"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "which program? a SCRIPT, -m MODULE or -c CODE" in done.stderr
