"""The errors of TLS, for people and for counters.

Rule: a text names the peer's fault in plain words, without OpenSSL's names.
"""

from __future__ import annotations

import errno
import ssl
from typing import Any

__all__ = ["HandshakeError", "display_name", "reason_of"]

# OpenSSL's reason: (the kind, for counters; the message, for people).
REASONS = {
    "HTTP_REQUEST": ("no TLS", "the peer sent HTTP without TLS"),
    "WRONG_VERSION_NUMBER": ("no TLS", "the peer does not use TLS"),
    # A plain chat room causes this, too, because it echoes.
    "UNEXPECTED_MESSAGE": ("protocol", "the peer sent no TLS handshake"),
    "UNSUPPORTED_PROTOCOL": ("version", "the peer's TLS version is too old"),
    "TLSV1_ALERT_PROTOCOL_VERSION": (
        "version",
        "the peer requires another version of TLS",
    ),
    "NO_SHARED_CIPHER": ("cipher", "the two sides share no cipher"),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "cipher",
        "the peer accepts none of the offered parameters",
    ),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "no certificate",
        "a certificate is required, and the peer sent none",
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "no certificate",
        "the peer requires a certificate, and got none",
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "distrusted",
        "the peer does not trust the issuer of our certificate",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "distrusted",
        "the peer does not accept our certificate",
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": (
        "distrusted",
        "the peer does not accept our certificate",
    ),
}


class HandshakeError(ConnectionAbortedError):
    """A handshake failed.

    Attributes:
        kind: the reason, for counters: "timeout", "closed", "no TLS", "version",
            "cipher", "no certificate", "certificate", "distrusted", "protocol".
        strerror: the reason, for people; ``str`` returns it, too.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(errno.ECONNABORTED, reason)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.strerror)


def reason_of(error: ssl.SSLError) -> tuple[str, str]:
    """Return the kind of an error, for counters, and its message, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = str(error.verify_message).rstrip(".")
        return "certificate", f"the peer's certificate is not trusted: {reason}"
    name = error.reason or str(error.strerror or error)
    return REASONS.get(name) or ("protocol", name.replace("_", " ").lower())


def display_name(address: Any) -> str:
    """Return an address for display: host and port, if it has these."""
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]} port {address[1]}"
    return str(address or "a peer")
