"""No file, name, option or closed stream causes a traceback or a wrong status.

Rule: a failure has the status 2 and one line with its reason. 0 and 1 are the results
of comparisons.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from legacy_chat.baseline import Action, Received, Result, TranscriptHeader, save
from legacy_chat.baseline.cli import main
from legacy_chat.baseline.model.compare import Mismatch
from legacy_chat.baseline.model.format import Step, Transcript
from legacy_chat.baseline.model.shipped import TRANSCRIPTS
from legacy_chat.baseline.report.results import as_json, write_junit
from tests.baseline.line_server import line_server
from tests.support import ROOT

HEAD = '{"format": "legacy-chat-transcript", "version": 1'
KEPT = TRANSCRIPTS / "kept" / "k3-out.jsonl"
BASELINE = (sys.executable, "-m", "legacy_chat", "baseline")

# Characters that control a terminal, end or reverse a line, or are invisible.
NASTY = "\x1b]0;owned\x07\x9b2J\r\n\u202e\u200b\u2028\ufeff\U000e0041\x00\ufffe"
STEERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u202e\ufeff\U000e0041\ufffe]")

needs_full = pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="this system has no /dev/full"
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Write a transcript whose names and texts try to control a terminal."""
    path = tmp_path / "nasty.jsonl"
    steps = [
        Step(Action(NASTY, "open"), {}),
        Step(Action(NASTY, "send", NASTY.encode()), {NASTY: Received(NASTY.encode())}),
    ]
    save(path, Transcript(TranscriptHeader(NASTY, NASTY), steps))
    return path


@pytest.mark.parametrize(
    "form", [[], ["--lines"], ["--width", "200"], ["--mermaid"], ["--html"]]
)
def test_transcript_cannot_steer_a_terminal(
    nasty: Path, form: list[str], capsys: Capture
) -> None:
    assert main(["show", str(nasty), *form]) == 0
    output = capsys.readouterr()
    assert not STEERS.search(output.out)
    assert "owned" in output.out
    assert output.err == ""


def test_names_add_no_line_to_a_diagram(nasty: Path, capsys: Capture) -> None:
    assert main(["show", str(nasty), "--mermaid"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "sequenceDiagram",
        *2 * ["participant"],
        *2 * ["c0->>server:"],
        "server-->>c0:",
    ]


def test_names_cannot_steer_a_terminal_in_a_diff(
    nasty: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "other.jsonl"
    save(other, Transcript(TranscriptHeader(), [Step(Action("b" + NASTY, "open"), {})]))
    assert main(["diff", str(nasty), str(other)]) == 1
    assert not STEERS.search(capsys.readouterr().out)


def test_names_of_files_and_options_stay_on_one_line(capsys: Capture) -> None:
    name = NASTY.replace("\0", "")
    for argv in (
        ["check", name],
        ["show", name],
        ["record", name, "-o", "x"],
        ["check", "k3-out", "--profile", name],
        ["check", "k3-out", "--profile", f"{name}.toml"],
    ):
        assert main(argv) == 2
        output = capsys.readouterr()
        assert not STEERS.search(output.out + output.err)
        assert output.err.count("\n") == 1
    assert main(["check", "k3-out", "--command", name]) == 2
    assert not STEERS.search(capsys.readouterr().out)
    for argv in (["show", "x", f"--{name}"], ["check", "x", "--cut", name], [name]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2
        assert not STEERS.search(capsys.readouterr().err)


def test_output_of_a_server_cannot_steer_a_terminal(capsys: Capture) -> None:
    code = "import sys; print('\\x1b]0;owned\\x07\\n\\x9b2J'); sys.exit(1)"
    command = f'{{python}} -c "{code}" {{port}}'
    assert main(["check", "k3-out", "--command", command]) == 2
    output = capsys.readouterr()
    assert r"  | \x1b]0;owned\x07" in output.out.splitlines()
    assert not STEERS.search(output.out + output.err)


def test_junit_and_json_reports_are_valid_for_any_bytes(tmp_path: Path) -> None:
    name = f"{NASTY}\ud800"
    found = Mismatch(
        1,
        Action(name, "send", b"\x1b"),
        {name: Received(b"a")},
        {name: Received(b"\x00\xff")},
    )
    results = [
        Result(name, name, difference=found),
        Result(name, error=name),
        Result(name, skipped=name),
    ]
    write_junit(tmp_path / "report.xml", results, 1.0)
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert [len(case) for case in suite] == [1, 1, 1]
    text = as_json(results, 1.0)
    assert not STEERS.search(text)
    assert json.loads(text)["results"][1]["error"] == name


def test_transcript_cannot_name_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    owned = tmp_path / "owned"
    profile = tmp_path / "evil.toml"
    profile.write_text(f'server = "touch {owned} {{port}}"', "utf8")
    path = tmp_path / "sent.jsonl"
    for name in ("evil", str(profile)):
        path.write_text(
            f'{HEAD}, "profile": "{name}"}}\n{{"client": "a", "do": "open"}}'
        )
        for argv in (
            ["check", str(path)],
            ["minimise", str(path), "--loop", "select"],
            ["record", str(path), "-o", "recorded.jsonl"],
        ):
            assert main(argv) == 2
            output = capsys.readouterr()
            assert (
                "only --profile FILE.toml reads another one" in output.out + output.err
            )
    assert not owned.exists()


def test_recording_names_its_profile_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    profile, scenario, recorded = (
        tmp_path / each for each in ("mine.toml", "talk.jsonl", "recorded.jsonl")
    )
    profile.write_text('framing = "stream"', "utf8")
    scenario.write_text(f'{HEAD}}}\n{{"client": "a", "do": "open"}}')
    with line_server() as endpoint:
        where = ["--connect", f"{endpoint.host}:{endpoint.port}"]
        profiled = [*where, "--profile", str(profile)]
        command = ["record", str(scenario), "-o", str(recorded), "--quiet", "0.05"]
        assert main([*command, *profiled]) == 0
        assert '"profile": "mine.toml"' in recorded.read_text("utf8")
        assert stat.S_IMODE(recorded.stat().st_mode) == 0o600
        assert main(["check", str(recorded), *where]) == 2
        assert "'mine.toml' is none of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["check", "k3-out", "--command", "x '{port}"], "No closing quotation"),
        (["check", "k3-out", "--connect", "a..b:1"], "cannot connect to a..b:1"),
        (["record", "/dev/null", "-o", "x"], "/dev/null: not a transcript"),
        (["check", "k3-out", "--junit", "KEPT"], "is an input: name another file"),
    ],
)
def test_wrong_option_is_status_2(argv: list[str], why: str, capsys: Capture) -> None:
    before = KEPT.read_bytes()
    assert main([each.replace("KEPT", str(KEPT)) for each in argv]) == 2
    output = capsys.readouterr()
    assert why in output.out + output.err
    assert KEPT.read_bytes() == before


@pytest.mark.parametrize(
    "option",
    [
        ["show", "k3-out", "--width", "9" * 20],
        ["show", "k3-out", "--width", "9" * 5000],
        ["show", "k3-out", "--width", "²"],
        ["check", "--jobs", "9" * 20],
        ["check", "--repeat", "9" * 20],
        ["check", "--timeout", "nan"],
        ["check", "--timeout", "9" * 5000],
        ["check", "--connect", f"a:{'9' * 5000}"],
        ["check", "--cut", f"at {'9' * 5000}"],
        ["fuzz", "--seed", "9" * 5000],
        ["fuzz", "--minutes", "inf"],
        ["fuzz", "--conversations", "9" * 20],
    ],
)
def test_number_that_is_too_large_is_status_2(
    option: list[str], capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(option)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err) < 6000


def test_wide_terminal_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "9" * 20)
    assert main(["show", "k3-out"]) == 0
    assert "out" in capsys.readouterr().out


def test_fault_of_the_tool_is_not_a_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("legacy_chat.baseline.commands.differences", None)
    assert main(["diff", "k3-out", "k3-out"]) == 2
    assert "Traceback" in capsys.readouterr().err


def shell(script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run ``legacy-chat baseline ARGV``, with the redirections of *script*."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {script}', "sh", *BASELINE, *argv],
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize(("right", "status"), [("k3-out", 0), ("k2-held-back", 1)])
def test_closed_streams_do_not_change_the_status(
    closed: str, right: str, status: int
) -> None:
    done = shell(closed, "diff", "kept/k3-out", right)
    assert done.returncode == status
    assert done.stderr == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["show", "k3-out"],
        ["check", "--json", "k3-out"],
        ["record", "k3-out.jsonl", "-o", "-", "--connect", "1"],
    ],
)
def test_closed_standard_output_is_an_error_if_it_is_needed(argv: list[str]) -> None:
    argv = [each.replace("k3-out.jsonl", str(KEPT)) for each in argv]
    done = shell(">&-", *argv)
    assert done.returncode == 2
    assert done.stderr == "legacy-chat baseline: standard output is closed\n"


def test_standard_input_without_lines_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("legacy_chat.baseline.model.format.LONGEST_LINE", 1 << 16)
    with open("/dev/zero") as zeros:
        monkeypatch.setattr(sys, "stdin", zeros)
        assert main(["show", "-"]) == 2
    assert "standard input, line 1: a line must be shorter" in capsys.readouterr().err


def test_standard_input_can_be_named_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(f'{HEAD}}}\n{{"client": "a", "do": "open"}}')
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["diff", "-", "-"]) == 0
        assert main(["diff", "-", "k3-out"]) == 1


def test_closed_standard_input_is_an_error() -> None:
    done = shell("<&-", "show", "k3-out")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell("<&-", "record", "-", "-o", "x", "--connect", "1")
    assert done.returncode == 2
    assert done.stderr == "legacy-chat baseline: standard input is closed\n"


@pytest.mark.parametrize("form", ["--html", "--mermaid"])
def test_document_is_utf8_on_an_ascii_terminal(form: str) -> None:
    done = subprocess.run(
        [*BASELINE, "show", "k1-echo-and-broadcast", form],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert "用户" in done.stdout.decode()


@needs_full
@pytest.mark.parametrize(
    "argv", [["show", "k3-out"], ["diff", "k3-out", "k4-after-out"]]
)
def test_full_standard_output_is_an_error(argv: list[str]) -> None:
    done = shell("> /dev/full", *argv)
    assert done.returncode == 2
    why = "legacy-chat baseline: standard output: No space left on device\n"
    assert done.stderr == why


@needs_full
@pytest.mark.parametrize(
    ("argv", "status"),
    [(["show", "missing"], 2), (["show", "--nonsense"], 2), (["show", "k3-out"], 0)],
)
def test_full_standard_error_does_not_change_the_status(
    argv: list[str], status: int
) -> None:
    assert shell("2> /dev/full", *argv).returncode == status


def test_reader_that_closes_early_is_not_reported() -> None:
    done = shell("| head -n 1", "show", "kept")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@needs_full
def test_recording_does_not_replace_a_device(tmp_path: Path) -> None:
    scenario = tmp_path / "talk.jsonl"
    scenario.write_text(f'{HEAD}}}\n{{"client": "a", "do": "open"}}')
    with line_server() as endpoint:
        where = ("--connect", f"{endpoint.host}:{endpoint.port}", "--quiet", "0.05")
        done = shell("", "record", str(scenario), "-o", "/dev/full", *where)
    assert done.returncode == 2
    why = "legacy-chat baseline: /dev/full: No space left on device\n"
    assert done.stderr == why
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
