"""A scenario: the actions of clients, for a recording.

Rule: the whole file is read before a server is started, so that an error in it does not
interrupt a recording.
"""

from __future__ import annotations

from pathlib import Path

from legacy_chat.baseline.model.errors import OUTPUT_PREFIX, FormatError
from legacy_chat.baseline.model.format import load
from legacy_chat.baseline.model.transcript import Transcript

__all__ = ["EXAMPLE", "HELP", "load_scenario"]

EXAMPLE = (
    '{"format": "legacy-chat-transcript", "version": 1, "title": "a greeting"}',
    '{"client": "a", "do": "open"}',
    '{"client": "b", "do": "open"}',
    r'{"client": "a", "do": "send", "data": "hello\r\n"}',
    '{"client": "a", "do": "half-close"}',
)

HELP = """\
A scenario is a file of JSON Lines: a header, and one line for each action of a client:

EXAMPLE
"do" is open, send, half-close (send no more), drop (close) or reset. "data" is sent,
also right before a half-close or a drop. Data that is not UTF-8 is {"base64": "/w=="}.
"cut" splits the data into segments: "every byte", "at 3 7", "random 42". The transcript
is the same file, with a line for the data that each client received.

Each action is a step. A profile with a barrier proves the end of a step. Without one, a
step ends after --quiet seconds without data, or the profile's "quiet": choose more than
the slowest answer of the server needs. A warning names each step without data. check
does not need this wait: a step ends when all the recorded data has arrived. It waits as
record does only between the segments of a message with "cut", unless the profile's
framing is "stream". --proxy waits before it forwards the next action; Ctrl-C and
SIGTERM end the recording.
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
        example = "".join(OUTPUT_PREFIX + line for line in EXAMPLE)
        raise FormatError(
            f"{error}; a scenario has a header and one line for each action:{example}"
        ) from error
    return scenario
