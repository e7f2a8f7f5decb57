"""``python -m compat.trace`` as users call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compat.nonblocking import is_writable
from compat.trace.cli import followed, main
from compat.trace.reader import Reader, TraceError, read_lines
from tests.compat.trace.synthetic import Room, Trace, hello, large
from tests.support import DEADLINE, ROOT

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return hello().save(tmp_path / "room.trace")


def run(*argv: object) -> int:
    try:
        return main([str(each) for each in argv])
    except SystemExit as error:
        return int(error.code or 0)


def test_text_has_no_colour_without_a_terminal(trace: Path, capsys: Capture) -> None:
    assert run("text", trace) == 0
    output = capsys.readouterr()
    assert 'holds back "o": it may begin the terminator "out"' in output.out
    assert "\x1b[" not in output.out
    assert output.err == ""


def test_color_always_colours_the_text(trace: Path, capsys: Capture) -> None:
    assert run("text", "--color", "always", trace) == 0
    assert "\x1b[1;33m" in capsys.readouterr().out


def test_turns_and_channels_can_be_chosen(trace: Path, capsys: Capture) -> None:
    assert run("text", trace, "--turns", "3-4", "--channel", "ChatSession#2") == 0
    text = capsys.readouterr().out
    assert [line[:6] for line in text.splitlines() if line.startswith("turn")] == [
        "turn 3",
        "turn 4",
    ]
    assert "ChatSession#3" not in text


def test_calls_alone_can_be_chosen(trace: Path, capsys: Capture) -> None:
    assert run("text", "--calls-only", trace) == 0
    text = capsys.readouterr().out
    assert "handle_read" in text
    assert "holds back" not in text


def test_text_is_english_or_chinese(trace: Path, capsys: Capture) -> None:
    assert run("text", "--turns", "1", trace) == 0
    assert run("text", "--turns", "1", "--lang", "zh", trace) == 0
    english, chinese = (
        capsys.readouterr().out.split("turn 1")[1].split("第 1 轮", maxsplit=1)
    )
    assert "handle_accept" in english
    assert "handle_accept" in chinese
    assert "ready to read" in english
    assert "有通道就绪" in chinese
    assert run("text", "--lang", "fr", trace) == 2
    assert "invalid choice: 'fr'" in capsys.readouterr().err


@pytest.mark.parametrize("view", ["text", "mermaid", "html", "perfetto", "doctor"])
def test_file_that_is_not_a_trace_is_one_line_and_status_2(
    tmp_path: Path, capsys: Capture, view: str
) -> None:
    other = tmp_path / "other"
    other.write_text("hello\n")
    empty = tmp_path / "empty"
    empty.write_text("")
    for name, why in [
        (other, "not a trace: its first line is not a trace's header"),
        (empty, "not a trace: it has no complete line"),
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        assert run(view, name) == 2
        output = capsys.readouterr()
        assert output.err == f"python -m compat.trace: {name}: {why}\n"
        assert output.out == ""


@pytest.mark.parametrize(
    "wrong",
    [
        ["--turns", "5-3"],
        ["--turns", "x"],
        ["--turns", "-3"],
        ["--channel", "0"],
        ["--color", "red"],
        [],
    ],
)
def test_invalid_arguments_give_status_2(
    wrong: list[str], trace: Path, capsys: Capture
) -> None:
    assert run("text", *(wrong or ["--follow"]), *([trace] if wrong else [])) == 2
    output = capsys.readouterr()
    assert output.err.startswith("python -m compat.trace text: ")
    assert output.out == ""


@pytest.mark.parametrize("view", ["text", "mermaid", "html", "perfetto"])
@pytest.mark.parametrize("choice", [("--turns", "900-"), ("--channel", "99")])
def test_empty_selection_is_an_error_and_writes_nothing(
    choice: tuple[str, str], trace: Path, tmp_path: Path, capsys: Capture, view: str
) -> None:
    assert run(view, *choice, trace) == 2
    output = capsys.readouterr()
    assert output.out == ""
    why = "the selection is empty: the trace has 13 turns and 4 channels"
    assert output.err == f"python -m compat.trace: {trace}: {why}\n"
    if view != "text":
        assert run(view, *choice, trace, "-o", tmp_path / "new") == 2
        assert not (tmp_path / "new").exists()


def test_empty_trace_prints_nothing(tmp_path: Path, capsys: Capture) -> None:
    empty = Trace().save(tmp_path / "empty.trace")
    assert run("text", empty) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("view", ["mermaid", "html", "perfetto"])
def test_full_disk_is_reported_with_the_files_name(
    trace: Path, capsys: Capture, view: str
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert run(view, trace, "-o", "/dev/full") == 2
    assert capsys.readouterr().err == (
        "python -m compat.trace: /dev/full: No space left on device\n"
    )


@pytest.mark.parametrize("view", ["text", "mermaid", "html", "perfetto"])
def test_cut_trace_is_shown_up_to_the_cut(
    trace: Path, capsys: Capture, view: str
) -> None:
    whole = trace.read_bytes()
    trace.write_bytes(whole[: whole.index(b"collect") + 3])
    assert run(view, trace) == 0
    output = capsys.readouterr()
    assert "ChatSession" in output.out
    line = whole[: whole.index(b"collect")].count(b"\n")
    why = f"cut off or damaged after line {line}"
    assert output.err == f"python -m compat.trace: {trace}: {why}\n"


def test_unfinished_and_full_traces_are_reported(
    tmp_path: Path, capsys: Capture
) -> None:
    room = Room()
    path = room.trace.save(tmp_path / "room.trace")
    assert run("perfetto", path) == 0
    assert "it has no end: the program was still running, or was killed" in (
        capsys.readouterr().err
    )
    room.trace.end("full")
    room.trace.save(path)
    assert run("perfetto", path) == 0
    assert "full; later events are missing" in capsys.readouterr().err


def test_limited_diagram_does_not_report_a_cut_trace(
    trace: Path, capsys: Capture
) -> None:
    assert run("mermaid", "--limit", "3", trace) == 0
    output = capsys.readouterr()
    assert "cut off from turn 1 on" in output.out
    assert output.err == ""


def test_documents_are_written_to_the_named_file(
    trace: Path, tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "out"
    assert run("perfetto", trace, "-o", page) == 0
    assert json.loads(page.read_text())["traceEvents"]
    assert run("mermaid", trace, "--turns", "3", "-o", page) == 0
    assert page.read_text(encoding="utf-8").startswith("sequenceDiagram\n")
    assert run("html", trace, "--lang", "zh", "--title", "a < b", "-o", page) == 0
    assert "a &lt; b" in page.read_text(encoding="utf-8")
    assert run("mermaid", trace, "--turns", "3", "-o", page) == 0
    assert run("mermaid", trace, "--turns", "3") == 0
    assert capsys.readouterr().out == page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("choice", "part"),
    [((), "false"), (("--turns", "3"), "true"), (("--channel", "1"), "true")],
)
def test_page_of_a_selection_is_marked_as_a_part(
    choice: tuple[str, ...], part: str, trace: Path, capsys: Capture
) -> None:
    assert run("html", *choice, trace) == 0
    assert f'"part":{part}' in capsys.readouterr().out


def test_document_never_overwrites_its_trace(
    trace: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = trace.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(trace)
    for name in (trace, link):
        assert run("mermaid", trace, "-o", name) == 2
        assert "this is the trace: name another file" in capsys.readouterr().err
    assert trace.read_bytes() == before


def test_failed_view_keeps_the_old_file(tmp_path: Path) -> None:
    other, page = tmp_path / "other", tmp_path / "page"
    other.write_text("no trace")
    page.write_text("unchanged")
    assert run("perfetto", other, "-o", page) == 2
    assert page.read_text() == "unchanged"


def growing(path: Path, pieces: list[bytes]) -> Callable[[], None]:
    """Return a substitute of the wait for a file, which appends the next piece."""
    left = iter(pieces)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(next(left))

    return grow


def test_file_is_followed_in_any_segmentation(tmp_path: Path) -> None:
    path = tmp_path / "room.trace"
    whole = hello().bytes()
    pieces = [whole[at : at + 53] for at in range(0, len(whole), 53)]
    reader = Reader()
    turns = list(read_lines(followed(str(path), reader, growing(path, pieces)), reader))
    again = Reader()
    assert turns == list(read_lines(whole.splitlines(True), again))
    assert reader.end_reason == again.end_reason == "closed"


def test_followed_file_that_is_not_a_trace_raises(tmp_path: Path) -> None:
    path = tmp_path / "room.trace"
    reader = Reader()
    grow = growing(path, [b"hello", b"\nmore\n"])
    with pytest.raises(TraceError):
        list(read_lines(followed(str(path), reader, grow), reader))


def test_overwritten_file_ends_following(
    trace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = trace.read_bytes().splitlines(True)[:-1]
    trace.write_bytes(b"".join(lines))
    monkeypatch.setattr("compat.trace.cli._pause", lambda: trace.write_bytes(b""))
    assert run("text", "--follow", trace) == 2
    assert "overwritten by another trace" in capsys.readouterr().err


def test_ctrl_c_ends_following_and_shows_the_turn_that_it_is_in(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    room.send(room.enter(), b"hello")
    path = room.trace.save(tmp_path / "room.trace")

    def pause() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compat.trace.cli._pause", pause)
    assert run("text", "--follow", path) == 0
    output = capsys.readouterr()
    assert output.out.count("turn 2 ") == 1
    assert "holds back" in output.out
    assert output.err == ""
    missing = tmp_path / "missing"
    assert run("text", "--follow", missing) == 0
    output = capsys.readouterr()
    assert output.err == (
        f"python -m compat.trace: {missing}: waiting for the file, "
        "Ctrl-C ends the wait\n"
    )


def test_followed_lines_are_shown_at_once_until_the_pipe_closes(trace: Path) -> None:
    whole = trace.read_bytes()
    middle = whole.index(b'"n":5')
    begun = whole[: whole.rindex(b"\n", 0, middle) + 1]
    trace.write_bytes(begun)
    argv = [sys.executable, "-m", "compat.trace", "text", "--follow", str(trace)]
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": ""},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if b"turn 3 " in line:
                break
        process.stdout.close()
        with trace.open("ab") as file:
            file.write(whole[len(begun) :])
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE) == 2


@pytest.mark.parametrize("view", [("text", "--follow"), ("text",), ("perfetto",)])
def test_ctrl_c_ends_a_view_with_a_stalled_reader(
    view: tuple[str, ...], tmp_path: Path
) -> None:
    trace = large(3_000).save(tmp_path / "large.trace")
    argv = [sys.executable, "-m", "compat.trace", *view, str(trace)]
    reading, writing = os.pipe()
    with (
        open(reading, "rb"),
        subprocess.Popen(
            argv, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT
        ) as process,
    ):
        while is_writable(writing):
            """It has not filled the pipe yet."""
        os.close(writing)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b"python -m compat.trace: interrupted\n"
        assert process.wait(DEADLINE) == 2


def test_trace_is_read_from_standard_input(trace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compat.trace", "mermaid", "-"],
        input=trace.read_bytes(),
        capture_output=True,
        cwd=ROOT,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert "用户" in done.stdout.decode("utf-8")
    assert done.stderr == b""


def test_doctor_finds_nothing_in_a_short_conversation(
    tmp_path: Path, capsys: Capture
) -> None:
    room = Room()
    room.send(room.enter(), b"hello")
    room.trace.end()
    assert run("doctor", room.trace.save(tmp_path / "room.trace")) == 0
    assert capsys.readouterr() == ("nothing found\n", "")


def test_doctor_with_findings_has_status_1(trace: Path, capsys: Capture) -> None:
    assert run("doctor", trace) == 1
    output = capsys.readouterr()
    assert "UnicodeDecodeError" in output.out
    assert output.out.endswith("\n1 finding\n")
    assert output.err == ""


def test_doctor_uses_the_threshold_of_slow(tmp_path: Path, capsys: Capture) -> None:
    room = Room()
    room.send(room.enter(), b"hello")
    room.trace.end()
    saved = room.trace.save(tmp_path / "room.trace")
    assert run("doctor", "--slow", "1e-6", saved) == 1
    assert "blocks the loop" in capsys.readouterr().out


@pytest.mark.parametrize("slow", ["0", "-1", "soon", "nan", "inf"])
def test_invalid_slow_threshold_is_an_error(
    trace: Path, capsys: Capture, slow: str
) -> None:
    assert run("doctor", f"--slow={slow}", trace) == 2
    output = capsys.readouterr()
    assert f"must be a number from 1e-06 to 1,000,000, got '{slow}'" in output.err
    assert output.out == ""


def test_doctor_help_has_thresholds_and_status(capsys: Capture) -> None:
    assert run("doctor", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "a callback that takes 0.25 s once, or 0.1 s 3 times" in text
    assert "exit status is 0 without findings, 1 with findings, 2 if" in text


def test_trace_equals_itself(trace: Path, capsys: Capture) -> None:
    assert run("diff", "--strict", trace, trace) == 0
    assert capsys.readouterr() == ("no difference\n", "")


def test_diff_prints_the_difference_with_status_1(
    tmp_path: Path, capsys: Capture
) -> None:
    files = []
    for output in (b"hello", b"hella"):
        room = Room()
        room.send(room.enter(), output)
        room.trace.end()
        files.append(room.trace.save(tmp_path / output.decode()))
    assert run("diff", *files) == 1
    assert "ChatSession 1, call 1: other bytes" in capsys.readouterr().out


def test_diff_names_the_file_that_is_not_a_trace(
    tmp_path: Path, trace: Path, capsys: Capture
) -> None:
    other = tmp_path / "other"
    other.write_text("hello\n")
    assert run("diff", trace, other) == 2
    output = capsys.readouterr()
    assert output.err == (
        f"python -m compat.trace: {other}: not a trace: its first line is not a "
        "trace's header\n"
    )
    assert run("diff", "-", "-") == 2
