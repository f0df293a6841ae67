"""./run.sh export and import: the watchlist, whether Pluto runs or not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from running import PROJECT, clean_environment, quote_server
from stores import BTC, ETH, kept


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(PROJECT / "run.sh"), *arguments]
    environment = {**clean_environment(), "PLUTO_STORE": "on"}
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, env=environment)


def test_a_watchlist_goes_out_and_in_while_pluto_does_not_run(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path))
    nothing = run("export", *data)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "nothing has been kept" in nothing.stderr
    taken = run("import", *data, text="\ufeffbtcusd\r\n\n..\nCOINBASE:BTCUSD\n")
    assert taken.returncode == 0
    assert "'..' is left out" in taken.stderr
    assert run("export", *data).stdout == "BTCUSD\nCOINBASE:BTCUSD\n"
    assert run("import", *data, text="..\n").returncode == 1
    assert run("import", *data, "--max-tickers", "1", text="ETHUSD\nBTCUSD").returncode == 0
    with kept(tmp_path / "pluto.db") as one:
        assert one.found == [ETH]
        one.store.add(ETH)
        one.store.add(BTC)
        one.wait_until_written(0)
    assert run("export", *data).stdout == "BTCUSD\nETHUSD\n"


def test_a_pluto_that_runs_is_asked(tmp_path: Path) -> None:
    token = "sixteen characters and more".replace(" ", "-")
    data = ("--data", str(tmp_path))
    with quote_server(*data, "--access-token", token) as server:
        port = ("--port", str(server.port))
        refused = run("import", *data, *port, text="BTCUSD\nETHUSD\n")
        assert refused.returncode == 1
        assert "unauthenticated" in refused.stderr
        taken = run("import", *data, *port, "--access-token", token, text="BTCUSD\nETHUSD\n")
        assert (taken.returncode, taken.stderr) == (0, "")
    assert run("export", *data).stdout == "BTCUSD\nETHUSD\n"
