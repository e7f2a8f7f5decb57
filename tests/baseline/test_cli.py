"""The commands of legacy-chat baseline, with their output and exit status."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from legacy_chat.baseline import find_transcripts, load
from legacy_chat.baseline.cli import main
from legacy_chat.baseline.replay.server import Target
from tests.baseline.line_server import line_server
from tests.baseline.rewrites import COMMAND
from tests.baseline.targets import in_thread
from tests.support import ROOT, Peer, process

SCENARIO = """\
{"format": "legacy-chat-transcript", "version": 1, "title": "a line"}
{"client": "a", "do": "open"}
{"client": "a", "do": "send", "data": "TOKEN\\r\\n"}
{"client": "a", "do": "send", "data": "QUIT\\r\\n"}
"""
PROFILE = """\
framing = "stream"
quiet = 0.05
[[volatile]]
name = "token"
pattern = "[0-9a-f]{8}"
[[volatile]]
name = "time"
pattern = '\\d\\d:\\d\\d:\\d\\d'
bind = "any"
"""
RIGHT = COMMAND.replace("NAME", "right")


def address_of(target: Target) -> str:
    """Return the value of --connect for a server that runs."""
    assert target.address is not None
    host, port = target.address
    return f"{host}:{port}"


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "lines.toml").write_text(PROFILE, "utf8")
    path = tmp_path / "talk.jsonl"
    path.write_text(SCENARIO, "utf8")
    return path


def test_a_scenario_is_recorded_and_checked(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = tmp_path / "recorded.jsonl"
    profile = ["--profile", str(tmp_path / "lines.toml")]
    with line_server() as endpoint:
        where = ["--connect", f"{endpoint.host}:{endpoint.port}", *profile]
        assert main(["record", str(scenario), "-o", str(recorded), *where]) == 0
        assert main(["check", str(recorded), *where, "--cut", "every byte"]) == 0
    with line_server("you shout") as endpoint:
        where = ["--connect", f"{endpoint.host}:{endpoint.port}", *profile]
        assert main(["check", str(recorded), *where]) == 1
    assert load(recorded).header.framing == "stream"
    out, err = capsys.readouterr()
    assert "1 conversation: 1 the same" in out
    assert "step 3" in out
    assert err == ""


def test_recording_warns_of_steps_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, recorded = tmp_path / "half.jsonl", tmp_path / "recorded.jsonl"
    head, come, *_ = SCENARIO.splitlines()
    send = '{"client": "a", "do": "send", "data": "half a line"}'
    scenario.write_text("\n".join([head, come, send]), "utf8")
    with line_server() as endpoint:
        where = ["--connect", f"{endpoint.host}:{endpoint.port}", "--quiet", "0.05"]
        assert main(["record", str(scenario), "-o", str(recorded), *where]) == 0
    silent, advice = capsys.readouterr().err.splitlines()
    assert 'warning: step 2, a sends "half a line": no data within 0' in silent
    assert "longer --quiet" in advice
    assert load(recorded).header.quiet == 0.05


def test_recording_with_a_barrier_has_no_quiet_header(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    scenario = str(find_transcripts("k2-held-back")[0])
    argv = ["record", scenario, "--loop", "selectors", "--quiet", "60"]
    assert main([*argv, "-o", str(recorded)]) == 0
    assert '"quiet"' not in recorded.read_text("utf8")


@pytest.mark.parametrize(
    "text", ["hello", "open a\nsend a hello\n", SCENARIO + "and so on\n", "[]"]
)
def test_invalid_scenario_prints_an_example(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talk.txt"
    path.write_text(text, "utf8")
    assert main(["record", str(path), "-o", "x", "--connect", "1"]) == 2
    error, *example = capsys.readouterr().err.splitlines()
    assert re.search(
        r"talk\.txt, line \d: .* header and one line for each action", error
    )
    path.write_text("\n".join(line[4:] for line in example), "utf8")
    assert next(step.action.do for step in load(path).steps) == "open"


def test_check_with_another_profile_prints_a_note(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, mine = tmp_path / "recorded.jsonl", str(tmp_path / "lines.toml")
    with line_server() as endpoint:
        where = ["--connect", f"{endpoint.host}:{endpoint.port}"]
        main(["record", str(scenario), "-o", str(recorded), *where, "--profile", mine])
        assert main(["check", str(recorded), *where, "--profile", mine]) == 0
        assert "profile" not in capsys.readouterr().out
        main(["check", str(recorded), *where, "--profile", "plain"])
        note = "recorded with the profile 'lines.toml', and checked with 'plain'"
        assert note in capsys.readouterr().out
        main(["check", str(recorded), *where, "--profile", "plain", "--json"])
        assert note in json.loads(capsys.readouterr().out)["results"][0]["note"]


def test_fuzz_plays_the_requested_number_of_conversations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with in_thread("right") as right:
        servers = ["--reference", RIGHT, "--connect", address_of(right)]
        assert main(["fuzz", *servers, "--conversations", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 conversations, 90 steps")


def test_check_without_a_file_checks_this_installation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "--loop", "selectors", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    files = len(find_transcripts("kept")) + len(find_transcripts("repaired/ours"))
    assert read["conversations"] == files
    assert {each["on"] for each in read["results"]} == {"selectors"}


def test_difference_of_a_wrong_rewrite_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "report.xml"
    with in_thread("forgets-k2") as wrong:
        server = ["--connect", address_of(wrong)]
        assert main(["check", "k2-held-back", *server, "--junit", str(junit)]) == 1
    assert capsys.readouterr().out.splitlines()[:8] == [
        'kept/k2-held-back, step 3: a sends "hello"',
        "  a, byte 4:",
        '    recorded  "hell"',
        '    now       "hello"',
        "                   ^",
        "  b, byte 18:",
        '    recorded  "用户{a} 说:hell"',
        '    now       "用户{a} 说:hello"',
    ]
    assert 'failures="1"' in junit.read_text("utf8")


def test_check_and_minimise_reproduce_a_difference_of_fuzz(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.jsonl"
    again = tmp_path / "again.jsonl"
    with in_thread("right") as right, in_thread("forgets-k2") as wrong:
        target = ["--connect", address_of(wrong)]
        servers = ["--reference", RIGHT, *target]
        assert main(["fuzz", *servers, "--conversations", "3", "-o", str(found)]) == 1
        assert "conversation 0 is answered differently" in capsys.readouterr().out
        assert main(["check", str(found), *target]) == 1
        assert main(["check", str(found), "--connect", address_of(right)]) == 0
        assert main(["minimise", str(found), *servers, "-o", str(again)]) == 1
    assert list(load(again).steps) == list(load(found).steps)


def test_show_and_diff_print_transcripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "kept/k3-out", "--width", "200"]) == 0
    assert main(["show", "kept/k3-out", "--html"]) == 0
    assert main(["show", "kept/k3-out", "--mermaid"]) == 0
    assert main(["show", "--list"]) == 0
    shown = capsys.readouterr().out
    for part in ("a     ", "<!DOCTYPE html>", "sequenceDiagram", "repaired/ours/r2"):
        assert part in shown
    pair = [f"repaired/{which}/r4-second-out" for which in ("original", "ours")]
    assert main(["diff", *pair]) == 1
    assert "step 3: a sends" in capsys.readouterr().out
    assert main(["diff", pair[0], pair[0]]) == 0


def test_a_proxy_records_until_it_is_stopped(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    with line_server() as endpoint:
        command = (sys.executable, "-m", "legacy_chat", "baseline", "record")
        where = (
            "--proxy",
            "127.0.0.1:0",
            "--connect",
            f"{endpoint.host}:{endpoint.port}",
        )
        where += ("--quiet", "0.05")
        with process(*command, *where, "-o", str(recorded), cwd=ROOT) as proxy:
            port = proxy.wait_for(r"listening on .* port (\d+)", err=True)[1]
            peer = Peer(("127.0.0.1", int(port)))
            peer.send("QUIT\r\n")
            peer.wait_for_end()
            peer.close()
            proxy.popen.send_signal(signal.SIGTERM)
            assert proxy.wait() == 0
    steps = [step.action.do for step in load(recorded).steps]
    assert steps[:2] == ["open", "send"]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["check", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["check", "k3-out", "--profile", "nobody"], "profile 'nobody' is none of"),
        (["check", "k3-out", "--command", "server"], r"takes no \{port\}"),
        (["check", "--command", "x {port}", "--loop", "select"], "--loop needs"),
        (["check", "--connect", "1", "--jobs", "2"], "each job starts a server"),
        (["record", "-o", "x"], "needs a SCENARIO, or --proxy"),
        (["record", "--proxy", "1", "-o", "x"], "needs --connect"),
        (["record", "k3-out.jsonl", "-o", "x"], "No such file"),
        (["show"], "needs a FILE"),
        (["diff", "kept", "k3-out"], "name one"),
        (["fuzz"], "name the server"),
        (["fuzz", "--profile", "lines", "--connect", "1"], "--reference"),
    ],
)
def test_failed_command_prints_one_line_with_status_2(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" or argv[0] == "check"
    assert err.count("\n") == 1 or "could not be played" in out
    assert re.search(why, out + err)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["chekc"],
        ["check", "--connect", "nowhere"],
        ["check", "--jobs", "0"],
        ["check", "--cut", "in half"],
        ["check", "--timeout", "-1"],
        ["fuzz", "--minutes", "long"],
    ],
)
def test_invalid_arguments_give_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2


def test_serve_does_not_import_baseline() -> None:
    code = (
        "import sys; from legacy_chat.cli import main; sys.argv[1:] = ['--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if 'baseline' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
