"""HTTP/1 requests as bytes (RFC 9110 and 9112): which requests are well formed, and how large they may be.

This file owns the grammar and the size limits. It never waits and knows nothing of sockets, gevent or WSGI: bytes in; a
`Head`, a body or a `Refusal` out. It keeps no state, so any thread may use it.

It refuses every request that two parsers could read differently, also where the RFC lets a server guess: such guesses
are how requests are smuggled past a proxy. h11 was tried in its place: it accepts 23 of the 59 malformed heads in
`tests/test_http1.py` and 8 of its 19 malformed bodies, so most of these checks would stay around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# Sizes are in bytes, without the end of the line.
MAX_REQUEST_LINE = 8 * 1024
MAX_HEADERS = 16 * 1024  # all header fields together; all trailers together
MAX_FIELDS = 100
MAX_BODY = 64 * 1024
MAX_CHUNK_LINE = 256  # a chunk's size with its extensions
MAX_CHUNK_EXTENSIONS = 4 * 1024  # in one body

VERSIONS = ("HTTP/1.0", "HTTP/1.1")
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n"  # an HTTP/2 client, such as gRPC, begins with this line
LISTED_ONCE = frozenset({"host", "content-length", "transfer-encoding", "content-type"})

# Control characters, and line ends other than CR LF. A CR at the very end is allowed: its LF may still come.
FORBIDDEN = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|(?<!\r)\n|\r(?!\n|\Z)")
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
REQUEST_LINE = re.compile(r"([^ ]+) ([!-~]+) (HTTP/[0-9]\.[0-9])")
TARGET = re.compile(r"(?:(?i:https?)://([^/?#]+))?(/[^?#]*)?(?:\?([^#]*))?")  # of origin-form or absolute-form
HOST = re.compile(r"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
DIGITS = re.compile(r"[0-9]+")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. `fields` has lower-case names; the values of a field that came several times are joined.

    `content_length` is None if the request has no such field.
    """

    method: str
    path: str
    query: str
    version: str
    fields: dict[str, str]
    content_length: int | None
    is_chunked: bool

    @property
    def keeps_alive(self) -> bool:
        options = {option.strip().lower() for option in self.fields.get("connection", "").split(",")}
        return "close" not in options and (self.version == "HTTP/1.1" or "keep-alive" in options)

    @property
    def has_body(self) -> bool:
        return self.is_chunked or bool(self.content_length)

    @property
    def expects_continue(self) -> bool:
        return self.version == "HTTP/1.1" and "expect" in self.fields


class Refusal(Exception):
    """The application doesn't see this request. The client gets the code and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def malformed(message: str) -> Refusal:
    return Refusal("malformed_request", message)


def headers_too_large() -> Refusal:
    return Refusal("headers_too_large", f"Send at most {MAX_FIELDS} header fields, {MAX_HEADERS} bytes in total.")


def body_too_large() -> Refusal:
    return Refusal("too_large", f"Send a body of at most {MAX_BODY} bytes.")


def unknown_version() -> Refusal:
    return Refusal(
        "unknown_version",
        "Use HTTP/1.1 or HTTP/1.0. Pluto does not support HTTP/2: use Connect or gRPC-Web over HTTP/1.1, not gRPC.",
    )


# --- heads ------------------------------------------------------------------------------------------------------------


def find_head_end(received: bytearray, looked_at: int) -> int:
    """The place of the empty line after the head, -1 if it hasn't come yet. `looked_at` bytes were searched before.

    Raises Refusal as soon as the bytes can't become a head.
    """
    if received.startswith(HTTP2_PREFACE):
        raise unknown_version()
    end = received.find(b"\r\n\r\n", max(0, looked_at - 3))
    size = len(received) if end < 0 else end
    if FORBIDDEN.search(received, max(0, looked_at - 2), size):
        raise malformed("Send the request's head as lines of text that end with CR LF, without control characters.")
    line_size = received.find(b"\r\n", 0, MAX_REQUEST_LINE + 2)
    if line_size < 0 and size > MAX_REQUEST_LINE:
        raise Refusal("target_too_long", f"Send a request line of at most {MAX_REQUEST_LINE} bytes.")
    if line_size >= 0 and size - line_size - 2 > MAX_HEADERS:
        raise headers_too_large()
    return end


def parse_head(head: bytes) -> Head:
    """Parses a head without the empty line after it. `find_head_end` has checked it before. Raises Refusal."""
    line, *rest = head.decode("latin-1").split("\r\n")
    method, target, version = _parse_request_line(line)
    fields = _parse_fields(rest)
    authority, path, query = _split_target(target, method)
    _check_host(fields, authority, version)
    _check_expectation(fields, version)
    length = _content_length(fields, version)
    return Head(method, path, query, version, fields, length, "transfer-encoding" in fields)


def _parse_request_line(line: str) -> tuple[str, str, str]:
    match = REQUEST_LINE.fullmatch(line)
    if match is None or not TOKEN.fullmatch(match[1]):
        raise malformed("Begin the request with a line such as: GET /api/tickers HTTP/1.1")
    method, target, version = match.groups()
    if version not in VERSIONS:
        raise unknown_version()
    return method, target, version


def _parse_fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        raise headers_too_large()
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not TOKEN.fullmatch(name):  # also white space before the colon, folded lines, empty names
            raise malformed("Write each header field on one line, such as Accept: */*, without space before the colon.")
        name, value = name.lower(), value.strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in LISTED_ONCE:
            raise malformed(f"Send the header {name} only once.")
        else:
            fields[name] += ("; " if name == "cookie" else ",") + value
    return fields


def _split_target(target: str, method: str) -> tuple[str | None, str, str]:
    """(authority, path, query). The authority is None unless the target is a whole URL."""
    if target == "*" and method == "OPTIONS":
        return None, target, ""
    match = TARGET.fullmatch(target)
    if match is None or (match[1] is None and match[2] is None):
        raise malformed("Request a path such as /api/tickers, or a whole http:// URL, without a fragment.")
    return match[1], match[2] or "/", match[3] or ""


def _check_host(fields: dict[str, str], authority: str | None, version: str) -> None:
    """The authority of a whole URL replaces the Host header (RFC 9112, 3.2.2)."""
    host = fields.get("host")
    if host is None and version == "HTTP/1.1":
        raise malformed("Send a Host header. HTTP/1.1 requires it.")
    if (host is not None and not HOST.fullmatch(host)) or (authority is not None and not HOST.fullmatch(authority)):
        raise malformed("Send a host name or an address as the Host header, such as localhost:8080.")
    if authority is not None:
        fields["host"] = authority


def _check_expectation(fields: dict[str, str], version: str) -> None:
    if version == "HTTP/1.1" and fields.get("expect", "100-continue").lower() != "100-continue":
        raise Refusal("unknown_expectation", "Send Expect: 100-continue, or no Expect header.")


def _content_length(fields: dict[str, str], version: str) -> int | None:
    length, encoding = fields.get("content-length"), fields.get("transfer-encoding")
    if encoding is not None and (length is not None or version == "HTTP/1.0" or encoding.lower() != "chunked"):
        raise malformed("Send either Content-Length or, in HTTP/1.1, Transfer-Encoding: chunked.")
    if length is None:
        return None
    if not DIGITS.fullmatch(length):
        raise malformed("Send Content-Length as a number of bytes, in decimal digits.")
    if len(length) > 18 or int(length) > MAX_BODY:
        raise body_too_large()
    return int(length)


# --- chunked bodies ---------------------------------------------------------------------------------------------------


def read_chunked(read_line: Callable[[int], bytes], read: Callable[[int], bytes]) -> bytes:
    """Reads a chunked body; checks its trailers and drops them. `read_line` takes the maximum length of a line."""
    body, extensions = bytearray(), 0
    while True:
        line = read_line(MAX_CHUNK_LINE)
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise malformed("Begin each chunk with its size in hexadecimal digits.")
        size, extensions = int(match[1], 16), extensions + len(match[2] or b"")
        if extensions > MAX_CHUNK_EXTENSIONS:
            raise malformed(f"Send at most {MAX_CHUNK_EXTENSIONS} bytes of chunk extensions.")
        if size == 0:
            break
        if len(body) + size > MAX_BODY:
            raise body_too_large()
        body += read(size)
        if read(2) != b"\r\n":
            raise malformed("Send chunks that are as long as their size says.")
    _skip_trailers(read_line)
    return bytes(body)


def _skip_trailers(read_line: Callable[[int], bytes]) -> None:
    size, lines = 0, list[str]()
    while line := read_line(MAX_HEADERS):
        lines.append(line.decode("latin-1"))
        size += len(line) + 2
        if size > MAX_HEADERS or len(lines) > MAX_FIELDS:
            raise headers_too_large()
        if FORBIDDEN.search(line):
            raise malformed("Send trailers as text without control characters.")
    _parse_fields(lines)
