"""The command line: ``legacy-chat serve``, ``connect``, ``baseline``, ``lesson``.

Rule 1: the exit status is 0, 1 (the command failed) or 2 (the command line is wrong).
Rule 2: a failure outside the program is one line on standard error, never a traceback.
Rule 3: standard output has only the tutorial's lines and the conversation; the log goes
to standard error.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

import compat
from compat.console import CommandError, flush_or_discard, run_command
from compat.options import Parser
from compat.trace.options import check_trace, traced
from legacy_chat import __version__
from legacy_chat import options as tables
from legacy_chat.connect import connect
from legacy_chat.conversation import StreamError
from legacy_chat.limits import Limits
from legacy_chat.metrics import MetricsError
from legacy_chat.output import configure
from legacy_chat.server import ChatServer

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl

__all__ = ["main"]

# select() accepts only descriptors below this number, even if the system allows more.
SELECT_LIMIT = 1024

# A lower limit of descriptors is logged: a room of a few thousand clients is usual.
MANY = 4096

# The signals that stop a server. Windows does not have all of them.
STOPS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]

# The signal that makes a server log its counters, where the system has it.
LOG_COUNTERS = [signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []

SERVE_EXAMPLES = """\
examples:
  legacy-chat serve                          on 0.0.0.0:19528, as the tutorial
  legacy-chat serve --host ::1 --port 5000   on IPv6 and another port
  legacy-chat serve --loop select            on the tutorial's own loop
  COMPAT_LOOP=poll legacy-chat serve         set the meaning of "auto"
  legacy-chat serve --max-clients 500 --max-per-address 5 --flood-messages 2
  legacy-chat serve --terminator '/quit\\r\\n' --metrics 127.0.0.1:9100
  legacy-chat serve --tls-cert cert.pem --tls-key key.pem
  legacy-chat serve --trace room.trace       for python -m compat.trace text room.trace
"""

CONNECT_EXAMPLES = """\
examples:
  legacy-chat connect                        join the room on this machine
  legacy-chat connect chat.example --port 5000
  legacy-chat connect chat.example --tls     verify the server's certificate
  printf 'hi' | legacy-chat connect          send it, print the answers, leave

"out" anywhere in a message ends the conversation; so do Ctrl-C and Ctrl-D. For a room
with another --terminator, give the same --terminator here.
"""

EXAMPLES = """\
examples:
  legacy-chat                                the same as: legacy-chat serve
  legacy-chat serve --help
  legacy-chat connect                        in another terminal
"""

TLS_TITLE = "TLS, 1.2 or later (files in PEM form)"

logger = logging.getLogger("legacy_chat")


def main(argv: list[str] | None = None) -> int:
    """Run the command line *argv* (None: the program's own); return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["baseline"]:
        # Imported here, because a server does not need it.
        from legacy_chat.baseline.cli import main as baseline

        return baseline(argv[1:])
    if argv[:1] == ["lesson"]:
        from legacy_chat.lessons.cli import main as lesson

        return lesson(argv[1:])
    if not argv or (argv[0].startswith("-") and argv[0] not in _TOP):
        # Without a command: serve, as the tutorial's script did.
        argv = ["serve", *argv]
    return run_command("legacy-chat", lambda: _run(argv))


def _run(argv: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    level = logging.WARNING + 10 * (options.quiet - options.verbose)
    configure(level, options.log_format)
    if mistake := options.find_mistake(options):
        parser.error(mistake)
    status: int = options.run(options)
    # A failure of standard output is not a failure of the room.
    flush_or_discard()
    return status


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal stops the server; return the exit status."""
    tls = _tls(options)
    choice = compat.choose(options.loop)
    limit = raise_descriptor_limit(choice.name)
    signals_seen = []

    def stop(signum: int) -> None:
        signals_seen.append(signum)
        logger.info("%s: shutting down", signal.Signals(signum).name)
        # A second signal ends the grace period.
        server.shut_down(options.grace if len(signals_seen) == 1 else 0.0)

    with _explained(f"cannot write the trace {options.trace}", OSError):
        check_trace(options)
    with ExitStack() as stack:
        # Before the port is open: a client that connects may already send a signal.
        stack.enter_context(compat.on_signals(_not_ignored(STOPS), stop))
        stack.enter_context(
            compat.on_signals(LOG_COUNTERS, lambda signum: server.log_counters())
        )
        server = make_server(options, tls)
        stack.callback(server.close)
        # After listening has succeeded: a server that cannot listen must not overwrite
        # the trace.
        with _explained(f"cannot write the trace {options.trace}", OSError):
            stack.enter_context(traced(options))
        logger.info("port %d, loop %s (%s)", server.port, choice.name, choice.why)
        if server.metrics is not None:
            logger.info("metrics on port %d", server.metrics.port)
        if limit is not None:
            logger.info("%d descriptors: about %d clients", limit, limit - 16)
        compat.loop(loop=options.loop)
        if hasattr(signal, "pthread_sigmask"):
            # A signal during the exit must not change the exit status.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    return 0


def make_server(
    options: argparse.Namespace, tls: ssl.SSLContext | None = None
) -> ChatServer:
    """Make the server that the command line describes."""
    metrics = "cannot serve metrics on {} port {}".format(*options.metrics or ("", ""))
    with (
        _explained(
            f"cannot listen on {options.host} port {options.port}",
            OSError,
            UnicodeError,
        ),
        _explained(metrics, MetricsError),
    ):
        return ChatServer(
            options.backlog,
            options.host,
            options.port,
            metrics=options.metrics,
            tls=tls,
            tls_timeout=options.tls_timeout,
            **{each.name: getattr(options, each.name) for each in fields(Limits)},
        )


def talk(options: argparse.Namespace) -> int:
    """Join a room from this terminal; return the exit status."""
    tls = _tls(options)
    signals = _not_ignored(STOPS)
    for each in signals:
        # connect() restores this: a signal after it must not change the exit status.
        signal.signal(each, signal.SIG_IGN)
    where = f"{options.host} port {options.port}"
    with (
        _explained("cannot talk", StreamError),
        _explained(f"cannot talk to {where}", OSError, UnicodeError),
    ):
        connect(
            options.host, options.port, options.loop, options.terminator, tls, signals
        )
    return 0


def raise_descriptor_limit(loop: str) -> int | None:
    """Set the descriptor limit to the loop's maximum; return it, or None on Windows."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SELECT_LIMIT if loop == "select" else hard
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if wanted != soft:
        # For select, the limit may also decrease: the server survives a failing
        # accept(), but not select() with a descriptor beyond its limit.
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if loop != "select" and wanted != resource.RLIM_INFINITY and wanted < MANY:
        logger.warning("this system allows only %d descriptors (ulimit -Hn)", wanted)
    return wanted


@contextmanager
def _explained(failure: str, *errors: type[Exception]) -> Iterator[None]:
    """Context manager: raise CommandError, which begins with *failure*, for *errors*.

    A BrokenPipeError passes: the reader of standard output has closed it.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except errors as error:
        why = getattr(error, "strerror", None) or error
        raise CommandError(f"{failure}: {why}") from error


def _not_ignored(signums: list[signal.Signals]) -> list[signal.Signals]:
    """Return *signums* without SIGHUP if that is ignored, as under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    return [
        each
        for each in signums
        if each != hangup or signal.getsignal(each) != signal.SIG_IGN
    ]


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    is_server = options.run is serve
    if not (options.tls_cert if is_server else options.tls):
        return None
    # Imported here, because ssl takes longer to import than everything else.
    from legacy_chat import tls

    files = options.tls_cert, options.tls_key, options.tls_ca
    with _explained("cannot use TLS", ValueError):
        if is_server:
            return tls.server_context(*files, options.tls_require_client_cert)
        return tls.client_context(*files)


def _parser() -> Parser:
    parser = Parser(
        "legacy-chat",
        "The asyncore chat room of the tutorial, and a client for it.",
        EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        required=True, metavar="serve | connect | baseline | lesson"
    )
    commands.add_parser("baseline", help="record a server's behaviour, and check it")
    commands.add_parser("lesson", help="watch the event loop at work")
    server = commands.add_parser(
        "serve", help="run a room", description="Run a room.", examples=SERVE_EXAMPLES
    )
    server.set_defaults(run=serve, find_mistake=tables.serve_mistake)
    server.add(*tables.SERVE, *tables.COMMON)
    server.add(*tables.LIMITS, title="limits (0: no limit)")
    server.add(*tables.OPERATION, title="operation")
    server.add(*tables.SERVER_TLS, title=TLS_TITLE)
    client = commands.add_parser(
        "connect",
        help="join a room",
        description="Join a room.",
        examples=CONNECT_EXAMPLES,
    )
    client.set_defaults(
        run=talk, find_mistake=tables.connect_mistake, log_format="text"
    )
    client.add(tables.HOST, *tables.COMMON)
    client.add(*tables.CLIENT_TLS, title=TLS_TITLE)
    return parser


# Options of the top-level parser, which need no command.
_TOP = ("-h", "--help", "--version")
