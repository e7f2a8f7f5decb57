"""The head of an HTTP request: the request line and the header fields.

Rule 1: a head ends with an empty line. A line ends with CRLF, or with LF alone, as in
typed requests.
Rule 2: a head that RFC 9112 calls malformed is an error, never a guess. A malformed
request line is an error at once: TLS or HTTP/0.9 data may never contain a head's end.

Source: RFC 9112, sections 2.2, 3 and 5; RFC 9110, section 15.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

__all__ = ["Head", "HeadError", "read_head"]

LINE_END = re.compile(rb"\r?\n")

# Control characters except the tab; bytes of 0x80 and more are not among them.
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/([0-9])\.[0-9]" % TOKEN)
FIELD = re.compile(rb"%b:.*" % TOKEN)

# A path, before a query that is ignored; a proxy's request has scheme and host first.
TARGET = re.compile(rb"(?:(?i:https?)://[^/?#]+)?(/[^?#]*)?(?:\?[^#]*)?")


class Head(NamedTuple):
    """The method and the path of a request.

    Attributes:
        method: as sent; methods are case-sensitive.
        path: without the query, percent-decoded; b"*" is the server as a whole.
    """

    method: bytes
    path: bytes


class HeadError(ValueError):
    """A head that cannot be answered; the message is the HTTP status."""


def read_head(data: bytes) -> Head | None:
    """Return the head at the start of *data*; None if it is incomplete.

    Raises:
        HeadError: the head is malformed, or has another major version.
    """
    # One empty line before a request is skipped: some clients send it after a body.
    begin = LINE_END.match(data)
    *lines, rest = LINE_END.split(data[begin.end() :] if begin else data)
    if not lines:
        # A "\r" at the end may begin the line's CRLF.
        if CONTROL.search(rest.removesuffix(b"\r")):
            raise HeadError("400 Bad Request")
        return None
    head = _read_request_line(lines[0])
    if b"" not in lines:
        return None
    for field in lines[1 : lines.index(b"")]:
        # No colon, a space before the colon, or a leading space, which folds lines.
        if CONTROL.search(field) or not FIELD.fullmatch(field):
            raise HeadError("400 Bad Request")
    return head


def _read_request_line(line: bytes) -> Head:
    found = REQUEST_LINE.fullmatch(line)
    if found is None:
        raise HeadError("400 Bad Request")
    method, target, major = found.groups()
    if major != b"1":
        raise HeadError("505 HTTP Version Not Supported")
    if target == b"*":
        return Head(method, target)
    path = TARGET.fullmatch(target)
    if path is None:
        raise HeadError("400 Bad Request")
    return Head(method, unquote_to_bytes(path[1] or b"/"))
