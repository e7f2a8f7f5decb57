"""Ctrl+C leaves the lock free."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from types import ModuleType

import pytest

import compat
import legacy_chat
from compat.locks import RLock
from tests.support import is_interrupted

LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp)

# Their contents run in a separate frame, whose exceptions the block sees.
FRAMES = (ast.FunctionDef, ast.Lambda, ast.GeneratorExp)


def loops_in(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, LOOPS):
            yield child
        if not isinstance(child, FRAMES):
            yield from loops_in(child)


@pytest.mark.parametrize("package", [compat, legacy_chat])
def test_block_that_holds_a_lock_contains_no_loop(package: ModuleType) -> None:
    blocks, found = 0, []
    for path in Path(str(package.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.With) and any(
                ast.unparse(item.context_expr).endswith("lock") for item in node.items
            ):
                blocks += 1
                found += [path for each in node.body for _ in loops_in(each)]
                found += [path for each in node.body if isinstance(each, LOOPS)]
    assert blocks
    assert found == []


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
