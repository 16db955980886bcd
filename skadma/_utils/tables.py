"""CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .atomic import write_atomically

_FORMULA = (*"=+-@\t\r\n", "＝", "＋", "－", "＠")
"""Characters with which a spreadsheet takes a cell for a formula, or may."""


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a CSV file, completely or not at all; the first column holds paths."""

    def write(tmp: Path) -> None:
        with tmp.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(map(escape_cell, header))
            for name, *others in rows:
                writer.writerow([escape_path(name), *map(escape_cell, others)])

    write_atomically(path, write)


def escape_cell(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would take for a formula.

    Before one that has apostrophes there already, too: `unescape_cell` gives back what
    was written. Numbers stay as they are.
    """
    if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA):
        return f"'{value}"
    return value


def unescape_cell(text: str) -> str:
    """Read a cell that `escape_cell` wrote."""
    return text[1:] if text[:1] == "'" and escape_cell(text) != text else text


def escape_path(path: str) -> str:
    """Put ``./`` before such a path: it goes on naming the same file."""
    return f"./{path}" if path.startswith(_FORMULA) else path
