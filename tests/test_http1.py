"""The grammar of requests: what is a head, what is a chunked body, and what is neither."""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from web.errors import ANSWERS
from web.http1 import (
    MAX_BODY,
    MAX_CHUNK_EXTENSIONS,
    MAX_FIELDS,
    MAX_HEADERS,
    MAX_REQUEST_LINE,
    Refusal,
    find_head_end,
    parse_head,
    read_chunked,
)

HOST = b"\r\nHost: localhost"
POST = b"POST /api/tickers HTTP/1.1" + HOST
# The machine may be busy.
UNHURRIED = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def status_of(head: bytes) -> int:
    """What a head is answered with by the grammar; 200 when it is well formed."""
    received = bytearray(head + b"\r\n\r\n")
    try:
        end = find_head_end(received, 0)
        assert end >= 0
        parse_head(bytes(received[:end]))
    except Refusal as refusal:
        return ANSWERS[refusal.code].status
    return 200


def test_a_head_is_read_in_all_its_parts() -> None:
    head = parse_head(
        b"POST /api/tickers?a=b%20c&d HTTP/1.1\r\nHOST: localhost:8080\r\nContent-length:  7 \t\r\n"
        b"X-One: 1\r\nx-one:\r\nCookie: a=b\r\nCookie: c=d\r\nConnection: keep-alive, Close\r\nExpect: 100-Continue"
    )
    assert (head.method, head.path, head.query, head.version) == ("POST", "/api/tickers", "a=b%20c&d", "HTTP/1.1")
    assert head.fields["host"] == "localhost:8080"
    assert head.fields["x-one"] == "1,"
    assert head.fields["cookie"] == "a=b; c=d"
    assert (head.content_length, head.is_chunked, head.has_body) == (7, False, True)
    assert not head.keeps_alive
    assert head.expects_continue


def test_a_whole_urls_authority_takes_the_place_of_host() -> None:
    head = parse_head(b"GET HTTP://pluto.example:80?a=b HTTP/1.1\r\nHost: other.example")
    assert (head.path, head.query, head.fields["host"]) == ("/", "a=b", "pluto.example:80")


def test_a_connection_is_kept_by_http_1_1_and_by_http_1_0_if_asked() -> None:
    assert parse_head(b"GET / HTTP/1.1" + HOST).keeps_alive
    assert not parse_head(b"GET / HTTP/1.0").keeps_alive
    assert parse_head(b"GET / HTTP/1.0\r\nConnection: Keep-Alive").keeps_alive
    assert not parse_head(b"GET / HTTP/1.0\r\nExpect: 100-continue").expects_continue


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1" + HOST,
        b"GET / HTTP/1.0",
        b"GET /?q=%00 HTTP/1.1\r\nHost: [::1]:8080",
        b"OPTIONS * HTTP/1.1" + HOST,
        b"GET http://localhost:8080/api/tickers HTTP/1.1" + HOST,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX: \tobs \xff text\t",
        POST + b"\r\nContent-Length: 0",
        POST + b"\r\nTransfer-Encoding: Chunked",
    ],
)
def test_what_is_well_formed_passes(head: bytes) -> None:
    assert status_of(head) == 200


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / HTTP/1.1 " + HOST,
        b" GET / HTTP/1.1" + HOST,
        b"GET  / HTTP/1.1" + HOST,
        b"GET\t/ HTTP/1.1" + HOST,
        b"GET / http/1.1" + HOST,
        b"GET / HTTP/1.10" + HOST,
        b"GET / HTTP/11" + HOST,
        b"G@T / HTTP/1.1" + HOST,
        b"GET tickers HTTP/1.1" + HOST,
        b"GET ?a HTTP/1.1" + HOST,
        b"GET * HTTP/1.1" + HOST,
        b"GET /#a HTTP/1.1" + HOST,
        b"GET /\xc3\xa9 HTTP/1.1" + HOST,
        b"GET ftp://localhost/ HTTP/1.1" + HOST,
        b"GET http:///api HTTP/1.1" + HOST,
        b"GET http://user@localhost/ HTTP/1.1" + HOST,
        b"POST localhost:8080 HTTP/1.1" + HOST,
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost:",
        b"GET / HTTP/1.1\r\nHost: a b",
        b"GET / HTTP/1.1\r\nHost: a/b",
        b"GET / HTTP/1.1\r\nHost: a:b",
        b"GET / HTTP/1.1\r\nHost: a, b",
        b"GET / HTTP/1.1" + HOST + HOST,
        b"GET / HTTP/1.0" + HOST + HOST,
        b"GET / HTTP/1.1\nHost: localhost",
        b"GET / HTTP/1.1" + HOST + b"\nX: y",
        b"GET / HTTP/1.1" + HOST + b"\rX: y",
        b"GET / HTTP/1.1" + HOST + b"\r\nX: a\0b",
        b"GET / HTTP/1.1" + HOST + b"\r\nX: a\x0bb",
        b"GET / HTTP/1.1" + HOST + b"\r\nX: a\x7fb",
        b"GET / HTTP/1.1" + HOST + b"\r\n folded: y",
        b"GET / HTTP/1.1" + HOST + b"\r\nX: y\r\n\tfolded",
        b"GET / HTTP/1.1" + HOST + b"\r\nX : y",
        b"GET / HTTP/1.1" + HOST + b"\r\n: y",
        b"GET / HTTP/1.1" + HOST + b"\r\nX",
        b"GET / HTTP/1.1" + HOST + b"\r\nX(y): z",
        b"GET / HTTP/1.1" + HOST + b"\r\n\xff: z",
        POST + b"\r\nContent-Length: 1\r\nContent-Length: 2",
        POST + b"\r\nContent-Length: 1\r\nContent-Length: 1",
        POST + b"\r\nContent-Length: 1, 1",
        POST + b"\r\nContent-Length:",
        POST + b"\r\nContent-Length: +1",
        POST + b"\r\nContent-Length: -1",
        POST + b"\r\nContent-Length: 0x1",
        POST + b"\r\nContent-Length: 1_0",
        POST + b"\r\nContent-Length: \xb2",
        POST + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        POST + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        POST + b"\r\nTransfer-Encoding: gzip, chunked",
        POST + b"\r\nTransfer-Encoding: chunked, identity",
        POST + b"\r\nTransfer-Encoding: chunked;a=b",
        POST + b"\r\nTransfer-Encoding: xchunked",
        POST + b"\r\nTransfer-Encoding:",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
        POST + b"\r\nContent-Type: text/plain\r\nContent-Type: application/json",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    assert status_of(head) == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/2.0" + HOST, 505),
        (b"GET / HTTP/1.2" + HOST, 505),
        (b"GET / HTTP/0.9" + HOST, 505),
        (b"CONNECT localhost:80 HTTP/1.1" + HOST, 400),
        (POST + b"\r\nExpect: a-miracle", 417),
        (POST + b"\r\nExpect: 100-continue\r\nExpect: 100-continue", 417),
        (POST + b"\r\nContent-Length: %d" % MAX_BODY, 200),
        (POST + b"\r\nContent-Length: %d" % (MAX_BODY + 1), 413),
        (POST + b"\r\nContent-Length: " + b"9" * 5000, 413),
        (b"GET /" + b"a" * (MAX_REQUEST_LINE - 14) + b" HTTP/1.1" + HOST, 200),
        (b"GET /" + b"a" * (MAX_REQUEST_LINE - 13) + b" HTTP/1.1" + HOST, 414),
        (b"GET / HTTP/1.1" + HOST + b"\r\nX: " + b"a" * (MAX_HEADERS - len(HOST) - 3), 200),
        (b"GET / HTTP/1.1" + HOST + b"\r\nX: " + b"a" * (MAX_HEADERS - len(HOST) - 2), 431),
        (b"GET / HTTP/1.1" + HOST + b"\r\nX: y" * (MAX_FIELDS - 1), 200),
        (b"GET / HTTP/1.1" + HOST + b"\r\nX: y" * MAX_FIELDS, 431),
    ],
)
def test_what_is_too_large_or_unknown_has_a_status_of_its_own(head: bytes, status: int) -> None:
    assert status_of(head) == status


def chunked(body: bytes) -> bytes:
    """The body, read as it would be from a connection that then ends."""
    source = io.BytesIO(body)

    def read_line(limit: int) -> bytes:
        line = source.readline(limit + 2)
        if not line.endswith(b"\r\n"):
            raise EOFError
        return line[:-2]

    return read_chunked(read_line, source.read)


def test_a_chunked_body_is_read_with_its_extensions_and_trailers() -> None:
    assert chunked(b"3\r\nabc\r\n00A;a=b;c\r\n0123456789\r\n0;last\r\nX-Sum: 1\r\n\r\n") == b"abc0123456789"
    assert chunked(b"0\r\n\r\n") == b""
    assert chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (MAX_BODY, b"a" * MAX_BODY)) == b"a" * MAX_BODY


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\r\n", 400),
        (b"g\r\n", 400),
        (b"+1\r\na\r\n0\r\n\r\n", 400),
        (b"0x1\r\na\r\n0\r\n\r\n", 400),
        (b" 1\r\na\r\n0\r\n\r\n", 400),
        (b"1 ;a\r\na\r\n0\r\n\r\n", 400),
        (b"1;\0\r\na\r\n0\r\n\r\n", 400),
        (b"11111111111111111\r\n", 400),
        (b"1\r\nab\r\n0\r\n\r\n", 400),
        (b"1\r\na\n0\r\n\r\n", 400),
        (b"0\r\n folded\r\n\r\n", 400),
        (b"0\r\nnocolon\r\n\r\n", 400),
        (b"0\r\nX: a\0b\r\n\r\n", 400),
        ((b"1;" + b"a" * 200 + b"\r\na\r\n") * (MAX_CHUNK_EXTENSIONS // 200 + 1) + b"0\r\n\r\n", 400),
        (b"%x\r\n" % (MAX_BODY + 1), 413),
        (b"ffffffffffffffff\r\n", 413),
        (b"8000\r\n%b\r\n8001\r\n" % (b"a" * 0x8000), 413),
        (b"0\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", 431),
        (b"0\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 20 + b"\r\n", 431),
    ],
)
def test_a_malformed_or_large_chunked_body_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as refused:
        chunked(body)
    assert ANSWERS[refused.value.code].status == status


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        HOST,
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b"X: y",
        b":",
        b"Content-Length: 1",
        b"\xff",
        b"a",
    ]
)
BYTES = st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join)


@settings(UNHURRIED, max_examples=300)
@given(BYTES)
def test_a_head_that_comes_byte_by_byte_is_judged_as_one_that_comes_at_once(data: bytes) -> None:
    def judged(step: int) -> tuple[bool, bytes | None]:
        """(whether it was refused, the head) with so many bytes at a time."""
        looked_at = 0
        for size in range(step, len(data) + step, step):
            try:
                end = find_head_end(bytearray(data[:size]), looked_at)
            except Refusal:
                return True, None
            if end >= 0:
                return False, data[:end]
            looked_at = min(size, len(data))
        return False, None

    assert judged(1) == judged(max(1, len(data)))


@settings(UNHURRIED, max_examples=300)
@given(BYTES)
def test_no_bytes_make_the_grammar_fail(data: bytes) -> None:
    assert 200 <= status_of(data.replace(b"\r\n\r\n", b"")) <= 505
