"""The layers are what `design.md` draws: imports only go down, and functions stay short enough to be read at once."""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

# Each module, and those of ours it may import. A new one is drawn here first.
BELOW = {
    "app": {
        *("web.access", "web.connect", "web.errors", "web.http1", "web.logs", "web.metrics", "web.parts", "web.routes"),
        *("web.server", "web.supervision", "scraper", "broadcast", "watchlist", "settings", "tradingview.browser"),
        "quotes",
    },
    "web.routes": {
        *("web.access", "web.errors", "web.metrics", "web.parts", "web.server", "web.supervision", "web.websocket"),
        *("web.wsgi", "broadcast", "settings", "quotes"),
    },
    "web.websocket": {"web.errors", "broadcast", "quotes"},
    "web.errors": {"web.access", "web.connect", "web.http1", "web.wsgi", "broadcast", "watchlist", "quotes"},
    "web.metrics": {"web.parts", "broadcast", "settings", "quotes"},
    "web.parts": {"web.supervision", "broadcast", "watchlist", "settings", "quotes"},
    "web.supervision": {"broadcast", "quotes"},
    "web.server": {"web.connect", "web.http1", "web.wsgi", "broadcast", "quotes"},
    "web.connect": {"web.wsgi", "broadcast", "watchlist", "quotes", "proto"},
    "web.access": {"web.wsgi", "settings", "quotes"},
    "web.http1": set(),
    "web.logs": set(),
    "web.wsgi": set(),
    "scraper": {"tradingview.browser", "tradingview.feed", "tradingview.site", "watchlist", "quotes"},
    "tradingview.browser": {"tradingview.site", "quotes"},
    "tradingview.feed": {"quotes"},
    "tradingview.site": {"quotes"},
    "broadcast": {"watchlist", "quotes"},
    "watchlist": {"quotes"},
    "settings": {"quotes"},
    "quotes": set(),
}
PURE = {"flask", "werkzeug", "gevent", "geventwebsocket", "playwright", "greenlet", "psutil"}

# What a room must know nothing of, though it could be imported.
FOREIGN = {
    "app": {"playwright"},
    "web": {"playwright"},
    "scraper": {"flask", "werkzeug", "gevent", "geventwebsocket"},
    "tradingview": {"flask", "werkzeug", "gevent", "geventwebsocket"},
    "broadcast": {"flask", "werkzeug", "playwright", "prometheus_client"},
    "watchlist": PURE,
    "settings": PURE,
    "quotes": PURE,
    "simulator": {"playwright"},
}
WITH_FLASK = {"app", "web.routes", "web.errors"}
ROOMS = ("", "web", "tradingview")

MODULES = sorted(
    ".".join(filter(None, (room, path.stem)))
    for room in ROOMS
    for path in (PROJECT / room).glob("*.py")
    if path.stem != "__init__"
)


def tree_of(module: str) -> ast.Module:
    return ast.parse((PROJECT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def imports_of(module: str) -> set[str]:
    """The full names of all modules that one imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            assert called not in ("__import__", "import_module"), f"{module}, line {node.lineno}: a hidden import"
    return names


def roots_of(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def function_lengths(module: str) -> dict[str, int]:
    """Each function's lines, from the first after its docstring to its last."""
    lengths = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
            lengths[f"{module}.{node.name}, line {node.lineno}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    return lengths


def test_every_module_is_drawn() -> None:
    assert set(MODULES) == set(BELOW), "add a file only for a new room or word, and draw it here"


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    ours = roots_of(set(MODULES)) | {"tests", "bench", "conftest", "running", "proto", "simulator"}
    imported = {name for name in imports_of(module) if name.partition(".")[0] in ours}
    drawn = {name for name in imported if any(name == below or name.startswith(f"{below}.") for below in BELOW[module])}
    assert imported == drawn


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_nothing_of_what_others_are_made_of(module: str) -> None:
    roots = roots_of(imports_of(module))
    assert roots.isdisjoint(FOREIGN[module.partition(".")[0]])
    assert module in WITH_FLASK or "flask" not in roots


def test_quotes_needs_only_the_standard_library() -> None:
    assert roots_of(imports_of("quotes")) <= sys.stdlib_module_names


def test_functions_are_short() -> None:
    lengths = {name: length for module in MODULES for name, length in function_lengths(module).items()}
    assert not {name: length for name, length in lengths.items() if length > 40}
    assert statistics.median(lengths.values()) <= 8
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 20


def test_every_module_begins_by_saying_what_it_owns() -> None:
    for module in MODULES:
        assert len((ast.get_docstring(tree_of(module)) or "").splitlines()) > 1, module
