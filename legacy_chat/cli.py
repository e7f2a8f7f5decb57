"""The command line: ``legacy-chat serve`` and ``legacy-chat connect``.

Rule 1: the exit status is 0, 1 (it could not be done) or 2 (it was asked wrongly).
Rule 2: what goes wrong outside the program is one line on standard error, never a
traceback.
Rule 3: standard output has the tutorial's lines and the conversation, nothing else; the
log goes to standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

import compat
from legacy_chat import __version__
from legacy_chat.server import DEFAULT_PORT, ChatServer
from legacy_chat.terminal import connect

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

__all__ = ["main"]

# How many clients may wait to be let in. The tutorial's 20 stalls a burst of a few
# hundred for a second.
BACKLOG = 128

# select() takes no descriptor above this, whatever the system allows.
SELECT_LIMIT = 1024

# Fewer descriptors than this are worth a warning: a room of a few thousand is usual.
MANY = 4096

# What stops a server.
STOPS = (signal.SIGINT, signal.SIGTERM)

SERVE_EXAMPLES = """\
examples:
  legacy-chat serve                          0.0.0.0:19528, as the tutorial
  legacy-chat serve --host ::1 --port 5000   IPv6, another port
  legacy-chat serve --loop select            the tutorial's own loop
  COMPAT_LOOP=poll legacy-chat serve         what "auto" means, from outside
"""

CONNECT_EXAMPLES = """\
examples:
  legacy-chat connect                        the server on this machine
  legacy-chat connect chat.example --port 5000
  printf 'hi' | legacy-chat connect          say it, show what comes back, leave

"out" anywhere in what you say ends the conversation, as Ctrl-C and Ctrl-D do.
"""

EXAMPLES = """\
examples:
  legacy-chat                                the same as: legacy-chat serve
  legacy-chat serve --help
  legacy-chat connect                        in another terminal
"""

logger = logging.getLogger("legacy_chat")


def main(argv: list[str] | None = None) -> int:
    """Run the command line *argv* (None: the program's own); return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv or (argv[0].startswith("-") and argv[0] not in _TOP):
        # The tutorial's script took no command: it served.
        argv = ["serve", *argv]
    given = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.WARNING + 10 * (given.quiet - given.verbose),
        format="%(asctime)s %(levelname)s %(message)s",
    )
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal without Chinese shows escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        compat.choose(given.loop)
    except (compat.UnknownLoopError, compat.MissingLoopError) as error:
        parser.error(str(error))
    try:
        status: int = given.run(given)
    except BrokenPipeError:
        # Nobody reads any more. Python would say so again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 0
    return status


def serve(given: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    choice = compat.choose(given.loop)
    limit = raise_descriptor_limit(choice.name)
    signals_seen = []

    def stop(signum: int) -> None:
        signals_seen.append(signum)
        logger.info("%s: shutting down", signal.Signals(signum).name)
        # Who asks twice does not want to wait.
        server.shut_down(given.grace if len(signals_seen) == 1 else 0.0)

    # Before anybody can know that the server runs, or a signal could still kill it.
    with compat.on_signals(STOPS, stop):
        try:
            server = ChatServer(given.backlog, given.host, given.port)
        except (OSError, UnicodeError) as error:
            return _refuse(f"cannot listen on {given.host} port {given.port}", error)
        logger.info("port %d, loop %s (%s)", server.port, choice.name, choice.why)
        if limit is not None:
            logger.info("%d descriptors: about %d clients", limit, limit - 16)
        compat.loop(loop=given.loop)
        if hasattr(signal, "pthread_sigmask"):
            # Who asks again on the way out shall not make it look like a failure.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    return 0


def talk(given: argparse.Namespace) -> int:
    """Join a room from this terminal."""
    try:
        connect(given.host, given.port, given.loop)
    except BrokenPipeError:
        raise
    except (OSError, UnicodeError) as error:
        return _refuse(f"cannot talk to {given.host} port {given.port}", error)
    return 0


def raise_descriptor_limit(loop: str) -> int | None:
    """Allow this process as many descriptors as the loop can take; return how many."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SELECT_LIMIT if loop == "select" else hard
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if wanted != soft:
        # For select also downwards: accept() then fails, which the server survives;
        # select() with a descriptor too many would end it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if loop != "select" and wanted != resource.RLIM_INFINITY and wanted < MANY:
        logger.warning("this system allows only %d descriptors (ulimit -Hn)", wanted)
    return wanted


def _refuse(what: str, error: Exception) -> int:
    reason = getattr(error, "strerror", None) or error
    print(f"legacy-chat: {what}: {reason}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="legacy-chat",
        description="The asyncore chat room of the tutorial, and a client for it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="serve | connect")
    server = _command(commands, "serve", serve, "run a room", SERVE_EXAMPLES)
    server.add_argument(
        "--host",
        default="0.0.0.0",
        help="address or name to listen on (default: %(default)s)",
    )
    server.add_argument(
        "--backlog",
        type=_positive,
        default=BACKLOG,
        metavar="N",
        help="connections that may wait to be accepted (default: %(default)s)",
    )
    server.add_argument(
        "--grace",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="time for clients to take what is queued when the server stops "
        "(default: %(default)s)",
    )
    client = _command(commands, "connect", talk, "join a room", CONNECT_EXAMPLES)
    client.add_argument(
        "host",
        nargs="?",
        default="127.0.0.1",
        metavar="HOST",
        help="where the room is (default: %(default)s)",
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: object,
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary.capitalize() + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help="default: %(default)s"
    )
    parser.add_argument(
        "--loop",
        choices=["auto", *compat.LOOPS],
        default="auto",
        help="what turns the channels (default: %(default)s)",
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; -vv: everything"
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="count",
        default=0,
        help="say less; -qq: hardly anything",
    )
    return parser


def _port(text: str) -> int:
    return _number(text, 0, 65535)


def _positive(text: str) -> int:
    return _number(text, 1, 65535)


def _number(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number from {least} to {most}"
        )
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no time from 0 to 3600 seconds")
    return seconds


# What the top level answers itself.
_TOP = ("-h", "--help", "--version")
