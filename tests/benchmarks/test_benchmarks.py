"""The benchmark, end to end, with windows that are too short for a measurement."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.benchmarks import c_program, frames
from tests.benchmarks.__main__ import main
from tests.benchmarks.load import clients, compiled
from tests.benchmarks.load.measure import LoadError
from tests.benchmarks.run import Run, why_not
from tests.benchmarks.scenarios import USUAL, UnknownScenarioError, scenario
from tests.benchmarks.servers import SERVERS, Server, wire
from tests.benchmarks.table import rows, table

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the load needs epoll and /proc"
)

compiler = pytest.mark.skipif(
    c_program.compiler() is None, reason="the generator in C needs a compiler"
)

# Servers that need no package beside those of the tests.
SERVED = tuple(
    name
    for name in SERVERS
    if name.startswith(("legacy-chat", "pyasyncore", "asyncio", "plain"))
)
# Each sender sends at least once, however short the window; a flood needs longer.
SHORT = ("--seconds", "0.02", "--warm-up", "0.02", "--repeat", "1")
ENOUGH_FOR_A_FLOOD = ("--seconds", "0.2")


@linux
def test_run_counts_every_delivery_and_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    assert (
        main(["--scenario", "room-6-2", *_servers(SERVED), *SHORT, *_json(file)]) == 0
    )
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [run["server"] for run in report["runs"]] == list(SERVED)
    for run in report["runs"]:
        assert run["messages"] > 0
        assert run["deliveries"] == run["messages"] * 6
        # The senders have two addresses of the loopback, and ports of five digits.
        prefix = len("用户127.0.1.112345 说:".encode())
        assert run["bytes"] == run["deliveries"] * 32 + run["messages"] * 5 * prefix
        assert run["server_cpu"] > 0
        assert 0 < run["p50"] <= run["p99"]


@linux
@pytest.mark.parametrize(
    "name",
    [
        "room-5-5",
        "room-echo-3",
        "room-idle-3",
        "visits",
        "visits-1",
        "echo-3",
        "idle-3",
        "churn",
        "flood",
        "memory-30",
    ],
)
@pytest.mark.parametrize("language", [pytest.param("C", marks=compiler), "Python"])
def test_scenario_runs_on_our_server_and_on_plain_epoll(
    name: str, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if language == "Python":
        _hide_compiler(monkeypatch)
    elif name == "memory-30":
        pytest.skip("the generator of this scenario is always in Python")
    file = tmp_path / "runs.json"
    served = ("legacy-chat selectors", "plain epoll coalescing")
    seconds = ENOUGH_FOR_A_FLOOD if name == "flood" else ()
    options = (*SHORT, *seconds, *_servers(served), *_json(file))
    assert main(["--scenario", name, *options]) == 0
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert all(run["deliveries"] > 0 for run in runs)
    assert {run["generator"] for run in runs} == {language}


@linux
def test_frame_loops_are_compared_in_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.json"
    assert main(["--scenario", "frames-5", *SHORT, *_json(file)]) == 0
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert [run["server"] for run in runs] == [
        "pyasyncore select",
        "legacy-chat selectors",
        "legacy-chat selectors, installed",
    ]
    assert all(run[kind] > 0 for run in runs for kind in frames.KINDS)
    assert "legacy-chat selectors, installed" in capsys.readouterr().out


@linux
def test_benchmark_that_cannot_run_prints_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    served = ("pyasyncore select",)
    assert main(["--scenario", "idle-5000", *_servers(served), *SHORT]) == 0
    assert "no: more than select can watch" in capsys.readouterr().out


@linux
def test_unknown_server_name_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--server", "apache"])
    assert "plain epoll coalescing" in capsys.readouterr().err


def test_scenario_name_contains_its_parameters() -> None:
    assert all(scenario(name).name == name for name in USUAL)
    for name in (
        "room-2-3",
        "room-5",
        "echo-0",
        "churn-5",
        "idle",
        "",
        "echo-10000",
        "room-echo",
        "visits-0",
        "frames",
    ):
        with pytest.raises(UnknownScenarioError):
            scenario(name)


def test_row_has_medians_and_shows_an_error() -> None:
    figures = {"seconds": 1.0, "server_cpu": 0.5, "generator_cpu": 0.6}
    runs = [
        Run("room-6-2", server, 1, {**figures, "deliveries": count})
        for server, counts in (("uvloop", (30, 10, 20)), ("pyasyncore select", (10,)))
        for count in counts
    ]
    runs.append(Run("room-6-2", "gevent", 1, {}, "an echo did not arrive"))
    of = rows(("uvloop", "pyasyncore select", "gevent"), runs, {})
    assert (of[0].rate, of[0].ratio, of[0].generator_was_busier) == (20, 2, True)
    assert "error: an echo did not arrive" in table(scenario("room-6-2"), of)


def test_missing_package_of_a_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = (("no_such_module", "no-such-package"),)
    monkeypatch.setitem(SERVERS, "other", Server("other", needs=needs))
    assert why_not("other", scenario("churn")) == "missing: pip install no-such-package"


@linux
@pytest.mark.parametrize("copies", [0, 2])
def test_server_that_loses_or_repeats_data_is_an_error(
    copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "STALL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_echo, args=(listener, copies))
        server.start()
        with pytest.raises(LoadError, match=r"bytes|did not arrive|after all"):
            _join_and_check(listener.getsockname()[1])
        server.join()


@linux
@compiler
@pytest.mark.parametrize("name", ["echo-1", "visits-1"])
@pytest.mark.parametrize("copies", [0, 2])
def test_generator_in_c_reports_lost_or_repeated_data(
    name: str, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "STALL", 0.1)
    expected = {
        ("echo-1", 0): "an echo did not arrive within 0.1 s",
        ("echo-1", 2): "client 0 received a message that was not due",
        ("visits-1", 0): "no data for 0.1 s",
        ("visits-1", 2): "a visit has ended with 00000001 will leave me < >00000001",
    }
    assert _error_in_c(name, _echo, copies).startswith(expected[name, copies])


@linux
@compiler
@pytest.mark.parametrize("copies", [0, 2])
def test_generator_in_c_counts_the_bytes_of_receivers(
    copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "STALL", 0.1)
    expected = "client 0 got " if copies else "client 0 received 0 of "
    assert _error_in_c("room-3-1", _broadcast_once, copies).startswith(expected)


def _error_in_c(
    name: str, serve: Callable[[socket.socket, int], None], copies: int
) -> str:
    """Put the load in C on a faulty server; return the error that it reports."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener, copies))
        server.start()
        port = listener.getsockname()[1]
        words = compiled.command(scenario(name), os.getpid(), port, 0.02, 0.02)
        assert words is not None
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        server.join()
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@linux
def test_compiler_that_fails_is_reported_and_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "false")
    assert compiled.command(scenario("echo-1"), 1, 1, 1, 1) is None
    assert "the generator in C cannot be built" in capsys.readouterr().err


@linux
@compiler
@pytest.mark.parametrize("name", ["load/generator", "servers"])
def test_program_in_c_compiles_without_a_warning(name: str, tmp_path: Path) -> None:
    found = c_program.compiler()
    assert found is not None
    sources = Path(c_program.__file__).parent.joinpath(name).glob("*.c")
    c_program.build((*found, "-Werror"), sources, tmp_path / "program")


@linux
@compiler
@pytest.mark.parametrize(
    "name", ["room-6-6", "room-echo-3", "visits", "churn", "echo-3"]
)
def test_server_in_c_keeps_the_protocol(name: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    served = ("C epoll", "C epoll coalescing")
    options = ("--scenario", name, *SHORT, *_servers(served), *_json(file))
    assert main(list(options)) == 0


def test_server_in_c_without_a_compiler_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _hide_compiler(monkeypatch)
    assert why_not("C epoll", scenario("churn")) == c_program.NO_COMPILER


def _hide_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", os.devnull)


def _join_and_check(port: int) -> None:
    with closing(clients.Clients(port, is_room=False)) as joined:
        joined.join(1)
        joined.check_silence()


def _echo(listener: socket.socket, copies: int) -> None:
    """Send the data of one client back, that number of times; ``out`` ends it."""
    sock, _ = listener.accept()
    with sock, contextlib.suppress(ConnectionError):
        while data := sock.recv(4096):
            text = data.removesuffix(b"out")
            sock.sendall(text * copies)
            if text != data:
                return


def _broadcast_once(listener: socket.socket, copies: int) -> None:
    """Serve the first message in a room of three, with copies for the receivers."""
    first, second, sender = (listener.accept()[0] for _ in range(3))
    with first, second, sender, contextlib.suppress(ConnectionError):
        data = sender.recv(4096)
        text = wire.prefix(wire.user(*sender.getpeername())) + data
        for receiver in (first, second):
            receiver.sendall(text * copies)
        sender.sendall(data)
        # The generator's end.
        sender.recv(4096)


def _servers(names: tuple[str, ...]) -> list[str]:
    return ["--server", *names]


def _json(file: Path) -> list[str]:
    return ["--json", str(file)]
