"""CSV files that a spreadsheet may open."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from .atomic import write_atomically

_FORMULA = "=+-@\t\r"
"""What a spreadsheet takes for the beginning of a formula."""


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV file, whole or not at all.

    The first column holds paths, see :func:`safe_path`.

    Parameters
    ----------
    path : Path
    header : sequence of str
    rows : iterable of sequence
    """

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for name, *others in rows:
                writer.writerow([safe_path(name), *others])

    write_atomically(path, write)


def safe_path(path: str) -> str:
    """Put ``./`` before what a spreadsheet would take for a formula: the same path."""
    return f"./{path}" if path[:1] in tuple(_FORMULA) else path
