"""The benchmark, end to end, with windows that are too short to measure anything."""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.load import crowd
from tests.benchmarks.load.measure import LoadError
from tests.benchmarks.run import Run, why_not
from tests.benchmarks.scenarios import USUAL, UnknownScenarioError, scenario
from tests.benchmarks.servers import SERVERS, Server
from tests.benchmarks.table import rows, table

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the load needs epoll and /proc"
)

# What is installed with the tests themselves.
SERVED = tuple(
    name
    for name in SERVERS
    if name.startswith(("legacy-chat", "pyasyncore", "asyncio", "plain"))
)
# Who speaks says something, however short the time is; only a flood begins in its own.
SHORT = ("--seconds", "0.02", "--warm-up", "0.02", "--repeat", "1")
ENOUGH_FOR_A_FLOOD = ("--seconds", "0.2")


@linux
def test_every_delivery_is_counted_and_every_run_reported(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    assert (
        main(["--scenario", "room-6-2", *_servers(SERVED), *SHORT, *_json(file)]) == 0
    )
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [run["server"] for run in report["runs"]] == list(SERVED)
    for run in report["runs"]:
        assert run["messages"] > 0
        assert run["deliveries"] == run["messages"] * 6
        # Two of the loopback's addresses speak, with ports of five digits.
        voice = len("用户127.0.1.112345 说:".encode())
        assert run["bytes"] == run["deliveries"] * 32 + run["messages"] * 5 * voice
        assert run["server_cpu"] > 0


@linux
@pytest.mark.parametrize("name", ["echo-3", "idle-3", "churn", "flood", "memory-30"])
def test_every_scenario_can_be_run(name: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    served = ("legacy-chat selectors", "plain epoll gathering")
    seconds = ENOUGH_FOR_A_FLOOD if name == "flood" else ()
    options = (*SHORT, *seconds, *_servers(served), *_json(file))
    assert main(["--scenario", name, *options]) == 0
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert all(run["deliveries"] > 0 for run in runs)


@linux
def test_benchmark_that_cannot_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    served = ("pyasyncore select",)
    assert main(["--scenario", "idle-5000", *_servers(served), *SHORT]) == 0
    assert "no: more than select can watch" in capsys.readouterr().out


@linux
def test_an_unknown_name_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--server", "apache"])
    assert "plain epoll gathering" in capsys.readouterr().err


def test_a_scenario_is_its_name() -> None:
    assert all(scenario(name).name == name for name in USUAL)
    for name in ("room-2-3", "room-5", "echo-0", "churn-5", "idle", "", "echo-10000"):
        with pytest.raises(UnknownScenarioError):
            scenario(name)


def test_a_row_is_of_medians_and_a_failure_is_shown() -> None:
    figures = {"seconds": 1.0, "server_cpu": 0.5, "generator_cpu": 0.6}
    runs = [
        Run("room-6-2", server, 1, {**figures, "deliveries": count})
        for server, counts in (("uvloop", (30, 10, 20)), ("pyasyncore select", (10,)))
        for count in counts
    ]
    runs.append(Run("room-6-2", "gevent", 1, {}, "an echo has not come back"))
    of = rows(("uvloop", "pyasyncore select", "gevent"), runs, {})
    assert (of[0].rate, of[0].ratio, of[0].generator_was_busier) == (20, 2, True)
    assert "error: an echo has not come back" in table(scenario("room-6-2"), of)


def test_missing_package_of_a_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = (("no_such_module", "no-such-package"),)
    monkeypatch.setitem(SERVERS, "other", Server("other", needs=needs))
    assert why_not("other", scenario("churn")) == "missing: pip install no-such-package"


@linux
@pytest.mark.parametrize("copies", [0, 2])
def test_a_server_that_loses_or_repeats_is_an_error(
    copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "STALL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_echo, args=(listener, copies))
        server.start()
        with pytest.raises(LoadError, match=r"bytes|not come back|after all"):
            _join_and_look(listener.getsockname()[1])
        server.join()


def _join_and_look(port: int) -> None:
    with closing(crowd.Crowd(port, hears=False)) as clients:
        clients.join(1)
        clients.check_quiet()


def _echo(listener: socket.socket, copies: int) -> None:
    """Send back what one client says, so many times."""
    sock, _ = listener.accept()
    with sock:
        while data := sock.recv(4096):
            sock.sendall(data * copies)


def _servers(names: tuple[str, ...]) -> list[str]:
    return ["--server", *names]


def _json(file: Path) -> list[str]:
    return ["--json", str(file)]
