"""For any bytes, every view shows the valid part, or prints one line of error.

A longer run, with a seed for each trace: python -m tests.compat.trace.test_damage 10000
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compat.trace.mutations import RAW, VIEWS, complaints, damaged, shown
from tests.compat.trace.synthetic import hello


def wrong(view: str, data: bytes, other: bytes | None = None) -> list[str]:
    """Return the defects of a view's output for one file or two."""
    with tempfile.TemporaryDirectory() as folder:
        path, second = Path(folder) / "a.trace", Path(folder) / "b.trace"
        path.write_bytes(data)
        second.write_bytes(data if other is None else other)
        if other is not None:
            # The lines may name either of the two.
            status, _, _ = shown(view, path, second)
            return [] if status in (0, 1, 2) else [f"status {status}"]
        return complaints(view, path, *shown(view, path))


@pytest.mark.parametrize("view", VIEWS)
@settings(max_examples=12)
@given(seed=st.integers(0, 1 << 32))
def test_view_of_a_damaged_trace_is_a_result_or_a_line(view: str, seed: int) -> None:
    assert wrong(view, damaged(Random(seed))) == []


@settings(max_examples=12)
@given(one=st.integers(0, 1 << 32), other=st.integers(0, 1 << 32))
def test_diff_of_damaged_traces_has_a_status(one: int, other: int) -> None:
    for view in ("diff", "strict diff"):
        assert wrong(view, damaged(Random(one)), damaged(Random(other))) == []


NAMES = ("version", "format", "program", "payload", "max", "began")


@pytest.mark.parametrize("view", VIEWS)
def test_view_of_a_wrong_header_is_a_result_or_a_line(view: str) -> None:
    header, *rest = hello().bytes().splitlines(True)
    for number, name in enumerate(NAMES):
        # All views read the header alike: one tries every value, the others a share.
        for value in RAW if view == "text" else RAW[number :: len(NAMES)]:
            # Of a name that is there twice, the last value counts.
            line = header[:-2] + f',"{name}":{value}}}\n'.encode()
            assert wrong(view, line + b"".join(rest[:3])) == [], (name, value[:50])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("number", ["null", "true", "1.0", '"1"', "[1]"])
def test_turn_without_a_number_ends_the_trace(view: str, number: str) -> None:
    turn = f'{{"e":"turn","t":1,"n":{number}}}\n'
    assert wrong(view, hello().bytes() + turn.encode() * 2) == []


@pytest.mark.parametrize("view", VIEWS)
def test_view_of_a_directory_is_one_line(view: str, tmp_path: Path) -> None:
    status, out, err = shown(view, tmp_path)
    assert (status, out) == (2, "")
    assert err == f"python -m compat.trace: {tmp_path}: Is a directory\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("view", ["text", "mermaid", "html", "perfetto", "doctor"])
def test_view_of_a_fifo_is_that_of_the_file(view: str, tmp_path: Path) -> None:
    fifo, file = tmp_path / "fifo", hello().save(tmp_path / "file")
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(file.read_bytes(),))
    writer.start()
    expected = shown(view, fifo)
    writer.join()
    assert expected == shown(view, file)


def main(count: int) -> None:
    """Try *count* traces; print the defects, with the seed of each."""
    for seed in range(count):
        for view in VIEWS:
            for each in wrong(view, damaged(Random(seed))):
                print(f"seed {seed}, {view}: {each}")
    print(f"{count:,} traces in {len(VIEWS)} views")


if __name__ == "__main__":
    main(int(sys.argv[1]))
