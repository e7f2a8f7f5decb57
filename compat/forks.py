"""Functions to call when the process forks: compat's only fork hooks.

Rule: this module holds no state, and keeps no other module alive. Python holds the
functions of ``os.register_at_fork`` until after its last garbage collection. A function
holds its module, which holds asyncore, its map and the program's channels. These would
be collected too late for their ResourceWarning and their ``__del__``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from weakref import ref

__all__ = ["at_fork"]


def at_fork(
    *, after_in_child: Callable[[], object], before: Callable[[], object] | None = None
) -> None:
    """Call these module-level functions at every fork; only their modules hold them.

    Args:
        after_in_child: called in the child, in the order of registration.
        before: called in the parent, in the reverse order.
    """
    if not hasattr(os, "register_at_fork"):
        return
    os.register_at_fork(after_in_child=_weakly(after_in_child))
    if before is not None:
        os.register_at_fork(before=_weakly(before))


def _weakly(function: Callable[[], object]) -> Callable[[], None]:
    reference = ref(function)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return call
