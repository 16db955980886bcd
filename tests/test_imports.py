"""What imports what: no circles, and the order of docs/design.md."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import skadma

PACKAGE = Path(skadma.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"


def name_of(path: Path) -> str:
    """`skadma.cli` for its `__init__.py`, `skadma.cli._demo` for a file of it."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str, text: str, *, is_package: bool) -> Iterator[str]:
    """What a module of this package imports of it, inside functions too.

    Imports for annotations alone (TYPE_CHECKING) run nothing and are left out, and so
    is the version, a constant of the package itself.
    """
    tree = ast.parse(text)
    unused = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    own = name.split(".") + ["__init__"] * is_package
    for node in ast.walk(tree):
        if id(node) in unused:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = own[: -node.level] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                if alias.name == "__version__":
                    continue
                inside = f"{module}.{alias.name}"
                yield inside if inside in MODULES else module


def import_graph() -> dict[str, set[str]]:
    found = {}
    for name, path in MODULES.items():
        is_package = path.name == "__init__.py"
        seen = imports(name, path.read_text("utf-8"), is_package=is_package)
        # `from . import x` of a compiled module names the package itself.
        found[name] = {module for module in seen if module in MODULES} - {
            name,
            name.rpartition(".")[0] if (path.parent / "_kendall.c").exists() else name,
        }
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def room(name: str) -> str:
    """A folder of the package, or a file that stands beside the folders."""
    return name.split(".")[1] if "." in name else name


def test_the_finder_sees_circles_and_imports_inside_functions():
    text = "def f():\n    from .classifier import CNNClassifier\n"
    assert list(imports("skadma.features.passes", text, is_package=False)) == [
        "skadma.classifier"
    ]
    assert list(imports("skadma.centers", "from ..scan import x", is_package=True)) == [
        "skadma.features.passes"
    ]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_no_circle_of_modules():
    assert circle(import_graph()) == []


def test_the_layout_in_the_documentation_is_true():
    text = DESIGN.read_text("utf-8").partition("## Layout")[2]
    lines = [
        re.split(r", *", line) for line in text.split("```")[1].split("\n") if line
    ]
    level = {room: number for number, line in enumerate(lines) for room in line}
    assert {room(name) for name in MODULES} >= set(level)
    wrong = {
        (room(name), room(other))
        for name, seen in import_graph().items()
        for other in seen
        if room(name) in level and room(other) in level and room(name) != room(other)
        if level[room(name)] >= level[room(other)]
    }
    assert not wrong


def test_no_circle_of_rooms():
    rooms: dict[str, set[str]] = {}
    for name, seen in import_graph().items():
        rooms.setdefault(room(name), set()).update(map(room, seen))
    assert circle({name: seen - {name} for name, seen in rooms.items()}) == []
