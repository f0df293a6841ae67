"""The layers are what `design.md` draws: imports only go down, and functions stay short enough to be read at once."""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

# Each file at the top level, and those of ours it may import. A new layer is drawn here first.
BELOW = {
    "app": {
        *("settings", "access", "server", "connect", "supervision", "logs", "metrics", "http1"),
        *("store", "broadcast", "scraper", "relay", "quotes"),
    },
    "settings": {"access", "scraper", "quotes"},
    "access": {"broadcast", "quotes"},
    "metrics": {"settings", "broadcast", "scraper", "quotes"},
    "supervision": {"scraper", "broadcast", "quotes"},
    "server": {"connect", "broadcast", "http1", "quotes"},
    "http1": set(),
    "connect": {"broadcast", "quotes"},
    "store": {"quotes"},
    "broadcast": {"quotes"},
    "scraper": {"feed", "quotes"},
    "feed": {"quotes"},
    "relay": {"quotes"},
    "quotes": set(),
    "logs": set(),
    "simulator": set(),
}

# What a layer must know nothing of, though it could be imported.
FOREIGN = {
    "quotes": {"flask", "werkzeug", "gevent", "geventwebsocket", "playwright", "greenlet", "psutil"},
    "settings": {"flask", "werkzeug", "gevent", "playwright"},
    "access": {"flask", "gevent", "geventwebsocket", "playwright", "threading"},
    "supervision": {"flask", "werkzeug", "playwright"},
    "metrics": {"flask", "werkzeug", "gevent", "playwright"},
    "logs": {"flask", "werkzeug", "gevent", "playwright", "prometheus_client"},
    "server": {"flask", "werkzeug", "playwright"},
    "http1": {"flask", "werkzeug", "gevent", "geventwebsocket", "playwright", "socket", "time"},
    "scraper": {"flask", "werkzeug", "gevent", "geventwebsocket"},
    "feed": {"flask", "werkzeug", "gevent", "geventwebsocket", "playwright", "greenlet", "threading", "time"},
    "broadcast": {"flask", "werkzeug", "playwright", "prometheus_client"},
    "connect": {"flask", "werkzeug", "gevent", "playwright"},
    "store": {"flask", "werkzeug", "playwright"},
    "relay": {"flask", "werkzeug", "playwright"},
    "app": {"playwright"},
    "simulator": {"playwright"},
}
WITH_FLASK = {"app", "simulator"}

LAYERS = sorted(path.stem for path in PROJECT.glob("*.py"))
READ_ALOUD = [layer for layer in LAYERS if layer != "simulator"]  # it runs for developers, in a process of its own


def tree_of(layer: str) -> ast.Module:
    return ast.parse((PROJECT / f"{layer}.py").read_text(encoding="utf-8"))


def imports_of(layer: str) -> set[str]:
    """The top-level names of all that a layer imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(tree_of(layer)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{layer}.py, line {node.lineno}: a relative import, but this is no package"
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            assert called not in ("__import__", "import_module"), f"{layer}.py, line {node.lineno}: a hidden import"
    return names


def function_lengths(layer: str) -> dict[str, int]:
    """Each function's lines, from the first after its docstring to its last."""
    lengths = {}
    for node in ast.walk(tree_of(layer)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
            lengths[f"{layer}.{node.name}, line {node.lineno}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    return lengths


def test_every_layer_is_drawn() -> None:
    assert set(LAYERS) <= set(BELOW), "add a file only for a new layer, and draw it in design.md and here"
    assert {"app", "broadcast", "quotes", "scraper", "simulator"} <= set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_only_go_down(layer: str) -> None:
    ours = set(LAYERS) | {"tests", "bench", "conftest", "running"}
    assert imports_of(layer) & ours <= BELOW[layer]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_knows_nothing_of_what_others_are_made_of(layer: str) -> None:
    assert imports_of(layer).isdisjoint(FOREIGN[layer])
    assert layer in WITH_FLASK or "flask" not in imports_of(layer)


def test_quotes_needs_only_the_standard_library() -> None:
    assert imports_of("quotes") <= sys.stdlib_module_names


def test_functions_are_short() -> None:
    lengths = {name: length for layer in READ_ALOUD for name, length in function_lengths(layer).items()}
    assert not {name: length for name, length in lengths.items() if length > 40}
    assert statistics.median(lengths.values()) <= 8
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 20


def test_every_layer_begins_by_saying_what_it_owns() -> None:
    for layer in LAYERS:
        assert len((ast.get_docstring(tree_of(layer)) or "").splitlines()) > 1, layer
