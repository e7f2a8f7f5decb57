"""TLS contexts for the room and its client, from certificate files.

Rule 1: without TLS, neither this module nor ``ssl`` is imported.
Rule 2: an error in a file is one sentence that names the file.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import NoReturn

__all__ = ["FileError", "client_context", "server_context"]

# Maximum bytes of a file. All authorities of a system have less than one million.
LARGEST_FILE = 16 << 20


class FileError(ValueError):
    """A file without a usable certificate, key or list of authorities."""


def server_context(
    cert: str, key: str | None = None, ca: str | None = None, require: bool = False
) -> ssl.SSLContext:
    """Return a server's context: TLS 1.2 or later, without renegotiation.

    Args:
        cert: a PEM file with the server's certificate, then those of its issuers.
        key: a PEM file with its key; None if the key is in *cert*.
        ca: a PEM file with the authorities whose client certificates are accepted.
        require: reject a client without a certificate.

    Raises:
        FileError: a file cannot be used.
        ValueError: *require* without *ca*.
    """
    if require and ca is None:
        raise ValueError("client certificates cannot be required without their issuer")
    context = _secured(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    _load_own(context, cert, key)
    if ca is not None:
        _load_authorities(context, ca)
        context.verify_mode = ssl.CERT_REQUIRED if require else ssl.CERT_OPTIONAL
    return context


def client_context(
    cert: str | None = None, key: str | None = None, ca: str | None = None
) -> ssl.SSLContext:
    """Return a client's context: TLS 1.2 or later, with verification of the server.

    The server's name is verified, too.

    Args:
        cert: a PEM file with the client's certificate; None for none.
        key: a PEM file with its key; None if the key is in *cert*.
        ca: a PEM file with the authorities to trust; None for the system's.

    Raises:
        FileError: a file cannot be used.
    """
    context = _secured(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, ca)
    if cert is not None:
        _load_own(context, cert, key)
    return context


def _secured(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _load_own(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    for path in (cert, key):
        _check_file(path)
    try:
        context.load_cert_chain(cert, key, password=lambda: _refuse_locked(key or cert))
    except ssl.SSLError as error:
        raise FileError(_reason(error, cert, key)) from error


def _load_authorities(context: ssl.SSLContext, ca: str) -> None:
    _check_file(ca)
    if not _has_certificate(ca, context):
        raise FileError(f"{ca} has no certificate in PEM form")


def _check_file(path: str | None) -> None:
    """Raise FileError for a file that OpenSSL would block on, or read without end.

    OpenSSL's own errors do not name the file that cannot be read.
    """
    if path is None:
        return
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise FileError(f"{path}: Not a regular file")
        if found.st_size > LARGEST_FILE:
            raise FileError(f"{path}: Larger than {LARGEST_FILE >> 20} MiB")
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error


def _refuse_locked(path: str) -> NoReturn:
    # Without this, OpenSSL would prompt for the password on the server's terminal.
    raise FileError(f"the key in {path} is locked with a password: unlock it first")


def _reason(error: ssl.SSLError, cert: str, key: str | None) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key or cert} is not the key of the certificate in {cert}"
    if not _has_certificate(cert, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        return f"{cert} has no certificate in PEM form"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
        return f"the certificate in {cert} is too weak to be used"
    return f"{key or cert} has no key in PEM form" + ("" if key else ": give a key")


def _has_certificate(path: str, context: ssl.SSLContext) -> bool:
    try:
        context.load_verify_locations(os.fspath(path))
    except ssl.SSLError:
        return False
    return True
