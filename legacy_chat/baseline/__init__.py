"""The regression baseline: record a server once, and compare every rewrite with it.

For any protocol over TCP: a transcript (model.format) lists the actions of some clients
and the bytes that each client received. ``legacy-chat baseline`` records, checks,
shows, compares and minimises transcripts, and searches for differences with random
conversations.

    >>> from pathlib import Path
    >>> from legacy_chat.baseline import Place, check, find_profile, load
    >>> place = Place("127.0.0.1", 19528)
    >>> check(load(Path("hello.jsonl")), place, find_profile("tutorial")).outcome
    'same'

``transcripts/`` holds the transcripts of the tutorial's server. ``kept`` has the
behaviour that every rewrite must have; ``repaired`` has pairs, ``original`` and
``ours``.
"""

from __future__ import annotations

from legacy_chat.baseline.model.compare import Difference, compare, differences
from legacy_chat.baseline.model.errors import (
    FormatError,
    ReferenceFailedError,
    RunError,
)
from legacy_chat.baseline.model.format import (
    Action,
    Got,
    Header,
    Heard,
    Step,
    Transcript,
    load,
    parse,
    save,
    unparse,
)
from legacy_chat.baseline.model.profile import Profile, find_profile, read_profile
from legacy_chat.baseline.model.shipped import find_transcripts
from legacy_chat.baseline.replay.barrier import WITNESS
from legacy_chat.baseline.replay.check import Result, check
from legacy_chat.baseline.replay.player import Conversation, play
from legacy_chat.baseline.replay.server import Place, started

__all__ = [
    "WITNESS",
    "Action",
    "Conversation",
    "Difference",
    "FormatError",
    "Got",
    "Header",
    "Heard",
    "Place",
    "Profile",
    "ReferenceFailedError",
    "Result",
    "RunError",
    "Step",
    "Transcript",
    "check",
    "compare",
    "differences",
    "find_profile",
    "find_transcripts",
    "load",
    "parse",
    "play",
    "read_profile",
    "save",
    "started",
    "unparse",
]
