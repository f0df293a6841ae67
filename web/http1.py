"""HTTP/1 requests as bytes (RFC 9110 and 9112): which are well formed, and how much of anything a request may have.

This file owns the grammar and the sizes. It never waits, and knows nothing of sockets, gevent or WSGI: bytes in, a
`Head` or a body out, or a `Refusal`. Where the RFC lets a server guess what a malformed request may mean, this one
refuses: two parsers that guess differently are how requests are smuggled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_REQUEST_LINE = 8 * 1024  # bytes, without the line's end; so are those below
MAX_HEADERS = 16 * 1024  # all fields together, and all trailers
MAX_FIELDS = 100
MAX_BODY = 64 * 1024
MAX_CHUNK_LINE = 256  # a chunk's size with its extensions
MAX_CHUNK_EXTENSIONS = 4 * 1024  # in one body

VERSIONS = ("HTTP/1.0", "HTTP/1.1")
LISTED_ONCE = frozenset({"host", "content-length", "transfer-encoding", "content-type"})

# Control characters, and line ends that are not CR LF. A CR that comes last may yet be followed by its LF.
FORBIDDEN = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|(?<!\r)\n|\r(?!\n|\Z)")
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
REQUEST_LINE = re.compile(r"([^ ]+) ([!-~]+) (HTTP/[0-9]\.[0-9])")
TARGET = re.compile(r"(?:(?i:https?)://([^/?#]+))?(/[^?#]*)?(?:\?([^#]*))?")  # of origin-form or absolute-form
HOST = re.compile(r"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
DIGITS = re.compile(r"[0-9]+")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")


class Refusal(Exception):
    """A request that the application never sees: the status, the code and the words its client gets instead."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def malformed(message: str) -> Refusal:
    return Refusal(400, "malformed_request", message)


def headers_too_large() -> Refusal:
    return Refusal(431, "headers_too_large", f"Send at most {MAX_FIELDS} header fields of {MAX_HEADERS} bytes in all.")


def body_too_large() -> Refusal:
    return Refusal(413, "too_large", f"The body is too large; {MAX_BODY} bytes are the most.")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. `fields` have lower-case names; one that came several times has its values joined.

    `content_length` is None without that field.
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


# --- heads ------------------------------------------------------------------------------------------------------------


def find_head_end(received: bytearray, looked_at: int) -> int:
    """Where the empty line after the head begins, -1 if it hasn't come; so many bytes were looked at before.

    Raises Refusal as soon as what came can't become a head.
    """
    end = received.find(b"\r\n\r\n", max(0, looked_at - 3))
    size = len(received) if end < 0 else end
    if FORBIDDEN.search(received, max(0, looked_at - 2), size):
        raise malformed("A request's head is text in lines that end with CR LF; it has no control characters.")
    line_size = received.find(b"\r\n", 0, MAX_REQUEST_LINE + 2)
    if line_size < 0 and size > MAX_REQUEST_LINE:
        raise Refusal(414, "target_too_long", f"Send a request line of at most {MAX_REQUEST_LINE} bytes.")
    if line_size >= 0 and size - line_size - 2 > MAX_HEADERS:
        raise headers_too_large()
    return end


def parse_head(head: bytes) -> Head:
    """A head up to its empty line, as find_head_end found it. Raises Refusal."""
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
        raise malformed("A request begins with a line such as GET /api/tickers HTTP/1.1.")
    method, target, version = match.groups()
    if version not in VERSIONS:
        raise Refusal(505, "unknown_version", "Pluto speaks HTTP/1.1 and HTTP/1.0.")
    return method, target, version


def _parse_fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        raise headers_too_large()
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not TOKEN.fullmatch(name):  # white space before the colon, folded lines and empty names too
            raise malformed("A header field is a line of its own, such as Accept: */*, with no space before the colon.")
        name, value = name.lower(), value.strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in LISTED_ONCE:
            raise malformed(f"Send {name} once; sent twice it has no sure meaning.")
        else:
            fields[name] += ("; " if name == "cookie" else ",") + value
    return fields


def _split_target(target: str, method: str) -> tuple[str | None, str, str]:
    """(authority, path, query); the authority is None but in absolute-form."""
    if target == "*" and method == "OPTIONS":
        return None, target, ""
    match = TARGET.fullmatch(target)
    if match is None or (match[1] is None and match[2] is None):
        raise malformed("Ask for a path such as /api/tickers, or for a whole http:// URL, without a fragment.")
    return match[1], match[2] or "/", match[3] or ""


def _check_host(fields: dict[str, str], authority: str | None, version: str) -> None:
    """A whole URL's authority takes the place of Host (RFC 9112, 3.2.2)."""
    host = fields.get("host")
    if host is None and version == "HTTP/1.1":
        raise malformed("Send a Host field; HTTP/1.1 asks for one.")
    if (host is not None and not HOST.fullmatch(host)) or (authority is not None and not HOST.fullmatch(authority)):
        raise malformed("Send as Host a name or an address, with a port if need be, such as localhost:8080.")
    if authority is not None:
        fields["host"] = authority


def _check_expectation(fields: dict[str, str], version: str) -> None:
    if version == "HTTP/1.1" and fields.get("expect", "100-continue").lower() != "100-continue":
        raise Refusal(417, "unknown_expectation", "Send Expect: 100-continue, or no Expect at all.")


def _content_length(fields: dict[str, str], version: str) -> int | None:
    length, encoding = fields.get("content-length"), fields.get("transfer-encoding")
    if encoding is not None and (length is not None or version == "HTTP/1.0" or encoding.lower() != "chunked"):
        raise malformed("Say how long the body is either by Content-Length or by Transfer-Encoding: chunked.")
    if length is None:
        return None
    if not DIGITS.fullmatch(length):
        raise malformed("Send as Content-Length a number of bytes in plain digits.")
    if len(length) > 18 or int(length) > MAX_BODY:
        raise body_too_large()
    return int(length)


# --- chunked bodies ---------------------------------------------------------------------------------------------------


def read_chunked(read_line: Callable[[int], bytes], read: Callable[[int], bytes]) -> bytes:
    """A chunked body, its trailers checked and thrown away. `read_line` takes the most bytes a line may have."""
    body, extensions = bytearray(), 0
    while True:
        line = read_line(MAX_CHUNK_LINE)
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise malformed("A chunk begins with its size in hexadecimal digits.")
        size, extensions = int(match[1], 16), extensions + len(match[2] or b"")
        if extensions > MAX_CHUNK_EXTENSIONS:
            raise malformed("A body's chunk extensions are too long.")
        if size == 0:
            break
        if len(body) + size > MAX_BODY:
            raise body_too_large()
        body += read(size)
        if read(2) != b"\r\n":
            raise malformed("A chunk is longer than its size says.")
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
            raise malformed("Trailers are text, without control characters.")
    _parse_fields(lines)
