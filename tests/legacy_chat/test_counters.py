"""The room's counters are exact, and its metrics are limited in number and time."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as families

import compat
from legacy_chat import metrics
from legacy_chat.counters import CLOSED, REFUSED, flat
from tests.legacy_chat.rooms import Room, our_room
from tests.support import Peer, process, room

GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


def figures(room: Room) -> dict[str, float]:
    return flat(room.server.snapshot())


# Counters.


def test_bytes_and_messages_in_and_out_are_counted_exactly(any_loop: str) -> None:
    with our_room(any_loop) as room:
        a, b, c = room.join_many(3)
        a.send("大家好!")
        room.until(lambda: b.got and c.got and a.got)
        b.send(b"\xff.")
        room.until(lambda: c.got.endswith(b"."))
        c.send("bye.out.rest")
        room.until(lambda: a.got.endswith(b".rest") and b.got.endswith(b".rest"))
        room.until(lambda: c.ended)
        a.close()
        room.until(lambda: len(room.server.clients) == 1)
        b.send("alone.")
        room.until(lambda: b.got.endswith(b"alone."))
        counted = figures(room)
        assert counted["messages_in"] == 5
        assert counted["bytes_in"] == len("大家好!".encode()) + 2 + 4 + 5 + 6
        # Receivers: a's 3, b's 3, c's 3; its farewell and its rest 2 each; b's last 1.
        assert counted["messages_out"] == 3 + 3 + 3 + 2 + 2 + 1
        assert counted["bytes_out"] == sum(len(peer.got) for peer in (a, b, c))
        assert counted["bytes_dropped"] == counted["backlog"] == 0


@settings(max_examples=40)
@given(
    acts=st.lists(
        st.one_of(
            st.just("join"),
            st.tuples(
                st.sampled_from(["say", "leave", "drop"]),
                st.integers(0, 5),
                st.sampled_from([b"hi.", b"\xe5\xa5", b"\xbd!", b"\xff\xff "]),
            ),
        ),
        max_size=12,
    )
)
def test_counters_equal_the_data_that_peers_received(acts: list[Any]) -> None:
    with our_room("selectors") as room:
        everybody = [room.join()]
        present = list(everybody)
        sent = 0
        for act in acts:
            if act == "join":
                everybody.append(room.join())
                present.append(everybody[-1])
                continue
            what, who, data = act
            if not present:
                continue
            peer = present[who % len(present)]
            if what == "say":
                before = len(peer.got)
                peer.send(data)
                sent += len(data)
                want = before + len(data)
                room.until(lambda peer=peer, want=want: len(peer.got) >= want)
                continue
            present.remove(peer)
            if what == "leave":
                peer.send("out")
                room.until(lambda peer=peer: peer.ended)
            else:
                peer.sock.shutdown(socket.SHUT_WR)
                room.until(lambda peer=peer: peer.ended)
        counted = figures(room)
        room.until(
            lambda: sum(len(peer.got) for peer in everybody) == counted["bytes_out"]
        )
        assert counted["bytes_in"] == sent
        assert counted["clients"] == counted["connections"] == len(present)
        assert counted["accepted"] == len(everybody)


def test_each_closed_session_counts_once_with_its_reason(loop: str) -> None:
    with our_room(loop) as room:
        said_out, closed, reset, broken, by_program, stays = room.join_many(6)
        sessions = [room.session(peer) for peer in (broken, by_program)]
        said_out.send("out")
        closed.close()
        reset.send("x")
        reset.reset()
        sessions[0].handle_read = lambda: 1 // 0
        broken.send("x")
        room.until(lambda: len(room.server.clients) == 2)
        sessions[1].close()
        sessions[1].close()
        room.server.shut_down()
        room.until(lambda: stays.ended)
        counted = figures(room)
        ended = ("out", "eof", "reset", "error", "closed", "shutdown")
        assert {reason: counted[f"closed_{reason}"] for reason in CLOSED} == {
            reason: int(reason in ended) for reason in CLOSED
        }
        assert room.server.counters.connected == 0


def test_turns_and_the_longest_turn_are_counted(loop: str) -> None:
    with our_room(loop) as room:
        a = room.join()
        before = figures(room)["turns"]
        for number in range(5):
            a.send(f"{number}.")
            room.until(lambda number=number: a.got.endswith(b"%d." % number))
        assert figures(room)["turns"] >= before + 5
        assert figures(room)["longest_turn"] > 0


def test_closed_server_counts_no_turns(loop: str) -> None:
    with our_room(loop) as room:
        a = room.join()
        room.server.close()
        before = room.server.counters.turns
        a.send("hi!")
        room.until(lambda: a.got == b"hi!")
        assert room.server.counters.turns == before


# Metrics.


def request_metrics(room: Room, request: bytes) -> bytes:
    """Return the answer of the metrics."""
    peer = Peer(("127.0.0.1", room.server.metrics.port))
    room.peers.append(peer)
    peer.send(request)
    room.until(lambda: peer.ended)
    return peer.got


def metered_room(loop: str, **options: Any) -> Any:
    return our_room(loop, metrics=("127.0.0.1", 0), **options)


def test_prometheus_parses_the_metrics(loop: str) -> None:
    with metered_room(loop) as room:
        a, b = room.join_many(2)
        a.send("hi!")
        room.until(lambda: b.got.endswith(b"hi!"))
        head, _, body = request_metrics(room, GET).partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        assert status == "HTTP/1.1 200 OK"
        assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in fields
        assert f"Content-Length: {len(body)}" in fields
        shown = {
            (sample.name, sample.labels.get("reason")): sample.value
            for family in families(body.decode())
            for sample in family.samples
        }
        assert all(family.type != "unknown" for family in families(body.decode()))
        assert shown["legacy_chat_clients", None] == 2
        assert shown["legacy_chat_messages_in_total", None] == 1
        assert shown["legacy_chat_bytes_out_total", None] == len(a.got + b.got)
        for name, reasons in (("closed", CLOSED), ("refused", REFUSED)):
            for reason in reasons:
                assert shown[f"legacy_chat_{name}_total", reason] == 0


@settings(max_examples=60)
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_request_to_metrics_does_no_harm(garbage: bytes) -> None:
    with metered_room("selectors") as room:
        answer = request_metrics(room, garbage + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))


def test_slow_scrapers_are_few_and_have_little_time(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with metered_room(loop) as room:
        a = room.join()
        address = ("127.0.0.1", room.server.metrics.port)
        slow = [Peer(address) for _ in range(metrics.SCRAPERS)]
        room.until(lambda: len(room.server.metrics.clients) == metrics.SCRAPERS)
        slow[0].send(b"GET /met")
        one_too_many = Peer(address)
        room.peers += [*slow, one_too_many]
        room.until(lambda: one_too_many.ended)
        assert one_too_many.got == b""
        a.send("hi!")
        room.until(lambda: a.got == b"hi!")
        for scrape in list(room.server.metrics.clients):
            scrape._deadline.cancel()
            scrape._deadline = compat.call_later(0, scrape.close)
        room.until(lambda: all(peer.ended for peer in slow))
        monkeypatch.setattr(metrics, "PATIENCE", 0.0)
        late = Peer(address)
        room.peers.append(late)
        room.until(lambda: late.ended)


def test_metrics_end_with_the_server(loop: str) -> None:
    with metered_room(loop) as room:
        scraper = Peer(("127.0.0.1", room.server.metrics.port))
        room.peers.append(scraper)
        room.until(lambda: room.server.metrics.clients)
        room.server.shut_down()
        room.until(lambda: scraper.ended)
        compat.loop(loop=loop)


def test_metrics_that_cannot_listen_leave_nothing_behind() -> None:
    with our_room("select") as room:
        before = dict(room.server._map)
        with (
            pytest.raises(metrics.MetricsError, match="in use"),
            our_room("select", metrics=("127.0.0.1", room.server.port)),
        ):
            pass
        assert room.server._map == before


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1")
def test_sigusr1_logs_the_counters_of_a_running_server(loop: str) -> None:
    with room(loop, "--log-format", "json") as (server, address):
        a = Peer(address)
        a.send("hi!")
        a.wait_for("hi!")
        os.kill(server.pid, signal.SIGUSR1)
        told = server.wait_for('.*"event": "counters".*', err=True)
        counters = json.loads(told[0])
        assert counters["clients"] == counters["messages_in"] == 1
        assert counters["bytes_in"] == counters["bytes_out"] == 3
        assert counters["message"].startswith("counters: clients=1 ")
        a.send("still here.")
        a.wait_for("still here.")


def test_metrics_of_a_running_server(loop: str) -> None:
    with room(loop, "--metrics", "127.0.0.1:0") as (server, _):
        port = int(server.wait_for(r"metrics on port (\d+)", err=True)[1])
        scraper = Peer(("127.0.0.1", port))
        scraper.send(GET)
        assert b"\nlegacy_chat_clients 0\n" in scraper.wait_for_end()


def test_metrics_port_in_use_is_one_line_and_status_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        command = (sys.executable, "-m", "legacy_chat", "serve", "--port", "0")
        with process(*command, "--metrics", f"127.0.0.1:{port}") as server:
            assert server.wait() == 1
            said = f"legacy-chat: cannot serve metrics on 127.0.0.1 port {port}: "
            assert server.err == [said + "Address already in use"]
