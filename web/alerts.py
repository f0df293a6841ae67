"""The routes of alerts. Each route only translates.

This file owns these addresses. It decides nothing. Everything here runs on the hub thread; what takes a disk is read on
the hub's thread pool.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from web.alerting import all_alerts, delete_alert, make_alert, raised_alerts
from web.reading import limit_of
from web.routes import json_object, parts

alert_routes = Blueprint("alerts", __name__)


@alert_routes.get("/api/alerts")
def get_alerts() -> Response:
    return jsonify(alerts=all_alerts(parts().alerts))


@alert_routes.post("/api/alerts")
def post_alert() -> tuple[Response, int]:
    message, alert = make_alert(parts().alerts, parts().store, json_object())
    return jsonify(success=True, message=message, alert=alert), 201


@alert_routes.delete("/api/alerts/<string(length=16):id>")
def remove_alert(id: str) -> Response:
    return jsonify(success=True, message=delete_alert(parts().alerts, parts().store, id))


@alert_routes.get("/api/alerts/raised")
def get_raised() -> Response:
    return jsonify(raised=raised_alerts(parts().alerts, limit_of(request.args.get("limit", ""))))
