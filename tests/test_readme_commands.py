"""READMEs: each command has the options that it is given, and runs.

Rule: every line of a ``sh`` block runs here, unless NOT_RUN names it with a reason.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from compat.trace import cli as views
from legacy_chat import cli as command
from tests.readmes import CODE, ENGLISH, section, sections, text_of
from tests.soak import __main__ as soak
from tests.support import DEADLINE, ROOT, process

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(
    r"(?:legacy-chat (?:baseline )?[a-z]+|python -m compat(?:\.trace [a-z]+)?"
    r"|python -m tests\.soak)(?= |$)"
)

# By the beginning of a line of a block.
NOT_RUN = {
    "python3 -m venv": "the gate runs the test command, and installs the wheel",
    "pip install": "it installs",
    ".venv/bin/": "it installs, or measures for minutes",
    "nox": "each session takes minutes; the gate runs them",
    "openssl": "tests of TLS have their own certificates",
    "python -m pytest": "this is pytest",
    "python -m tests.reference": "test_reference.py runs it",
}

# A server whose port is its first argument, as small as an old script may be.
OLD_SERVER = """\
import asyncore, sys
class Echo(asyncore.dispatcher_with_send):
    def handle_read(self):
        self.send(self.recv(8192))
class Server(asyncore.dispatcher):
    def __init__(self, port):
        super().__init__()
        self.create_socket()
        self.bind(("127.0.0.1", port))
        self.listen(5)
        print("port", self.socket.getsockname()[1], flush=True)
    def handle_accepted(self, sock, address):
        Echo(sock)
if __name__ == "__main__":
    Server(int(sys.argv[1]) if sys.argv[1:] else 0)
    asyncore.loop()
"""


# Options.


def _compat_main(argv: list[str]) -> object:
    return importlib.import_module("compat.cli").main(argv)


MAINS: dict[str, Callable[[list[str]], object]] = {
    "legacy-chat": command.main,
    "compat": _compat_main,
    "compat.trace": views.main,
    "tests.soak": soak.main,
}

COMMANDS = [
    *(f"legacy-chat {each}" for each in ("serve", "connect", "lesson")),
    *(
        f"legacy-chat baseline {each}"
        for each in ("record", "check", "show", "diff", "fuzz", "minimise")
    ),
    "python -m compat",
    *(
        f"python -m compat.trace {each}"
        for each in ("text", "mermaid", "html", "perfetto", "doctor", "diff")
    ),
    "python -m tests.soak",
]


@pytest.fixture
def options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], set[str]]:
    """Return a function that lists the options in a command's help."""
    monkeypatch.setenv("COLUMNS", "200")

    def options(words: str) -> set[str]:
        main, *argv = words.removeprefix("python -m ").split()
        with pytest.raises(SystemExit) as left:
            MAINS[main]([*argv, "--help"])
        assert left.value.code == 0, words
        return set(OPTION.findall(capsys.readouterr().out))

    return options


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield each command in the text, with its arguments."""
    for line in re.sub(r"\n {8,}(?=\[--)", " ", text_of(page)).splitlines():
        for found in COMMAND.finditer(line):
            rest = re.split(r"[`#&]| \| ", line[found.end() :])[0]
            yield found[0], rest


def test_options_belong_to_the_commands_that_have_them(
    options: Callable[[str], set[str]],
) -> None:
    known = {each: options(each) for each in COMMANDS}
    seen = 0
    for page in ENGLISH:
        for words, rest in commands(page):
            if words not in known:
                # "legacy-chat baseline" alone, and words of a sentence.
                assert not OPTION.findall(rest), (words, rest)
                continue
            seen += 1
            assert set(OPTION.findall(rest)) <= known[words], (words, rest)
    assert seen > 20


@pytest.mark.parametrize("page", [each for each in ENGLISH if "tests" not in each])
def test_options_named_in_a_page_exist(
    page: str, options: Callable[[str], set[str]]
) -> None:
    everything = set().union(*(options(each) for each in COMMANDS))
    assert set(OPTION.findall(text_of(page))) <= everything


def test_views_listed_are_those_of_the_command(
    capsys: pytest.CaptureFixture[str], options: Callable[[str], set[str]]
) -> None:
    [shown] = section("compat/trace/README.md", "Views").tables()
    named = [CODE.findall(row)[0].split()[0] for row in shown]
    with pytest.raises(SystemExit):
        views.main(["--help"])
    printed = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert named == printed
    for view in named[:4]:
        assert {"--turns", "--channel", "--calls-only"} <= options(
            f"python -m compat.trace {view}"
        )


def test_trace_options_belong_to_both_commands(
    options: Callable[[str], set[str]],
) -> None:
    [choices] = section("compat/trace/README.md", "Record a trace").tables()
    for row in choices:
        option = CODE.findall(row)[0].split()[0]
        assert option in options("python -m compat")
        assert option in options("legacy-chat serve")


def test_limits_listed_are_options_of_serve(
    options: Callable[[str], set[str]],
) -> None:
    [limits] = section("legacy_chat/README.md", "Limits and their options").tables()
    named = {each for row in limits for each in OPTION.findall(row.split("|")[1])}
    assert len(named) > 10
    assert named <= options("legacy-chat serve")


def numbers(text: str) -> set[float]:
    """Return the numbers of a text, written with or without commas."""
    found = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w])", text)
    return {float(number.replace(",", "")) for number in found}


@pytest.mark.parametrize("title", ["Limits and their options", "TLS"])
def test_defaults_and_ranges_in_tables_are_those_of_the_help(
    title: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        command.main(["serve", "--help"])
    parts = re.split(r"\n  (--[a-z-]+)", capsys.readouterr().out)
    entries = dict(zip(parts[1::2], parts[2::2], strict=True))
    [table] = section("legacy_chat/README.md", title).tables()
    checked = 0
    for row in table:
        _, names, cell, *_ = re.split(r"(?<!\\)\|", row)
        helps = [entries[each] for each in OPTION.findall(names) if each in entries]
        if helps and "connect" not in names:
            assert numbers(cell) <= numbers(" ".join(helps)), names
            checked += len(numbers(cell))
    assert checked


# Runs.


def shell_lines() -> list[str]:
    """Return every line of the English pages' sh blocks, without its comment."""
    blocks = [
        text
        for page in ENGLISH
        for each in sections(page)
        for language, text in each.blocks
        if language == "sh"
    ]
    joined = "\n".join(blocks).replace("\\\n", " ")
    found = [line.partition("  #")[0].strip() for line in joined.splitlines()]
    return list(dict.fromkeys(line for line in found if line))


def is_run(line: str) -> bool:
    return not any(line.startswith(begin) for begin in NOT_RUN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "old_server.py").write_text(OLD_SERVER)
    package = folder / "some"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "package.py").write_text(OLD_SERVER)
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    return folder


def words_of(line: str, folder: Path) -> list[str]:
    """Return the arguments of a line, with this Python and a free port."""
    words = shlex.split(line)
    if words[0] == "legacy-chat":
        words[:1] = [sys.executable, "-m", "legacy_chat"]
    elif words[0] == "python":
        words[0] = sys.executable
    assert words[0] == sys.executable, line
    if "serve" in words:
        words += ["--host", "127.0.0.1", "--port", "0"]
    return ["0" if word == "8080" else word.replace(":9100", ":0") for word in words]


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "LANG": "en_US.UTF-8"}


SERVERS = [
    line
    for line in shell_lines()
    if is_run(line)
    and re.search(r"legacy-chat serve|old_server\.py|some\.package", line)
]
TOOLS = [
    line
    for line in shell_lines()
    if is_run(line) and line not in SERVERS and "connect" not in line
]


@pytest.mark.parametrize("line", SERVERS)
def test_server_of_a_readme_runs_until_a_signal(line: str, folder: Path) -> None:
    words = words_of(line, folder)
    with process(*words, env=environment(), cwd=folder) as server:
        server.wait_for(r"port \d+|server start")
        os.kill(server.pid, signal.SIGINT)
        assert server.wait() in (0, 1, 130, -signal.SIGINT)


@pytest.mark.parametrize("line", TOOLS)
def test_tool_of_a_readme_ends_with_success(line: str, folder: Path) -> None:
    for name in ("room.trace", "old.trace"):
        if name in line and not (folder / name).exists():
            lesson = ["legacy-chat", "lesson", "1", "--trace", name]
            run(words_of(shlex.join(lesson), folder), folder)
    done = run([word for word in words_of(line, folder) if word != "--follow"], folder)
    assert done.returncode == 0, done.stderr


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment(), "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=3 * DEADLINE,
        check=False,
    )


def test_client_of_a_readme_prints_the_answers() -> None:
    serve = (sys.executable, "-m", "legacy_chat", "serve", "--host", "127.0.0.1")
    with process(*serve, "--port", "0", "-v", env=environment()) as server:
        port = server.wait_for(r"port (\d+), loop", err=True)[1]
        done = subprocess.run(
            [sys.executable, "-m", "legacy_chat", "connect", "--port", port],
            input="hi",
            env={**os.environ, **environment()},
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "hi")
