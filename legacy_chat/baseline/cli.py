"""``legacy-chat baseline``: record, check, show, diff, minimise, fuzz.

Rule 1: the exit status is 0 (the same), 1 (different) or 2 (the command failed).
Rule 2: a failure outside the tool is one line on standard error, and the last output of
a server that failed.
Rule 3: standard output has only the requested output; progress goes to a terminal only.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

import compat
from compat.console import complain, run_command
from compat.options import Option, Parser
from compat.values import Range, address
from legacy_chat.baseline import commands
from legacy_chat.baseline.commands import FAILED, PROGRAM, WIDEST
from legacy_chat.baseline.model.errors import OUTPUT_PREFIX, FormatError, ReplayError
from legacy_chat.baseline.model.format import SCENARIO
from legacy_chat.baseline.model.segments import read_cut
from legacy_chat.baseline.model.shipped import EXPECTED
from legacy_chat.baseline.model.transcript import LONGEST_QUIET
from legacy_chat.baseline.replay.player import LAST_WAIT, TIMEOUT
from legacy_chat.baseline.replay.quiescence import QUIET
from legacy_chat.baseline.replay.signals import Ended, ended_by_signals

__all__ = ["main"]

EXAMPLES = """\
examples:
  legacy-chat baseline check                 this installation, on every loop
  legacy-chat baseline check --command "python mine.py {port}"
                                             a rewrite of the tutorial's room
  legacy-chat baseline show k2-held-back     a transcript, in columns
  legacy-chat baseline record talk.jsonl --connect localhost:7000 -o talked.jsonl
  legacy-chat baseline fuzz --command "python mine.py {port}" --minutes 5

A FILE is a path, a folder, or the name of a shipped transcript: kept, repaired/ours,
repaired/original, k2-held-back. {port}, {host}, {loop} and {python} are replaced in a
command. The exit status is 0 for the same, 1 for different, 2 if the command failed.
"""

SCENARIO_HELP = """\
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
""".replace("EXAMPLE", "".join(f"  {line}\n" for line in SCENARIO))

POSITIVE = Range(0.001, 1_000_000)
COUNT = Range(1, 1_000_000, whole=True)


def endpoint(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT; the default host is 127.0.0.1."""
    return address(text, "127.0.0.1")


SERVER = (
    Option(
        "--connect HOST:PORT",
        "address of a running server, or of the server that --command starts",
        endpoint,
    ),
    Option(
        "--command COMMAND",
        "start the server with this command; {port} is replaced with a free port",
    ),
    Option(
        "--loop NAME",
        f"replacement of {{loop}} in --command: {', '.join(compat.LOOPS)}; repeatable",
        more={"action": "append"},
    ),
    Option("--profile NAME", "protocol: tutorial, lines, or the path of a .toml file"),
    Option(
        "--timeout SECONDS",
        "maximum wait for data that must arrive",
        POSITIVE,
        int(TIMEOUT),
    ),
)
OUTPUT = Option("-o --output FILE", "file to write; - is standard output", Path)
TWO_SERVERS = (
    *SERVER,
    Option(
        "--reference COMMAND",
        "start the reference server with this command (default: the profile's server)",
    ),
    Option(
        "--reference-connect HOST:PORT",
        "address of the reference server, if its command has no {port}",
        endpoint,
    ),
    OUTPUT.but(help="file for a difference", default=Path("difference.jsonl")),
)
RECORD = (
    Option("SCENARIO", "file of actions; - is standard input", more={"nargs": "?"}),
    *SERVER,
    OUTPUT.but(more={"required": True}),
    Option(
        "--proxy HOST:PORT",
        "listen here, and record the traffic between clients and --connect",
        endpoint,
    ),
    Option(
        "--quiet SECONDS",
        "seconds without data that end a step without a barrier, 0.001 to 3600; the "
        f"last step waits {LAST_WAIT} times that (default: the profile's or {QUIET:g})",
        Range(0.001, LONGEST_QUIET).parse,
    ),
    Option("--title TEXT", "title of the transcript"),
    Option("--recorded-from TEXT", "description of the server for the transcript"),
)
CHECK = (
    Option(
        "FILE",
        f"transcripts to play (default: the shipped {' and '.join(EXPECTED)})",
        more={"nargs": "*"},
    ),
    *SERVER,
    Option(
        "--cut HOW",
        'cut every message into segments: "every byte", "at N", "random SEED"; only '
        'for transcripts with the framing "stream"; repeatable',
        lambda text: read_cut(text, ""),
        more={"action": "append"},
    ),
    Option("--junit FILE", "write the results as JUnit XML", Path),
    Option("--json", "print the results as JSON"),
    Option("--repeat N", "play each transcript N times", COUNT, 1),
    Option("--jobs N", "use N servers at the same time", Range(1, 1000, whole=True), 1),
)
FUZZ = (
    *TWO_SERVERS,
    Option("--seed N", "seed of the random conversations", int, 0),
    Option("--minutes M", "maximum duration", POSITIVE, 1),
    Option("--conversations N", "play N conversations, without a time limit", COUNT),
    Option("--first NUMBER", "number of the first conversation", int, 0),
)
SHOW = (
    Option("FILE", "transcript to print", more={"nargs": "?"}),
    Option(
        "--width COLUMNS",
        f"columns, 1 to {WIDEST} (default: the terminal's)",
        Range(1, WIDEST, whole=True).parse,
    ),
)
SHOW_FORMS = (
    Option("--list", "list the shipped transcripts"),
    Option("--lines", "print lines without columns"),
    Option("--mermaid", "print a Mermaid sequence diagram"),
    Option("--html", "print a self-contained HTML page"),
)
DIFF = (Option("A", "first transcript"), Option("B", "second transcript"))

# Each command with its function, its purpose and its options.
COMMANDS = {
    "record": (commands.record, "play a scenario, and write the transcript", RECORD),
    "check": (commands.check, "play transcripts, and compare the answers", CHECK),
    "show": (commands.show, "print a transcript, or list the shipped ones", SHOW),
    "diff": (commands.diff, "compare two transcripts", DIFF),
    "minimise": (
        commands.minimise_file,
        "find the shortest conversation that two servers answer differently",
        (Option("FILE", "transcript that they answer differently"), *TWO_SERVERS),
    ),
    "fuzz": (
        commands.fuzz,
        "play random conversations to two servers until their answers differ",
        FUZZ,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``legacy-chat baseline`` with *argv*; return the exit status."""
    return run_command(PROGRAM, lambda: _run(argv), failed=FAILED)


def _run(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    try:
        with ended_by_signals():
            status: int = options.run(options)
            return status
    except Ended as end:
        complain(f"{PROGRAM}: ended by {end}")
    except (FormatError, ReplayError) as error:
        first, *output = str(error).split(OUTPUT_PREFIX)
        lines = (OUTPUT_PREFIX.lstrip("\n") + line for line in output)
        complain(f"{PROGRAM}: {first}", *lines)
    except OSError:
        raise
    except Exception:
        # A fault of the tool. Python's own status would mean "different".
        complain(*traceback.format_exc().splitlines())
    return FAILED


def _parser() -> Parser:
    description = "Record a server's answers once, and compare every rewrite with them."
    parser = Parser(PROGRAM, description, EXAMPLES)
    subparsers = parser.add_subparsers(required=True, metavar=" | ".join(COMMANDS))
    for name, (function, purpose, options) in COMMANDS.items():
        examples = SCENARIO_HELP if name == "record" else ""
        command = subparsers.add_parser(
            name, help=purpose, description=purpose.capitalize(), examples=examples
        )
        command.add(*options)
        if name == "show":
            command.add_exclusive(*SHOW_FORMS)
        command.set_defaults(run=function)
    return parser
