"""The rate limit of a client's input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from legacy_chat.rate_limit import TokenBucket
from tests.legacy_chat.rooms import our_room


def test_flooding_client_is_delayed_and_loses_nothing(loop: str) -> None:
    said = bytes(range(ord("a"), ord("n"))) * 500
    with our_room(loop, flood_bytes=100_000, flood_burst=0.01) as room:
        a, b = room.join_many(2)
        a.send(said)
        room.until(lambda: len(a.got) == len(said))
        heard = b.got.replace(f"用户{a.name} 说:".encode(), b"")
        assert a.got == heard == said
        assert room.server.counters.pauses > 0


def test_pause_of_one_client_does_not_delay_others(loop: str) -> None:
    with our_room(loop, flood_messages=0.001, flood_burst=2000.0) as room:
        loud, b, c = room.join_many(3)
        for text in ("one.", "two."):
            loud.send(text)
            room.until(lambda text=text: c.got.decode().endswith(text))
        # This client has used up its messages for the next thousand seconds.
        loud.send("three.")
        b.send("still here.")
        room.until(lambda: c.got.endswith(b"still here."))
        assert b"three." not in c.got
        assert room.server.counters.pauses == 1
        assert loud.got.startswith(b"one.two.")
        assert b"three." not in loud.got
        room.session(loud).resume_reading()
        room.until(lambda: c.got.endswith(b"three."))


def test_pause_timer_is_cancelled_when_its_client_closes(loop: str) -> None:
    """The fixture of all tests fails this one if a timer is left."""
    with our_room(loop, flood_messages=0.001, flood_burst=1000.0) as room:
        loud = room.join()
        loud.send("one.")
        room.until(lambda: loud.got == b"one.")
        assert room.server.counters.pauses == 1
        room.session(loud).close()
        room.until(lambda: loud.ended)


def test_asyncore_loop_does_not_limit_the_rate() -> None:
    with our_room("asyncore.poll", flood_messages=0.001) as room:
        a = room.join()
        for text in ("one.", "two.", "three."):
            a.send(text)
            room.until(lambda text=text: a.got.decode().endswith(text))
        assert room.server.counters.pauses == 0


@given(
    rate=st.floats(0.1, 1e6),
    burst=st.floats(0.1, 100),
    reads=st.lists(st.tuples(st.integers(1, 70_000), st.floats(0, 10)), min_size=1),
)
def test_bucket_passes_at_most_its_rate_plus_one_read(
    rate: float, burst: float, reads: list[tuple[int, float]]
) -> None:
    bucket = TokenBucket(rate, rate * burst, 0.0)
    now, taken, largest = 0.0, 0, 0
    for count, silence in reads:
        taken, largest = taken + count, max(largest, count)
        wait = bucket.take(count, now)
        assert taken <= rate * (burst + now) * 1.000001 + largest
        # No wait is longer than the debt at the given rate.
        assert wait <= (count + 1) / rate * 1.000001
        now += wait + silence
