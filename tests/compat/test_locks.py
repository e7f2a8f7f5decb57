"""Ctrl+C leaves the lock free."""

from __future__ import annotations

import threading
from itertools import count, takewhile

import pytest

from compat.locks import RLock
from tests.support import is_interrupted


def test_lock_is_free_after_ctrl_c_at_any_moment() -> None:
    lock = RLock()

    def hold() -> None:
        with lock, lock:
            len("something that takes a moment")

    for _ in takewhile(lambda moment: is_interrupted(moment, hold), count(1)):
        with pytest.raises(RuntimeError):
            lock.release()


def test_other_threads_wait_for_the_lock() -> None:
    lock, done = RLock(), list[str]()

    def work() -> None:
        with lock:
            done.append("other")

    thread = threading.Thread(target=work)
    with lock:
        thread.start()
        with lock:
            done.append("nested")
        done.append("first")
    thread.join()
    assert done == ["nested", "first", "other"]
