"""`./run.sh notify-test`: sends one message to each notify URL, and says what came of it.

This file owns that program. It needs no running Pluto, and keeps nothing. It never prints a URL.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor

from alerts.courier import Courier
from alerts.messages import trial_message
from alerts.outbox import begin, couriers_of
from quotes import PlutoError
from settings import add_options, forget_secrets, settings_of


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 if each receiver has the message."""
    parser = argparse.ArgumentParser(
        prog="./run.sh notify-test",
        description="Sends one message to each notify URL, and says what came of it.",
        allow_abbrev=False,
    )
    add_options(parser, ["notify"])
    settings = settings_of(parser, parser.parse_args(arguments))
    forget_secrets()
    couriers = couriers_of(settings.notify_urls)
    if not couriers:
        parser.error("there is no notify URL: set PLUTO_NOTIFY or --notify (docs/alerts.md has examples)")
    try:
        begin(couriers)
    except PlutoError as problem:
        print(f"notify-test: {problem}", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(len(couriers)) as pool:
        errors = list(pool.map(_send, couriers))
    for courier, error in zip(couriers, errors, strict=True):
        print(f"{courier.name}: {error or 'delivered'}")
    return 1 if any(errors) else 0


def _send(courier: Courier) -> str:
    error = courier.send(trial_message(secrets.token_hex(8)))
    courier.stop()
    return error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
