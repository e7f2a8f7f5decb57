"""The regression baseline: record a server once, and compare every rewrite with it.

For any protocol over TCP: a transcript (model.transcript) lists the actions of some
clients and the bytes that each client received. ``legacy-chat baseline`` records,
checks, shows, compares and minimises transcripts, and searches for differences with
random conversations.

    >>> from pathlib import Path
    >>> from legacy_chat.baseline import Endpoint, check, find_profile, load
    >>> endpoint = Endpoint("127.0.0.1", 19528)
    >>> check(load(Path("hello.jsonl")), endpoint, find_profile("tutorial")).outcome
    'same'

``transcripts/`` holds the transcripts of the tutorial's server. ``kept`` has the
behaviour that every rewrite must have; ``repaired`` has pairs, ``original`` and
``ours``.

Rule: an arrow points down: cli, fuzz, report, replay, model.
"""

from __future__ import annotations

from legacy_chat.baseline.model.errors import FormatError, ReplayError
from legacy_chat.baseline.model.format import load, parse, save, unparse
from legacy_chat.baseline.model.profile import Profile, find_profile
from legacy_chat.baseline.model.shipped import find_transcripts
from legacy_chat.baseline.model.transcript import (
    Action,
    Received,
    Step,
    Transcript,
    TranscriptHeader,
)
from legacy_chat.baseline.replay.check import Result, check
from legacy_chat.baseline.replay.player import conversation, play
from legacy_chat.baseline.replay.server import Endpoint, started

__all__ = [
    "Action",
    "Endpoint",
    "FormatError",
    "Profile",
    "Received",
    "ReplayError",
    "Result",
    "Step",
    "Transcript",
    "TranscriptHeader",
    "check",
    "conversation",
    "find_profile",
    "find_transcripts",
    "load",
    "parse",
    "play",
    "save",
    "started",
    "unparse",
]
