"""Who imports whom: one order of the rooms, and no circle of files."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import skadma

PACKAGE = Path(skadma.__file__).parent
FLOORS = [
    {"_utils"},
    {"images"},
    {"targets"},
    {"networks"},
    {"features"},
    {"training", "centers"},
    {"classifier"},
    {"strategies", "persistence", "evaluation", "adafilter"},
    {"stopping"},
    {"learner"},
    {"plotting"},
    {"bench"},
    {"labelling"},
    {"cli"},
]
"""A room is a folder of skadma or a file at its top. It may import what stands above it
here, and itself. `skadma/__init__.py` gives the public names and imports any."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
APPLICATIONS = {"plotting", "bench", "labelling", "cli"}
"""What the library does not need: nothing else imports them."""

ALLOWED: dict[tuple[str, str], str] = {
    ("skadma.classifier", "persistence"): "save and load, when they are called",
}
"""Imports of a file against the order, each with its reason."""


def name_of(path: Path) -> str:
    """`skadma.cli` for its `__init__.py`, `skadma.cli._bench` for a file of it."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str, text: str, *, is_package: bool) -> Iterator[str]:
    """Every module of skadma that a file imports: in functions and for types as well.

    The version is a constant of the package itself and is left out.
    """
    own = name.split(".") + ["__init__"] * is_package
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = own[: -node.level] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                if (module, alias.name) != ("skadma", "__version__"):
                    inside = f"{module}.{alias.name}"
                    yield inside if inside in MODULES else module


@cache
def import_graph() -> dict[str, set[str]]:
    """The files of skadma that each of its files imports."""
    graph = {}
    for name, path in MODULES.items():
        is_package = path.name == "__init__.py"
        found = set(imports(name, path.read_text("utf-8"), is_package=is_package))
        # `from . import x` of a compiled module names the package itself.
        compiled = name.rpartition(".")[0] if list(path.parent.glob("*.c")) else name
        graph[name] = (found & set(MODULES)) - {name, compiled}
    return graph


def room(name: str) -> str:
    """The room of a file; the package's own `__init__.py` is a room of its own."""
    return name.split(".")[1] if "." in name else name


def room_graph() -> dict[str, set[str]]:
    """The rooms that each room imports, without `skadma/__init__.py` and ALLOWED."""
    graph: dict[str, set[str]] = {}
    for name, found in import_graph().items():
        if name != "skadma":
            rooms = {room(other) for other in found}
            rooms = {other for other in rooms if (name, other) not in ALLOWED}
            graph.setdefault(room(name), set()).update(rooms)
    return {name: found - {name} for name, found in graph.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def against_the_order() -> set[tuple[str, str]]:
    """Pairs of a file and a room that it must not import."""
    return {
        (name, room(other))
        for name, found in import_graph().items()
        if name != "skadma"
        for other in found
        if room(other) != room(name)
        and FLOOR.get(room(other), -1) >= FLOOR.get(room(name), len(FLOORS))
        or other == "skadma"
    }


def test_the_finder_sees_imports_in_functions_and_for_types():
    text = "def f():\n    from .classifier import CNNClassifier\n"
    assert list(imports("skadma.learner", text, is_package=False)) == [
        "skadma.classifier"
    ]
    text = "if TYPE_CHECKING:\n    from ..learner import ActiveLearner\n"
    assert list(imports("skadma.bench", text, is_package=True)) == ["skadma.learner"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_every_room_has_its_place():
    assert {room(name) for name in MODULES} - {"skadma"} == set(FLOOR)


def test_the_order_in_the_documentation_is_the_same():
    text = (PACKAGE.parent / "docs" / "design.md").read_text("utf-8")
    block = text.partition("```text\n")[2].partition("```")[0]
    floors = [{name.strip() for name in part.split(",")} for part in block.split("<")]
    assert floors == FLOORS


def test_imports_go_one_way():
    assert against_the_order() - set(ALLOWED) == set()


def test_exceptions_are_needed():
    assert set(ALLOWED) <= against_the_order()


def test_the_library_needs_no_application():
    found = {
        (name, room(other))
        for name, others in import_graph().items()
        if room(name) not in APPLICATIONS | {"skadma"}
        for other in others
        if room(other) in APPLICATIONS
    }
    assert found == set()


def test_no_circle_of_files():
    """The exceptions above apart."""
    graph = {
        name: {other for other in found if (name, room(other)) not in ALLOWED}
        for name, found in import_graph().items()
    }
    assert circle(graph) == []
