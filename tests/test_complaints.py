"""For any argument, a command's error is one line that steers no terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compat import cli as compat_cli
from compat.trace import cli as views
from legacy_chat import cli as command

# Line ends, an escape sequence, reversed text, invalid UTF-8.
ODD = "a\n\r\x1b[2J\x9b\u2028\u202e\udcff\u200b\U000e0041z"

MAINS: dict[str, Callable[[list[str]], int]] = {
    "legacy-chat": command.main,
    "compat": compat_cli.main,
    "compat.trace": views.main,
}


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Restore the signals that ``connect`` ignores until its process ends."""
    before = {each: signal.getsignal(each) for each in command.STOPS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    "argv",
    [
        ["legacy-chat", "serve", "--port", ODD],
        ["legacy-chat", "serve", "--metrics", f"{ODD}:0", "--port", "0"],
        ["legacy-chat", "serve", f"--{ODD}"],
        ["legacy-chat", "serve", "--tls-cert", ODD],
        ["legacy-chat", "serve", "--trace", f"/no such/{ODD}", "--port", "0"],
        ["legacy-chat", "connect", ODD],
        ["legacy-chat", "connect", "--tls", "--tls-ca", ODD],
        ["legacy-chat", "connect", "there", ODD],
        ["legacy-chat", ODD],
        ["legacy-chat", "lesson", ODD],
        ["legacy-chat", "lesson", "1", f"--{ODD}"],
        ["legacy-chat", "lesson", "1", "--html", f"/no such/{ODD}"],
        ["legacy-chat", "baseline", ODD],
        ["legacy-chat", "baseline", "check", f"/no such/{ODD}"],
        ["legacy-chat", "baseline", "check", f"a**b[{ODD}"],
        ["legacy-chat", "baseline", "show", f"--{ODD}"],
        ["compat", "--loop", ODD, "script.py"],
        ["compat", f"--{ODD}", "script.py"],
        ["compat", "--trace", f"/no such/{ODD}", "script.py"],
        ["compat", "--trace", "t", "--trace-max", "9" * 5000, "script.py"],
        ["compat", "--trace", "t", "--trace-payload", "9" * 5000, "script.py"],
        ["legacy-chat", "serve", "--backlog", "9" * 5000],
        ["legacy-chat", "lesson", "9" * 5000],
        ["compat.trace", "text", ODD],
        ["compat.trace", "text", "--turns", ODD, "file"],
        ["compat.trace", "diff", "a", "b", ODD],
    ],
)
def test_error_of_a_command_is_one_printable_line(
    argv: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compat_cli, "install", lambda loop: None)
    main, *rest = argv
    status: object
    try:
        status = MAINS[main](rest)
    except SystemExit as end:
        status = end.code
    assert status in (1, 2)
    shown = capfd.readouterr().err
    assert shown.endswith("\n")
    assert shown[:-1].isprintable()
    assert len(shown) < 300
    assert "--metrics" not in argv or "serve metrics" in shown
