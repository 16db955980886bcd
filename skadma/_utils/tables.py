"""CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .atomic import write_atomically

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters with which a formula begins in a spreadsheet."""


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a CSV file, completely or not at all; the first column holds paths."""

    def write(tmp: Path) -> None:
        with tmp.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for name, *others in rows:
                writer.writerow([safe_path(name), *others])

    write_atomically(path, write)


def safe_path(path: str) -> str:
    """Put ``./`` before a path that a spreadsheet would read as a formula."""
    return f"./{path}" if path.startswith(_FORMULA) else path
