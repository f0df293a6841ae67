"""The layers are what `design.md` draws: imports only go down, and functions stay short enough to be read at once."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

TEXT = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")


def drawn_arrows(heading: str) -> dict[str, set[str]]:
    """Each module or room, and those it imports, as the drawing has them; a line that is indented goes on."""
    arrows: dict[str, set[str]] = {}
    for line in TEXT.split(heading)[1].split("```")[1].strip().splitlines():
        module, *below = line.split()
        if line.startswith(" "):
            arrows[next(reversed(arrows))] |= {module, *below}
        else:
            arrows[module] = set(below)
    return arrows


BELOW, ROOM_ARROWS = drawn_arrows("## Arrows"), drawn_arrows("### Which room imports which")
PURE = {"flask", "werkzeug", "gevent", "geventwebsocket", "playwright", "greenlet", "psutil"}

# What a room must know nothing of, though it could be imported.
FOREIGN = {
    "app": {"playwright"},
    "web": {"playwright"},
    "scraper": {"flask", "werkzeug", "gevent", "geventwebsocket"},
    "tradingview": {"flask", "werkzeug", "gevent", "geventwebsocket"},
    "broadcast": {"flask", "werkzeug", "geventwebsocket", "playwright", "prometheus_client"},
    "watchlist": PURE,
    "alerts": PURE,
    "relay": PURE,
    "store": PURE,
    "storage": PURE,
    "settings": PURE,
    "limiter": PURE,
    "quotes": PURE,
    "simulator": {"playwright"},
}
WITH_FLASK = {"app", "web.routes", "web.history", "web.alerts"}
ROOMS = ("", "alerts", "relay", "storage", "web", "tradingview")
MAX_CLASS = 300  # lines

MODULES = sorted(
    ".".join(filter(None, (room, path.stem)))
    for room in ROOMS
    for path in (PROJECT / room).glob("*.py")
    if path.stem != "__init__"
)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((PROJECT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


@cache
def imports_of(module: str) -> frozenset[str]:
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
    return frozenset(names)


def roots_of(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def function_lengths(module: str) -> dict[str, int]:
    """Each function's lines, from the first after its docstring to its last."""
    lengths = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
            lengths[f"{module}.{node.name}, line {node.lineno}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    return lengths


def class_lengths(module: str) -> dict[str, int]:
    classes = (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ClassDef))
    return {f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in classes}


def arrows_of(module: str) -> set[str]:
    """The modules of ours that one imports, as far as the drawing tells them apart."""
    ours = roots_of(set(MODULES)) | {"tests", "bench", "conftest", "running", "proto", "simulator"}
    imported = {name for name in imports_of(module) if name.partition(".")[0] in ours}
    return {"proto" if name.startswith("proto.") else name for name in imported}


def test_every_module_is_drawn() -> None:
    assert set(MODULES) == set(BELOW), "add a file only for a new word, and draw it in docs/architecture.md"


@pytest.mark.parametrize("module", MODULES)
def test_the_drawing_has_the_real_imports(module: str) -> None:
    assert arrows_of(module) == BELOW[module]


def test_the_rooms_arrows_are_the_real_ones_and_point_down() -> None:
    real: dict[str, set[str]] = {}
    for module in MODULES:
        room, rooms = module.partition(".")[0], roots_of(arrows_of(module))
        real.setdefault(room, set()).update(rooms - {room})
    assert real == ROOM_ARROWS
    order = [*ROOM_ARROWS, "proto"]
    assert all(order.index(room) < order.index(below) for room, rooms in ROOM_ARROWS.items() for below in rooms)


def test_imports_point_down_the_drawing() -> None:
    order = list(BELOW)
    assert not {
        (module, below)
        for module, belows in BELOW.items()
        for below in belows
        if below in order and order.index(below) < order.index(module)
    }


def test_every_room_has_its_sentence() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Arrows")[0]
    rooms = {module.partition(".")[0] for module in MODULES} | {"simulator", "proto", "static", "templates"}
    assert {room for room in rooms if f"`{room}.py`" not in text and f"`{room}/`" not in text} == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_nothing_of_what_others_are_made_of(module: str) -> None:
    roots = roots_of(imports_of(module))
    assert roots.isdisjoint(FOREIGN[module.partition(".")[0]])
    assert module in WITH_FLASK or "flask" not in roots
    assert module.startswith("relay.") or "redis" not in roots


def test_quotes_needs_only_the_standard_library() -> None:
    assert roots_of(imports_of("quotes")) <= sys.stdlib_module_names


def test_every_package_that_is_imported_is_named() -> None:
    """A package that only comes with another one may go with it."""
    files = [PROJECT / f"requirements{name}.in" for name in ("", "-redis", "-notify")]
    requirements = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    named = {line.partition("==")[0] for line in requirements} | {"protobuf-py-pure"}  # protobuf-py's own choice
    packages = {
        name: {package.lower().replace("_", "-") for package in packages}
        for name, packages in packages_distributions().items()
    }
    ours = roots_of(set(MODULES)) | {"__future__", "_typeshed", "proto", "simulator"}
    for module in [*MODULES, *(f"simulator.{path.stem}" for path in (PROJECT / "simulator").glob("*.py"))]:
        for root in roots_of(imports_of(module)) - sys.stdlib_module_names - ours:
            assert packages[root] & named, f"{module} imports {root}: name its package in requirements.in"


def test_functions_are_short() -> None:
    lengths = {name: length for module in MODULES for name, length in function_lengths(module).items()}
    assert not {name: length for name, length in lengths.items() if length > 40}
    assert statistics.median(lengths.values()) <= 8
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 20


def test_classes_are_short() -> None:
    lengths = {name: length for module in MODULES for name, length in class_lengths(module).items()}
    assert not {name: length for name, length in lengths.items() if length > MAX_CLASS}


def test_every_module_begins_by_saying_what_it_owns() -> None:
    for module in MODULES:
        assert len((ast.get_docstring(tree_of(module)) or "").splitlines()) > 1, module
