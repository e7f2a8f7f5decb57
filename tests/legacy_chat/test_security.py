"""Clients' data is forwarded, and used for nothing else; README, Security."""

from __future__ import annotations

import logging
import sys

import pytest

from tests.legacy_chat.rooms import our_room

# Texts that would run, open or format something if they were ever evaluated.
TEXTS = (
    "{0.__class__.__mro__} {user} %s %(message)s %n",
    "__import__('pathlib').Path('made').touch()",
    "../../../etc/passwd /dev/null \\x00 ${HOME} `id` $(id)",
    "\r\n GET /metrics HTTP/1.1\r\n",
)

# Raised by eval, exec, open, import and every way to start a program.
EVENTS = ("compile", "exec", "open", "import", "subprocess.Popen", "os.", "shutil.")


class Audit:
    """Record the interpreter's audit events while on; the hook cannot be removed."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self.look)

    def look(self, event: str, args: object) -> None:
        if self.is_on and event.startswith(EVENTS):
            self.seen.append(event)


@pytest.fixture(scope="module")
def audit() -> Audit:
    return Audit()


def test_data_is_never_formatted_or_evaluated(
    loop: str, audit: Audit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    audit.seen.clear()
    with our_room(loop) as room:
        speaker, listener = room.join_many(2)
        for text in TEXTS:
            before = len(speaker.got), len(listener.got)
            speaker.send(text)
            audit.is_on = True
            try:
                room.until(lambda before=before: len(listener.got) > before[1])
                room.until(lambda before=before: len(speaker.got) > before[0])
            finally:
                audit.is_on = False
            name = f"用户{speaker.name} 说:"
            assert speaker.got[before[0] :].decode() == text
            assert listener.got[before[1] :].decode() == name + text
    assert audit.seen == []
