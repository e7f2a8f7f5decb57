"""A scenario: the actions of clients, for a recording.

Rule: the whole file is read before a server is started, so that an error in it does not
interrupt a recording.
"""

from __future__ import annotations

from pathlib import Path

from legacy_chat.baseline.model.errors import LAST_WORDS, FormatError
from legacy_chat.baseline.model.format import Transcript, load

__all__ = ["EXAMPLE", "HELP", "load_scenario"]

EXAMPLE = (
    '{"format": "legacy-chat-transcript", "version": 1, "title": "a greeting"}',
    '{"client": "a", "do": "open"}',
    '{"client": "b", "do": "open"}',
    r'{"client": "a", "do": "send", "data": "hello\r\n"}',
    '{"client": "a", "do": "half-close"}',
)

HELP = """\
A scenario is a file of JSON Lines: a header, and a line for each action of a client:

EXAMPLE
"do" is open, send, half-close (sends no more), drop (closes) or reset. "data" is what
the client sends, also right before a half-close or a drop, and {"base64": "/w=="} if it
is not UTF-8. "cut" splits it into segments: "every byte", "at 3 7", "random 42". The
transcript is the same file, with a line for what each client got.

Each action is a step. A profile with a barrier proves when it is over. Otherwise it is
over after --quiet seconds without a byte, or the profile's "quiet": choose more than
the server's slowest answer takes. A warning names each step in which nothing arrived.
check needs no such wait: a step is over when what was recorded has come. Only between
the segments of a "cut" message does it wait as record does, unless the profile's
framing is "stream". --proxy waits before it sends the next action on, and ends with
Ctrl-C or SIGTERM.
""".replace("EXAMPLE", "".join(f"  {line}\n" for line in EXAMPLE))


def load_scenario(path: Path) -> Transcript:
    """Return the scenario at *path*; ``-`` is standard input.

    Raises:
        FormatError: the file is not a scenario; the message has an example.
        OSError: the file cannot be read.
    """
    try:
        scenario = load(path)
        for _ in scenario.steps:
            pass
    except FormatError as error:
        example = "".join(LAST_WORDS + line for line in EXAMPLE)
        raise FormatError(
            f"{error}; a scenario has a header and a line for each action:{example}"
        ) from error
    return scenario
