"""The options of ``legacy-chat serve`` and ``connect``."""

from __future__ import annotations

import argparse
import socket

from compat.options import LOOP, Option
from compat.trace.options import TRACE, trace_mistake
from compat.values import address, byte_string, file_name
from legacy_chat.limits import RANGES, Limits
from legacy_chat.output import FORMATS
from legacy_chat.server import DEFAULT_PORT

__all__ = [
    "CLIENT_TLS",
    "COMMON",
    "HOST",
    "LIMITS",
    "OPERATION",
    "SERVE",
    "SERVER_TLS",
    "connect_mistake",
    "serve_mistake",
]

# Default listen backlog. With the tutorial's 20, some connections of a burst of a few
# hundred wait for seconds. The system may allow fewer.
BACKLOG = min(1024, socket.SOMAXCONN)


def serve_mistake(options: argparse.Namespace) -> str:
    """Return the error in the combination of the options of ``serve``; "" for none."""
    if options.tls_key and not options.tls_cert:
        return "--tls-key needs --tls-cert FILE"
    if options.tls_require_client_cert and not options.tls_ca:
        return "--tls-require-client-cert needs --tls-ca FILE"
    if options.tls_ca and not options.tls_cert:
        return "--tls-ca needs --tls-cert FILE"
    return trace_mistake(options)


def connect_mistake(options: argparse.Namespace) -> str:
    """Return the same for ``connect``."""
    if options.tls_key and not options.tls_cert:
        return "--tls-key needs --tls-cert FILE"
    if (options.tls_cert or options.tls_ca) and not options.tls:
        return "--tls-cert, --tls-key and --tls-ca need --tls"
    return ""


COUNT = {"action": "count", "default": 0}

COMMON = (
    Option("--port N", "TCP port", RANGES["port"], DEFAULT_PORT),
    Option(
        "--terminator TEXT",
        r"end a session at this text; \r \n \t \0 \\ \xHH are bytes (default: out)",
        byte_string,
        Limits.terminator,
    ),
    LOOP,
    Option("-v --verbose", "log more; -vv: everything", more=COUNT),
    Option("-q --quiet", "log errors only; -qq: critical errors only", more=COUNT),
)

HOST = Option(
    "HOST", "address or name of the server", default="127.0.0.1", more={"nargs": "?"}
)

SERVE = (
    Option("--host HOST", "address or name to listen on", default="0.0.0.0"),
    Option(
        "--backlog N",
        "connections that may wait to be accepted; the system may allow fewer",
        RANGES["list_num"],
        BACKLOG,
    ),
    Option(
        "--grace SECONDS",
        "time to flush the clients' queues when the server stops",
        RANGES["grace"],
        3.0,
    ),
)

LIMITS = tuple(
    Option(
        f"--{name.replace('_', '-')} {value}",
        purpose,
        RANGES[name],
        getattr(Limits, name),
    )
    for name, value, purpose in (
        ("max_clients", "N", "reject clients beyond this number"),
        ("max_per_address", "N", "reject clients of one IP address beyond this number"),
        ("send_queue", "BYTES", "disconnect a client whose unsent data exceeds this"),
        ("flood_bytes", "BYTES", "limit the input of a client, in bytes per second"),
        ("flood_messages", "N", "limit the input of a client, in messages per second"),
        ("flood_burst", "SECONDS", "allow the input of this time at once"),
        ("idle", "SECONDS", "disconnect a client after this time without traffic"),
        ("keepalive", "SECONDS", "silence before the first TCP keepalive probe"),
    )
)

OPERATION = (
    Option(
        "--metrics HOST:PORT", "serve Prometheus at this address, as /metrics", address
    ),
    Option(
        "--log-format FORMAT",
        "form of the log: text, or json for programs",
        default="text",
        more={"choices": FORMATS},
    ),
    *TRACE,
)

KEY = Option("--tls-key FILE", "key (default: in the certificate's file)", file_name)

SERVER_TLS = (
    Option("--tls-cert FILE", "use TLS, with this chain of certificates", file_name),
    KEY,
    Option("--tls-ca FILE", "verify clients with these authorities", file_name),
    Option(
        "--tls-require-client-cert",
        "reject clients without a certificate (default: verify it if there is one)",
    ),
    Option(
        "--tls-timeout SECONDS",
        "disconnect a client whose handshake takes longer",
        RANGES["tls_timeout"],
        10.0,
    ),
)

CLIENT_TLS = (
    Option("--tls", "use TLS; verify the server's certificate and its name, HOST"),
    Option(
        "--tls-ca FILE",
        "trust these authorities, or this certificate (default: the system's)",
        file_name,
    ),
    Option("--tls-cert FILE", "send this certificate to the server", file_name),
    KEY,
)
