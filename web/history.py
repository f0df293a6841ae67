"""The routes of what is kept: a ticker's history, and the watchlist as a whole. Each route only translates.

This file owns these addresses and how a watchlist is read from a body. It decides nothing. Everything here runs on the
hub thread; what takes a disk is read on the hub's thread pool.
"""

from __future__ import annotations

from typing import Any, cast

from flask import Blueprint, Response, jsonify, request

from quotes import InvalidTicker, PlutoError, Ticker, parse_ticker
from web.reading import NO_HISTORY, found_csv, found_json, question_of, until_kept, wants_csv
from web.routes import json_body, parts

JSON, CSV, TEXT = "application/json", "text/csv", "text/plain"
MAX_SHOWN = 100  # characters of a line that is refused

history_routes = Blueprint("history", __name__)


@history_routes.get("/api/tickers/<text>/history")
def history(text: str) -> Response:
    """Changes, or candles if an interval is given; CSV if the caller asks for it."""
    question = question_of(parse_ticker(text), request.args)
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    prefers_csv = request.accept_mimetypes.best_match([JSON, CSV]) == CSV
    if wants_csv(request.args.get("format", ""), prefers_csv):
        rows = found_csv(parts().store, question, is_bounded="limit" in request.args)
        if rows is None:
            parts().watchlist.check(question.ticker, NO_HISTORY)
            rows = iter([(",".join(question.columns) + "\r\n").encode()])
        return Response(rows, content_type="text/csv; charset=utf-8", headers=headers)
    found = found_json(parts().store, question)
    if found is None:
        parts().watchlist.check(question.ticker, NO_HISTORY)
        found = b'{"%b":[],"next":null,"recordedSince":null}\n' % question.name.encode()
    return Response(found, content_type=JSON, headers=headers)


# --- the watchlist ----------------------------------------------------------------------------------------------------


@history_routes.get("/api/watchlist")
def get_watchlist() -> Response:
    """The tickers, as JSON or one a line."""
    tickers = parts().watchlist.tickers
    if request.accept_mimetypes.best_match([JSON, TEXT]) == TEXT:
        return Response("".join(f"{ticker}\n" for ticker in tickers), content_type="text/plain; charset=utf-8")
    return jsonify(tickers=tickers)


@history_routes.put("/api/watchlist")
def put_watchlist() -> Response:
    """Replaces the list by the texts that are tickers; answers the others with the reason."""
    texts = _texts()
    good: dict[Ticker, object] = {}
    refused: list[dict[str, str]] = []
    for text in texts:
        try:
            good.setdefault(parse_ticker(text), text)
        except PlutoError as error:
            refused.append(_refusal(text, error))
    if texts and not good:
        raise InvalidTicker(f"None of the lines is a ticker, so nothing has changed. {refused[0]['message']}")
    beyond = parts().watchlist.replace(list(good))
    until_kept(parts().store)
    refused += [_refusal(good[ticker], error) for ticker, error in beyond]
    tickers = parts().watchlist.tickers
    message = f"{len(tickers)} tickers are tracked now; {len(refused)} were refused."
    return jsonify(success=True, message=message, tickers=tickers, refused=refused)


def _texts() -> list[Any]:
    """What the body lists: `tickers` of a JSON object, or its lines. Raises InvalidTicker, BadRequest."""
    if request.mimetype == TEXT:
        try:
            lines = request.get_data().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InvalidTicker("The lines are not UTF-8, so nothing has changed.") from None
        return [line for line in lines if line.strip()]
    body = json_body()
    if not isinstance(body, dict) or not isinstance(body.get("tickers"), list):
        raise InvalidTicker('Send {"tickers":["BTCUSD","ETHUSD"]} as JSON, or one ticker a line as text/plain.')
    return cast(list[Any], body["tickers"])


def _refusal(text: object, error: PlutoError) -> dict[str, str]:
    return {"text": str(text)[:MAX_SHOWN], "code": error.code, "message": str(error)}
