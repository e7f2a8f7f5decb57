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
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import compat
from compat.complaints import Parser
from compat.streams import (
    escape_the_rest,
    reserve_standard_descriptors,
    throw_away,
)
from compat.trace.options import add_options, check_trace, trace_mistake, traced
from legacy_chat import __version__
from legacy_chat.connect import connect
from legacy_chat.conversation import StreamError
from legacy_chat.limits import Limits
from legacy_chat.logging.escapes import parse_bytes
from legacy_chat.logging.logs import FORMATS, configure
from legacy_chat.logging.output import complain, settle
from legacy_chat.metrics import MetricsError
from legacy_chat.ranges import described, parse
from legacy_chat.server import DEFAULT_PORT, ChatServer

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl

__all__ = ["main"]

# Default listen backlog. With the tutorial's 20, some connections of a burst of a few
# hundred wait for seconds. The system may allow fewer.
BACKLOG = min(1024, socket.SOMAXCONN)

# select() accepts only descriptors below this number, whatever the system allows.
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
TELLS = [signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []

USUAL = Limits()

SERVE_EXAMPLES = """\
examples:
  legacy-chat serve                          0.0.0.0:19528, as the tutorial
  legacy-chat serve --host ::1 --port 5000   IPv6, another port
  legacy-chat serve --loop select            the tutorial's own loop
  COMPAT_LOOP=poll legacy-chat serve         what "auto" means, from outside
  legacy-chat serve --max-clients 500 --max-per-address 5 --flood-messages 2
  legacy-chat serve --terminator '/quit\\r\\n' --metrics 127.0.0.1:9100
  legacy-chat serve --tls-cert cert.pem --tls-key key.pem
  legacy-chat serve --trace room.trace       python -m compat.trace text room.trace
"""

CONNECT_EXAMPLES = """\
examples:
  legacy-chat connect                        the server on this machine
  legacy-chat connect chat.example --port 5000
  legacy-chat connect chat.example --tls     the certificate has to be right
  printf 'hi' | legacy-chat connect          say it, show what comes back, leave

"out" anywhere in what you say ends the conversation, as Ctrl-C and Ctrl-D do; a room
with another --terminator needs it here too.
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
    reserve_standard_descriptors()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["baseline"]:
        # Imported here, because a server does not need it.
        from legacy_chat.baseline.cli import main as baseline

        return baseline(argv[1:])
    if argv[:1] == ["lesson"]:
        from legacy_chat.lessons.cli import main as lesson

        return lesson(argv[1:])
    parser = _parser()
    if not argv or (argv[0].startswith("-") and argv[0] not in _TOP):
        # Without a command: serve, as the tutorial's script did.
        argv = ["serve", *argv]
    given = parser.parse_args(argv)
    configure(logging.WARNING + 10 * (given.quiet - given.verbose), given.log_format)
    escape_the_rest(sys.stdout)
    try:
        compat.choose(given.loop)
    except (compat.UnknownLoopError, compat.MissingLoopError) as error:
        parser.error(str(error))
    if mistake := _tls_mistake(given) or (given.run is serve and trace_mistake(given)):
        parser.error(mistake)
    try:
        status: int = given.run(given)
    except BrokenPipeError:
        throw_away(sys.stdout)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        settle()
    return status


def serve(given: argparse.Namespace) -> int:
    """Serve until a signal stops the server; return the exit status."""
    try:
        tls = _server_tls(given)
    except ValueError as error:
        return _refuse("cannot use TLS", error)
    choice = compat.choose(given.loop)
    limit = raise_descriptor_limit(choice.name)
    signals_seen = []

    def stop(signum: int) -> None:
        signals_seen.append(signum)
        logger.info("%s: shutting down", signal.Signals(signum).name)
        # A second signal ends the grace period.
        server.shut_down(given.grace if len(signals_seen) == 1 else 0.0)

    try:
        check_trace(given)
    except OSError as error:
        return _refuse_trace(given, error)
    with ExitStack() as stack:
        # Before the port is open: a client that connects may already send a signal.
        stack.enter_context(compat.on_signals(_heeded(STOPS), stop))
        stack.enter_context(
            compat.on_signals(TELLS, lambda signum: server.log_counters())
        )
        try:
            server = make_server(given, tls)
        except MetricsError as error:
            host, port = given.metrics
            return _refuse(f"cannot show metrics on {host} port {port}", error)
        except (OSError, UnicodeError) as error:
            return _refuse(f"cannot listen on {given.host} port {given.port}", error)
        try:
            # After listening has succeeded: a server that cannot listen must not
            # overwrite the trace.
            stack.enter_context(traced(given))
        except OSError as error:
            server.close()
            return _refuse_trace(given, error)
        logger.info("port %d, loop %s (%s)", server.port, choice.name, choice.why)
        if server.metrics is not None:
            logger.info("metrics on port %d", server.metrics.port)
        if limit is not None:
            logger.info("%d descriptors: about %d clients", limit, limit - 16)
        compat.loop(loop=given.loop)
        if hasattr(signal, "pthread_sigmask"):
            # A signal during the exit must not change the exit status.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    return 0


def make_server(
    given: argparse.Namespace, tls: ssl.SSLContext | None = None
) -> ChatServer:
    """Make the server that the command line describes.

    Raises:
        OSError: as for ChatServer.
    """
    return ChatServer(
        given.backlog,
        given.host,
        given.port,
        metrics=given.metrics,
        max_clients=given.max_clients,
        max_per_address=given.max_per_address,
        send_queue=given.send_queue,
        flood_bytes=given.flood_bytes,
        flood_messages=given.flood_messages,
        flood_burst=given.flood_burst,
        idle=given.idle,
        keepalive=given.keepalive,
        terminator=given.terminator,
        tls=tls,
        tls_timeout=given.tls_timeout,
    )


def talk(given: argparse.Namespace) -> int:
    """Join a room from this terminal; return the exit status."""
    try:
        tls = _client_tls(given)
    except ValueError as error:
        return _refuse("cannot use TLS", error)
    signals = _heeded(STOPS)
    for each in signals:
        # connect() restores this: a signal after it must not change the exit status.
        signal.signal(each, signal.SIG_IGN)
    try:
        connect(given.host, given.port, given.loop, given.terminator, tls, signals)
    except BrokenPipeError:
        raise
    except StreamError as error:
        return _refuse("cannot talk", error)
    except (OSError, UnicodeError) as error:
        return _refuse(f"cannot talk to {given.host} port {given.port}", error)
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


def _heeded(signums: list[signal.Signals]) -> list[signal.Signals]:
    """Return *signums* without SIGHUP if that is ignored, as under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    return [
        each
        for each in signums
        if each != hangup or signal.getsignal(each) != signal.SIG_IGN
    ]


def _refuse(what: str, error: Exception) -> int:
    reason = getattr(error, "strerror", None) or error
    complain("legacy-chat", f"{what}: {reason}")
    return 1


def _refuse_trace(given: argparse.Namespace, error: OSError) -> int:
    return _refuse(f"cannot write the trace {given.trace}", error)


def _tls_mistake(given: argparse.Namespace) -> str:
    """Return the error in the TLS options; "" for none."""
    if given.tls_key and not given.tls_cert:
        return "--tls-key is the key of a certificate: add --tls-cert FILE"
    if given.run is talk:
        named = given.tls_cert or given.tls_ca
        return "--tls-… is of use only with --tls" if named and not given.tls else ""
    if given.tls_require_client_cert and not given.tls_ca:
        return (
            "--tls-require-client-cert: whose? add --tls-ca FILE with their authority"
        )
    if given.tls_ca and not given.tls_cert:
        return "without --tls-cert there is no TLS: add --tls-cert FILE"
    return ""


def _server_tls(given: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the context for the options; None without TLS.

    Raises:
        ValueError: a file cannot be used.
    """
    if not given.tls_cert:
        return None
    # Imported here, because ssl takes longer to import than everything else.
    from legacy_chat import tls

    return tls.server_context(
        given.tls_cert, given.tls_key, given.tls_ca, given.tls_require_client_cert
    )


def _client_tls(given: argparse.Namespace) -> ssl.SSLContext | None:
    if not given.tls:
        return None
    from legacy_chat import tls

    return tls.client_context(given.tls_ca, given.tls_cert, given.tls_key)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="legacy-chat",
        description="The asyncore chat room of the tutorial, and a client for it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        required=True, metavar="serve | connect | baseline | lesson"
    )
    commands.add_parser("baseline", help="record and check what a server does")
    commands.add_parser("lesson", help="see the loop at work")
    server = _command(commands, "serve", serve, "run a room", SERVE_EXAMPLES)
    server.add_argument(
        "--host",
        default="0.0.0.0",
        help="address or name to listen on (default: %(default)s)",
    )
    server.add_argument(
        "--backlog",
        type=_number("list_num"),
        default=BACKLOG,
        metavar="N",
        help="connections that may wait to be accepted, as far as the system allows: "
        f"{described('list_num')} (default: %(default)s)",
    )
    server.add_argument(
        "--grace",
        type=_number("grace"),
        default=3.0,
        metavar="SECONDS",
        help="time for clients to take what is queued when the server stops: "
        f"{described('grace')} (default: %(default)s)",
    )
    _add_limits(server)
    _add_views(server)
    _add_server_tls(server)
    client = _command(commands, "connect", talk, "join a room", CONNECT_EXAMPLES)
    client.add_argument(
        "host",
        nargs="?",
        default="127.0.0.1",
        metavar="HOST",
        help="where the room is (default: %(default)s)",
    )
    _add_client_tls(client)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits (0: none)")
    for name, metavar, about in (
        ("max_clients", "N", "refuse clients beyond this number"),
        ("max_per_address", "N", "refuse clients of one IP address beyond this number"),
        ("send_queue", "BYTES", "disconnect a client whose unsent data exceeds this"),
        ("flood_bytes", "BYTES", "bytes a second that are read from a client"),
        ("flood_messages", "N", "messages a second that are read from a client"),
        ("flood_burst", "SECONDS", "time whose bytes and messages may come at once"),
        ("idle", "SECONDS", "disconnect a client after this time without traffic"),
        ("keepalive", "SECONDS", "silence before the first TCP keepalive probe"),
    ):
        limits.add_argument(
            "--" + name.replace("_", "-"),
            type=_number(name),
            default=getattr(USUAL, name),
            metavar=metavar,
            help=f"{about}: {described(name)} (default: %(default)s)",
        )


def _add_views(parser: argparse.ArgumentParser) -> None:
    views = parser.add_argument_group("seeing what it does")
    views.add_argument(
        "--metrics",
        type=_address,
        metavar="HOST:PORT",
        help="where the counters are shown to Prometheus, as /metrics",
    )
    views.add_argument(
        "--log-format",
        choices=FORMATS,
        default="text",
        help="lines for people, or JSON (default: %(default)s)",
    )
    add_options(views)


def _add_server_tls(server: argparse.ArgumentParser) -> None:
    group = server.add_argument_group("TLS, 1.2 or later", "Files are in PEM form.")
    group.add_argument(
        "--tls-cert",
        type=_file,
        metavar="FILE",
        help="the server's certificate, then its issuers'; switches TLS on",
    )
    group.add_argument(
        "--tls-key",
        type=_file,
        metavar="FILE",
        help="its key (default: in the same file)",
    )
    group.add_argument(
        "--tls-ca",
        type=_file,
        metavar="FILE",
        help="authorities of clients' certificates",
    )
    group.add_argument(
        "--tls-require-client-cert",
        action="store_true",
        help="refuse clients that show none (default: check it, if one is shown)",
    )
    group.add_argument(
        "--tls-timeout",
        type=_number("tls_timeout"),
        default=10.0,
        metavar="SECONDS",
        help=f"time for a client to make its handshake: {described('tls_timeout')} "
        "(default: %(default)s)",
    )


def _add_client_tls(client: argparse.ArgumentParser) -> None:
    group = client.add_argument_group("TLS, 1.2 or later", "Files are in PEM form.")
    group.add_argument(
        "--tls",
        action="store_true",
        help="verify the server's certificate, and that it is HOST's",
    )
    group.add_argument(
        "--tls-ca",
        type=_file,
        metavar="FILE",
        help="authorities to trust, or the server's own certificate "
        "(default: the system's)",
    )
    group.add_argument(
        "--tls-cert",
        type=_file,
        metavar="FILE",
        help="this client's certificate, if it has one",
    )
    group.add_argument(
        "--tls-key",
        type=_file,
        metavar="FILE",
        help="its key (default: in the same file)",
    )


def _command(
    commands: argparse._SubParsersAction[Parser],
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
    parser.set_defaults(run=run, log_format="text")
    parser.add_argument(
        "--port",
        type=_number("port"),
        default=DEFAULT_PORT,
        help=f"TCP port: {described('port')} (default: %(default)s)",
    )
    parser.add_argument(
        "--terminator",
        type=_bytes,
        default=USUAL.terminator,
        metavar="TEXT",
        help=r"what ends a conversation, with \r \n \t \0 \\ \xHH (default: out)",
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


def _number(name: str) -> Callable[[str], float]:
    """Return a parser for an option whose range in RANGES is *name*."""

    def read(text: str) -> float:
        try:
            return parse(name, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _file(text: str) -> str:
    # '' is "$CERT" with an unset variable: the server must not start without TLS.
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a file, got ''")
    return text


def _bytes(text: str) -> bytes:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (host and colon):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST:PORT, such as 127.0.0.1:9100 or [::1]:9100"
        )
    try:
        number = int(parse("port", port))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"port {error}") from None
    return host.removeprefix("[").removesuffix("]"), number


# Options of the top-level parser, which need no command.
_TOP = ("-h", "--help", "--version")
