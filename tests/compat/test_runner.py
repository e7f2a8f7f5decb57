"""``python -m compat`` and plain python: the same programs, the same outcome.

Rule: plain python sets the expectation. Each program runs twice. Its output, on
both streams, and its exit status are compared.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat import test_types
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
print([name for name in globals() if name.startswith("__")])
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
import asyncore, socket, sys
def noted(name, *args, **options):
    print(name)
    return enter(name, *args, **options)
enter, sys.modules["compat.loop"].enter = sys.modules["compat.loop"].enter, noted
here, there = socket.socketpair()
there.close()
class Once(asyncore.dispatcher):
    writable = lambda self: False
    def handle_read(self):
        self.close()
Once(here)
asyncore.loop()
"""

LOGS = """\
import asyncore, logging, socket
here, there = socket.socketpair()
there.close()
class Once(asyncore.dispatcher):
    writable = lambda self: False
    def handle_read(self):
        logging.note("read")
        self.close()
Once(here)
asyncore.loop()
"""

COMPAT = """\
import asyncore, atexit, socket, sys
import compat
here, there = socket.socketpair()
there.close()
class Once(asyncore.dispatcher):
    writable = lambda self: False
    def handle_read(self):
        names = (name for name in sys.modules if name.partition(".")[0] == "compat")
        print(compat.mine, *sorted(names))
        self.close()
        raise SystemExit(3)
Once(here)
atexit.register(lambda: print(compat.mine))
asyncore.loop()
"""

LAST_TRACEBACK = """\
import atexit, sys
atexit.register(lambda: print(sys.last_traceback.tb_frame.f_code.co_filename))
1 / 0
"""

# The program's remains are collected after its modules; map and channel are a cycle.
LEFT = """\
import asyncore, socket
class Left(asyncore.dispatcher):
    def writable(self):
        return False
    def handle_read(self):
        print(self.recv(5))
    def __del__(self):
        print("collected", socket.AF_INET, flush=True)
here, there = socket.socketpair()
left = Left(here)
there.send(b"hello")
asyncore.loop(count=1)
"""

STACK = """\
import inspect, traceback
for frame in inspect.stack():
    print(frame.frame.f_globals["__name__"], frame.function)
traceback.print_stack()
"""

DEPTH = """\
def depth(so_far):
    try:
        return depth(so_far + 1)
    except RecursionError:
        return so_far
print(depth(1))
"""

FILE_AT_EXIT = """\
import atexit
names = "__file__", "__cached__"
atexit.register(lambda: print(*(name for name in names if name in globals())))
"""

LOADED = """\
import sys, asyncore, asynchat
print(*(name for name in sys.modules if name[0] != "_" and "." not in name))
"""

# Names that a program may give to its own modules: asyncore needs none of them.
OWN = (
    "argparse",
    "email",
    "gettext",
    "linecache",
    "locale",
    "logging",
    "platform",
    "random",
    "shutil",
    "string",
    "textwrap",
    "token",
    "tokenize",
    "traceback",
)

# Names that it should not use: we need these modules. As in README.md.
PRELOADED = {
    "annotationlib",
    "ast",
    "compat",
    "contextlib",
    "copyreg",
    "functools",
    "heapq",
    "importlib",
    "math",
    "pkgutil",
    "re",
    "runpy",
    "selectors",
    "signal",
    "threading",
    "typing",
    "weakref",
}

Done = subprocess.CompletedProcess[str]
Both = Callable[..., tuple[Done, Done]]
Same = Callable[..., Done]


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Run a program in a folder of programs, plainly and through us."""
    for name, source in {
        "facts.py": FACTS,
        "chained.py": CHAINED,
        "at_exit.py": AT_EXIT,
        "hook.py": HOOK,
        "broken.py": "x = (",
        "broken.pyc": "x = (",
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
        "own/script.py": f"import asyncore, asynchat, {', '.join(OWN)}",
        **{f"own/{name}.py": f"print('own {name}')" for name in OWN},
        "logs/server.py": LOGS,
        "logs/logging.py": "def note(text):\n    print('mine:', text)",
        "module_compat/server.py": COMPAT,
        "module_compat/compat.py": "mine = 'a module'",
        "package_compat/server.py": COMPAT,
        "package_compat/compat/__init__.py": "from compat.cli import mine",
        "package_compat/compat/cli.py": "mine = 'a package'",
        "last_hook.py": LAST_HOOK,
        "last_traceback.py": LAST_TRACEBACK,
        "left.py": LEFT,
        "no_hook.py": "import sys\ndel sys.excepthook\n1 / 0",
        "stack.py": STACK,
        "depth.py": DEPTH,
        "file_at_exit.py": FILE_AT_EXIT,
        "loaded.py": LOADED,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("__main__.py", FACTS)

    def run(
        *argv: str,
        typed: str = "",
        cwd: str = ".",
        options: tuple[str, ...] = (),
        python: tuple[str, ...] = ("-W", "ignore"),
        **env: str,
    ) -> tuple[Done, Done]:
        plain, ours = (
            subprocess.run(
                [sys.executable, *python, *through, *argv],
                input=typed,
                capture_output=True,
                text=True,
                cwd=tmp_path / cwd,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                timeout=30,
                check=False,
            )
            for through in ((), ("-m", "compat", *options))
        )
        return plain, ours

    return run


@pytest.fixture
def same(both: Both) -> Same:
    """Run a program both ways, compare, and return the result."""

    def run(*argv: str, without_frozen: bool = False, **how: Any) -> Done:
        plain, ours = both(*argv, **how)
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
def test_program_sees_the_same_environment_as_under_python(
    same: Same, program: str
) -> None:
    assert same(*program.split()).returncode == 0


def test_code_from_the_command_line_or_stdin_runs(same: Same) -> None:
    assert "['-c', 'one']" in same("-c", FACTS, "one").stdout
    assert "['-', 'one']" in same("-", "one", typed=FACTS).stdout


@pytest.mark.parametrize("program", ["facts.py", "folder", "packed.zip", "-m package"])
def test_safe_path_is_kept(same: Same, program: str) -> None:
    same(*program.split(), PYTHONSAFEPATH="1")
    same(*program.split(), python=("-P",))


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
        "last_traceback.py",
        "broken.pyc",
        "-m package.other.py",
        "-m facts.py",
        "-m .module",
        "-m ..module",
        "-m __main__",
    ],
)
def test_failure_is_reported_as_python_reports_it(same: Same, program: str) -> None:
    assert same(*program.split()).returncode in (1, 2)


@pytest.mark.parametrize(
    "program", ["-m chained", "-m broken", "-m package.broken", "-m broken_package"]
)
def test_a_modules_traceback_is_pythons_but_for_its_own_frames(
    same: Same, tmp_path: Path, program: str
) -> None:
    (tmp_path / "package" / "broken.py").write_text("x = (")
    assert same(*program.split(), without_frozen=True).returncode == 1


def test_known_difference_a_missing_excepthook_shows_our_frames(both: Both) -> None:
    plain, ours = both("no_hook.py")
    first, *_, last = plain.stderr.splitlines()
    assert ours.stderr.startswith(f"{first}\nTraceback")
    assert "runpy" in ours.stderr
    assert ours.stderr.endswith(f"\n{last}\n")
    assert ours.stderr.count("Traceback") == 1


def test_development_mode_reports_main_s_leaks(both: Both, loop: str) -> None:
    dev = ("-X", "dev", "-W", "ignore::DeprecationWarning")
    plain, ours = both("left.py", python=dev, COMPAT_LOOP=loop)
    assert ours.stdout == plain.stdout == "b'hello'\ncollected 2\n"
    # Without the GIL, two sockets are collected in any order.
    assert sorted(ours.stderr.splitlines()) == sorted(plain.stderr.splitlines())
    assert ours.stderr.count("ResourceWarning: unclosed <socket.socket") == 2


@pytest.mark.parametrize("module", ["compat", "compat.cli", "legacy_chat"])
def test_import_raises_no_warning(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {module}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("place", ["elsewhere", "in its folder"])
@pytest.mark.parametrize("loop", ["auto", "select"])
def test_program_imports_its_own_modules_of_any_name(
    same: Same, place: str, loop: str
) -> None:
    cwd, script = (
        (".", "own/script.py") if place == "elsewhere" else ("own", "script.py")
    )
    done = same(script, cwd=cwd, COMPAT_LOOP=loop)
    assert done.stdout.splitlines() == [f"own {name}" for name in OWN]


@pytest.mark.parametrize(
    ("cwd", "script"), [(".", "logs/server.py"), ("logs", "server.py")]
)
def test_a_server_may_have_a_logging_of_its_own(
    same: Same, cwd: str, script: str
) -> None:
    assert same(script, cwd=cwd).stdout == "mine: read\n"


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_server_may_have_a_compat_of_its_own(
    same: Same, kind: str, loop: str
) -> None:
    done = same(f"{kind}_compat/server.py", COMPAT_LOOP=loop)
    assert done.stdout.startswith(f"a {kind} compat")
    assert done.stdout.endswith(f"a {kind}\n")
    assert (done.returncode, done.stderr) == (3, "")


def test_program_beside_our_folder_imports_our_compat(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "uses.py").write_text("import compat; print(compat.__file__)")
    (tmp_path / "compat").mkdir()
    plain, ours = both("uses.py")
    assert (plain.stdout, plain.returncode) == (ours.stdout, 0)


def test_the_program_runs_on_the_requested_loop(loop: str, tmp_path: Path) -> None:
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
    # As with asyncore, a signal right before a wait is seen when that is over: soon.
    script.write_text(
        "import asyncore, socket\n"
        "here, there = socket.socketpair()\n"
        "channel = asyncore.dispatcher(here)\n"
        "channel.writable = lambda: False\n"
        "print(asyncore.loop.__module__, flush=True)\n"
        "asyncore.loop(1)\n"
    )
    argv = (sys.executable, "-m", "compat", "--loop", loop, str(script))
    with process(*argv, env={"PYTHONPATH": str(ROOT)}) as program:
        program.wait_for("^compat.install$")
        os.kill(program.pid, signal.SIGINT)
        assert program.wait() == -signal.SIGINT
    assert program.err[-1] == "KeyboardInterrupt"
    assert str(script) in program.err[1]


def test_no_program_is_an_error_that_names_the_argument() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compat"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "a program is needed: SCRIPT, -m MODULE or -c CODE" in done.stderr


def test_known_difference_our_frames_stand_outside_the_programs(both: Both) -> None:
    plain, ours = both("stack.py")
    assert plain.stdout == "__main__ <module>\n"
    assert ours.stdout.startswith("__main__ <module>\ncompat.runner _run\n")
    assert ours.stdout.endswith("runpy _run_module_as_main\n")
    assert ours.stdout.count("\n") == 8
    assert ours.stderr.endswith(plain.stderr)
    assert ours.stderr != plain.stderr


def test_known_difference_recursion_limit_is_reached_earlier(
    both: Both,
) -> None:
    plain, ours = (int(done.stdout) for done in both("depth.py"))
    assert 0 < plain - ours <= 9


def test_known_difference_at_exit_a_script_still_has_its_file(both: Both) -> None:
    plain, ours = both("file_at_exit.py")
    left = "__file__" if sys.version_info >= (3, 15) else "__file__ __cached__"
    assert (plain.stdout, ours.stdout) == ("\n", f"{left}\n")


def test_known_difference_nul_in_a_script_names_no_place(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "nul.py").write_bytes(b"x = '\0'\n")
    plain, ours = both("nul.py")
    assert plain.returncode == ours.returncode == 1
    assert "nul.py" in plain.stderr
    assert "nul.py" not in ours.stderr
    assert "null bytes" in ours.stderr


def test_known_difference_undeclared_bytes_have_another_message(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    plain, ours = both("latin.py")
    assert plain.returncode == ours.returncode == 1
    assert "SyntaxError: Non-UTF-8 code starting with '\\xe9' in file" in plain.stderr
    words = (
        "SyntaxError: Non-UTF-8 code starting with '\\xe9' on line 1"
        if sys.version_info >= (3, 14)
        else "SyntaxError: (unicode error) 'utf-8' codec"
    )
    assert words in ours.stderr


def test_known_difference_undeclared_bytes_in_comments_may_pass(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "latin.py").write_bytes(b"print('runs')  # \xe9\n")
    plain, ours = both("latin.py")
    assert (plain.returncode, plain.stdout) == (1, "")
    # Python 3.14 refuses them wherever the program comes from.
    refused = sys.version_info >= (3, 14)
    assert (ours.returncode, ours.stdout) == ((1, "") if refused else (0, "runs\n"))


def test_known_difference_preimported_module_gives_no_warning(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "package" / "__init__.py").write_text("import package.other")
    plain, ours = both("-m", "package.other", python=())
    assert "RuntimeWarning: 'package.other' found in sys.modules" in plain.stderr
    assert (ours.stderr, ours.returncode) == ("", plain.returncode)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 removed the modules")
def test_known_difference_the_removal_is_not_announced(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "old.py").write_text("import asyncore, asynchat")
    plain, ours = both("old.py", python=("-X", "dev"))
    for module in ("asyncore", "asynchat"):
        assert f"old.py:1: DeprecationWarning: The {module} module" in plain.stderr
    assert ours.stderr == ""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before, Python showed it too")
def test_known_difference_warnings_of_code_show_their_line(both: Both) -> None:
    code = "import warnings; warnings.warn('x')"
    plain, ours = both("-c", code, python=())
    assert plain.stderr == "<string>:1: UserWarning: x\n"
    assert ours.stderr == f"{plain.stderr}  {code}\n"


def test_known_difference_the_original_arguments_have_ours(both: Both) -> None:
    plain, ours = both("-c", "import sys; print(sys.orig_argv[3:5])")
    assert plain.stdout.startswith("['-c', ")
    assert ours.stdout == "['-m', 'compat']\n"


def test_known_difference_some_modules_are_imported_before_main(
    both: Both,
) -> None:
    plain, ours = (set(done.stdout.split()) for done in both("loaded.py"))
    assert {"compat", "runpy", "threading"} <= ours - plain <= PRELOADED


def test_known_difference_preloaded_modules_hide_own_modules(
    both: Both, tmp_path: Path
) -> None:
    (tmp_path / "own" / "typing.py").write_text("print('own typing')")
    (tmp_path / "own" / "script.py").write_text("import typing")
    plain, ours = both("own/script.py")
    assert (plain.stdout, ours.stdout) == ("own typing\n", "")
    plain, ours = both("script.py", cwd="own")
    assert (plain.returncode, ours.returncode) == (0, 1)
    assert "ImportError" in ours.stderr


def test_known_difference_with_options_argparse_is_there_too(both: Both) -> None:
    plain, ours = both("loaded.py", options=("--loop", "select"))
    assert "argparse" not in plain.stdout.split()
    assert {"argparse", "locale", "shutil"} <= set(ours.stdout.split())


@pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None,
    reason="mypy is not installed; it comes with legacy-chat[lint]",
)
def test_known_difference_on_3_11_mypy_prefers_its_own_stubs(tmp_path: Path) -> None:
    shutil.copytree(test_types.stubs_of("asyncore"), tmp_path / "asyncore-stubs")
    program = "import asyncore\nasyncore.poll(None)\n"
    refused, allowed = (
        test_types.run(
            tmp_path,
            *("mypy", "--config-file=", "--python-version", version, "-c", program),
            PYTHONPATH=str(tmp_path),
            MYPYPATH="",
        )
        for version in ("3.11", "3.12")
    )
    assert 'incompatible type "None"; expected "float"' in refused
    assert "Success" in allowed
