"""How a channel reports to its loop that its interest may have changed.

Rule 1: a report never contains the new interest: the loop calls ``readable`` and
``writable`` when it needs them.
Rule 2: the channel may be any object, and the thread any thread.
"""

from __future__ import annotations

from typing import Any

from compat._types import Notified
from compat.scheduler import wake_other_thread

__all__ = ["interest_changed"]


def interest_changed(channel: Any) -> None:
    """Notify the loop of *channel*, if it has one, that interest may have changed."""
    registration: Notified | None = getattr(channel, "_compat_registration", None)
    if registration is not None:
        registration.interest_changed()
    else:
        # A loop without cached interest polls every channel once its wait ends. A loop
        # that does not know the channel yet finds it then.
        wake_other_thread(getattr(channel, "_map", None))
