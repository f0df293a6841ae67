"""The table of errors: complete, and in agreement with what each protocol really says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from connectrpc._protocol import ConnectWireError
from connectrpc.code import Code
from flask import Flask
from running import PROJECT, quote_server

import app
from quotes import InvalidTicker, PlutoError, RetriedTooSoon, RetryRefused, SourceBusy
from web import http1
from web.errors import ANSWERS, CODES
from web.http1 import Refusal

# Codes whose HTTP status is not the one that the Connect protocol fixes for their Connect code: REST says them with the
# status of the table, Connect with its own; or only the HTTP server says them, before it knows the protocol.
OTHER_STATUS_BY_CONNECT = {
    "too_many_tickers", "filter_too_large", "not_found", "method_not_allowed", "not_json", "range_not_satisfiable",
}  # fmt: skip
OTHER_STATUS_BY_CONNECT |= {"too_slow", "too_large", "target_too_long", "unknown_expectation", "headers_too_large"}
OTHER_STATUS_BY_CONNECT |= {"unknown_version", "no_websocket", "retry_refused", "no_store", "too_many_alerts"}


def below(kind: type[PlutoError]) -> Iterator[type[PlutoError]]:
    for error in kind.__subclasses__():
        yield error
        yield from below(error)


def test_every_error_that_can_reach_a_caller_has_an_answer() -> None:
    assert app.__name__ == "app", "it is imported, so every error class of the program exists"
    rooms = ("broadcast", "watchlist", "store", "alerts.", "web.")
    answered = [error for error in below(PlutoError) if error.__module__.startswith(rooms)]
    answered += [InvalidTicker, RetryRefused, RetriedTooSoon, SourceBusy]
    assert len(answered) >= 14
    ends_pluto = {"too_few_descriptors", "simulator_failed", "cant_notify"}
    assert {error.code for error in answered} - ends_pluto <= ANSWERS.keys()


@pytest.mark.parametrize("code", ANSWERS)
def test_every_answer_is_one_in_each_protocol(code: str) -> None:
    answer = ANSWERS[code]
    assert HTTPStatus(answer.status) >= 400
    assert answer.close in (None, 1001, 1002, 1003, 1007, 1008, 1009)
    by_connect = ConnectWireError(Code(answer.connect), "", ()).to_http_status().code
    assert (by_connect == answer.status) == (code not in OTHER_STATUS_BY_CONNECT)


def test_the_documented_codes_are_the_table() -> None:
    rows = [f"| `{code}` | {row.status} | `{row.connect}` | {row.close or ''} |" for code, row in ANSWERS.items()]
    assert "\n".join(rows) in (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")


def test_every_error_of_flask_has_a_code_of_its_own() -> None:
    with_message = [code for code, answer in ANSWERS.items() if answer.message]
    assert sorted(CODES.values()) == sorted(with_message), "two of one status can't be told apart"
    assert CODES.keys() >= {400, 404, 405, 415, 416, 500}


def test_every_refusal_of_the_grammar_is_in_the_table() -> None:
    makers = (http1.malformed, http1.headers_too_large, http1.body_too_large, http1.unknown_version)
    refusals = [maker("x") if maker is http1.malformed else maker() for maker in makers]  # type: ignore[call-arg]
    assert all(isinstance(refusal, Refusal) and refusal.code in ANSWERS for refusal in refusals)


def test_a_wrong_method_is_told_the_right_ones(application: Flask) -> None:
    refused = application.test_client().put("/api/tickers/BTCUSD", headers={"Host": "localhost"})
    assert refused.status_code == 405
    assert refused.json is not None
    assert refused.json["message"] == "Use DELETE or GET or HEAD or OPTIONS at this address."
    assert {*refused.headers["Allow"].split(", ")} == {"DELETE", "GET", "HEAD", "OPTIONS"}


def test_a_range_beyond_the_file_has_a_code_of_its_own(application: Flask) -> None:
    headers = {"Host": "localhost", "Range": "bytes=99999999-"}
    refused = application.test_client().get("/static/page.css", headers=headers)
    assert refused.status_code == 416
    assert refused.json is not None
    assert refused.json["code"] == "range_not_satisfiable"


def test_a_failure_inside_is_told_in_the_table_s_words() -> None:
    with quote_server() as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"GET /trial/fail HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert ANSWERS["internal"].message.encode() in answer
