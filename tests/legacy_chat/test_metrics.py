"""Requests that a scraper may send, in any spelling, and their answers."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as families

from legacy_chat.http_head import Head, HeadError, read_head
from tests.legacy_chat.test_counters import metered_room, request_metrics
from tests.support import DEADLINE, Peer, in_a_turn, room

END = b"\r\n\r\n"
LENGTH = re.compile(rb"Content-Length: [1-9][0-9]*\r\n")

OK, BAD = b"200 OK", b"400 Bad Request"
TOO_LARGE = b"431 Request Header Fields Too Large"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"get /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"405 Method Not Allowed"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 4\r\n\r\n1234", b"405 Method"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metricsandmore HTTP/1.0\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/ HTTP/1.0\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics%3Fx HTTP/1.0\r\n\r\n", b"404 Not Found"),
        (b"GET http://127.0.0.1:9100 HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /other HTTP/1.0\r\n\r\n", b"404 Not Found"),
        (b"GET * HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"\x16\x03\x01\x02\0\x01\xfc\r\n\r\n", BAD),
        (b"GET /metrics\r\n\r\n", BAD),
        (b"GET /metrics\r\n", BAD),
        (b"GET /metrics HTTP/1.0\r\r", BAD),
        (b"\x16\x03\x01\x02\0\x01\xfc\x03\x03" + b"\xaa" * 500, BAD),
        (b"PRI * HTTP/2.0\r\n", b"505 HTTP Version Not Supported"),
        (b"GET /metrics HTTP/2\r\n\r\n", BAD),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", BAD),
        (b"GET /metrics HTTP/1.1 \r\n\r\n", BAD),
        (b"GET /metrics http/1.1\r\n\r\n", BAD),
        (b"GET metrics HTTP/1.1\r\n\r\n", BAD),
        (b"GET http:///metrics HTTP/1.1\r\n\r\n", BAD),
        (b"GET /metrics#x HTTP/1.1\r\n\r\n", BAD),
        (b"GET /metrics\0 HTTP/1.1\r\n\r\n", BAD),
        (b"GET /metrics HTTP/1.1\r\nX: a\0b\r\n\r\n", BAD),
        (b"GET /metrics HTTP/1.1\r\nX: a\rb\r\n\r\n", BAD),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", BAD),
        (b"GET /metrics HTTP/1.1\r\nX : a\r\n\r\n", BAD),
        (b"GET /metrics HTTP/1.1\r\nX: a\r\n folded\r\n\r\n", BAD),
        (b"\r\n\r\n", BAD),
        (b"\n\n", BAD),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"x" * 9000, TOO_LARGE),
        (b"GET /" + b"x" * 9000, b"414 URI Too Long"),
        (b"GET /" + b"x" * 60_000 + b" HTTP/1.1\r\n\r\n", b"414 URI Too Long"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, TOO_LARGE),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", TOO_LARGE),
        (b"GET /metrics HTTP/1.0\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n", OK),
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", OK),
        (b"GET /metrics HTTP/1.1\n\n", OK),
        (b"GET /metrics HTTP/1.1\nHost: x\r\n\n", OK),
        (b"\r\nGET /metrics HTTP/1.1\nHost: x\n\r\n", OK),
        (b"GET http://127.0.0.1:9100/metrics HTTP/1.1\r\nHost: x\r\n\r\n", OK),
        (b"GET HTTPS://[::1]/metrics?a=b HTTP/1.1\r\n\r\n", OK),
        (b"GET /%6detric%73 HTTP/1.1\r\n\r\n", OK),
        (b"GET /metrics HTTP/1.1\r\nX:\r\nY: \xff\tz\r\n\r\n", OK),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, OK),
        (b"GET /metrics HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", OK),
        (b"GET /metrics HTTP/1.9\r\n\r\n", OK),
    ],
)
def test_request_gets_one_answer(request_: bytes, status: bytes) -> None:
    with metered_room("selectors") as room:
        answer = request_metrics(room, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.count(b"HTTP/1.1 ") == 1
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head
        assert b"Connection: close" in head
        assert (b"Allow: GET, HEAD" in head) == status.startswith(b"405")
        room.until(lambda: not room.server.metrics.clients)


@pytest.mark.parametrize("path", [b"/metrics", b"/other"])
def test_head_is_answered_as_get_without_the_body(path: bytes) -> None:
    with metered_room("selectors") as room:
        got = request_metrics(room, b"GET %b HTTP/1.1\r\n\r\n" % path)
        head, end, body = request_metrics(
            room, b"HEAD %b HTTP/1.1\r\n\r\n" % path
        ).partition(END)
        assert (end, body) == (END, b"")
        # The figures, and with them the length, change from one request to the next.
        assert LENGTH.sub(b"", head) == LENGTH.sub(b"", got.partition(END)[0])
        assert LENGTH.findall(head)


@settings(max_examples=60)
@given(
    ends=st.lists(st.sampled_from([b"\r\n", b"\n"]), min_size=4, max_size=4),
    cuts=st.sets(st.integers(1, 60)),
)
def test_request_may_have_any_line_ends_and_segmentation(
    ends: list[bytes], cuts: set[int]
) -> None:
    lines = (b"", b"GET /metrics HTTP/1.1", b"Host: 127.0.0.1:9100", b"")
    request = b"".join(map(b"".join, zip(lines, ends, strict=True)))
    places = [0, *sorted(each for each in cuts if each < len(request)), len(request)]
    with metered_room("selectors") as room:
        scraper = Peer(("127.0.0.1", room.server.metrics.port))
        room.peers.append(scraper)
        for begin, end in itertools.pairwise(places):
            assert not scraper.receive_available()
            scraper.send(request[begin:end])
            in_a_turn("selectors", lambda: None)
        room.until(lambda: scraper.ended)
        assert scraper.got.startswith(b"HTTP/1.1 200 OK\r\n")


@settings(max_examples=60)
@given(
    data=st.lists(
        st.sampled_from([b"GET", b" ", b"/metrics", b"HTTP/1.1", b"\r\n", b"\n", b":"])
        | st.binary(max_size=3)
    ).map(b"".join)
)
def test_head_is_the_same_in_any_segmentation(data: bytes) -> None:
    """Byte by byte, the answer is known at the byte that completes the head."""
    seen = [understood(data[:size]) for size in range(len(data) + 1)]
    decided = [each for each in seen if each is not None]
    assert decided == decided[:1] * len(decided)
    assert seen == [None] * (len(seen) - len(decided)) + decided


def understood(data: bytes) -> Head | str | None:
    try:
        return read_head(data)
    except HeadError as error:
        return str(error)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_receives_the_metrics(tmp_path: Path) -> None:
    with room("auto", "--metrics", "127.0.0.1:0") as (server, _):
        address = "127.0.0.1:" + server.wait_for(r"metrics on port (\d+)", err=True)[1]
        body = tmp_path / "body"

        def curl(*options: str) -> str:
            said = ("-w", "%{http_code}, %{size_download} bytes")
            limits = ("--silent", "--show-error", "--max-time", str(DEADLINE))
            url = f"http://{address}/metrics"
            return subprocess.run(
                ["curl", *limits, *said, "-o", str(body), *options, url],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
                env={"PATH": os.environ["PATH"]},
            ).stdout

        for options in ((), ("--http1.0",), ("--proxy", address)):
            said = curl(*options)
            assert said == f"200, {body.stat().st_size} bytes"
            assert list(families(body.read_text("utf-8")))
        assert curl("--head") == "200, 0 bytes"
        assert curl("--request", "OPTIONS").startswith("405")
        assert curl("--data-binary", "x" * 100_000).startswith("405")
