"""Label files: CSV with a header, the columns ``path`` and ``label``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..._utils.tables import unescape_cell
from .event_log import CampaignError

MARKS = ("?skip", "?cant-tell", "?not-an-image")
"""What stands in the column ``label`` for an image that gets none."""


@dataclass(frozen=True)
class LabelRow:
    """A row of a label file.

    Messages call it `where`, such as "line 7". `label` is a class or a mark such as
    "?skip", `sha256` what was looked at, if the file says, `problem` why the row cannot
    be taken, `who` the person, by default whoever works on the campaign. `as_of` is the
    event as of which `label` is the name of a class, None if unknown: names may change
    their meaning. `last_column` is set where the file ends without a line end: its
    value may be cut.
    """

    where: str
    path: str
    label: str
    sha256: str = ""
    problem: str = ""
    who: str = ""
    as_of: int | None = field(default=None, compare=False)
    last_column: str = ""


class LabelFileError(CampaignError):
    """A label file has rows that cannot be taken.

    `problems` has a text for each, with its line number.
    """

    def __init__(self, name: str, problems: Sequence[str], n_rows: int) -> None:
        self.problems = list(problems)
        shown = "\n  ".join(self.problems[:20])
        more = len(self.problems) - 20
        super().__init__(
            f"{name}: {len(self.problems)} of {n_rows} rows cannot be taken, so none "
            f"was:\n  {shown}" + (f"\n  and {more} more" if more > 0 else "") + "\n"
            "Correct them, or take the others alone with --partial."
        )


def read_labels(path: str | Path) -> list[LabelRow]:
    """Read a label file.

    Commas, semicolons or tabs separate the columns, whichever the header has. A column
    ``sha256`` names the content that was labelled, a column ``as_of`` the event as of
    which classes are named. Rows without a label are left out. Rows that may have been
    cut have a `problem`.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CampaignError(
            f"{str(path)!r} is not UTF-8 text ({error}). Save it as CSV in UTF-8."
        ) from error
    delimiter = _delimiter(text)
    # newline="" leaves line breaks inside quotes to the reader.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[LabelRow] = []
    names: list[str] = []
    line = 1
    try:
        for cells in reader:
            where, line = f"line {line}", reader.line_num + 1
            if not names:
                names = _header(cells, path)
            elif any(cell.strip() for cell in cells):
                row = _row(cells, names, where)
                if row.label or row.problem:
                    rows.append(row)
    except csv.Error as error:
        raise CampaignError(
            f"{str(path)!r}, line {reader.line_num}: no CSV ({error})."
        ) from error
    if not names:
        raise CampaignError(f"{str(path)!r} is empty; it needs the header path,label.")
    if rows and rows[-1].where == where and not text.endswith(("\n", "\r")):
        last = names[-1] if len(cells) == len(names) else ""
        row = rows[-1] = replace(rows[-1], last_column=last)
        if last == "sha256" and len(row.sha256) != 64:
            rows[-1] = replace(row, label="", problem=row.problem or NO_END)
    return rows


NO_END = (
    "the last line has no end, so the file may have been cut inside it. If it is whole "
    "(compare its last word), put a line break behind it."
)


def _header(cells: list[str], path: Path) -> list[str]:
    """Return the names of the columns; refuse a header without the required ones."""
    names = [unescape_cell(cell.strip()).lower() for cell in cells]
    if not {"path", "label"} <= set(names):
        raise CampaignError(
            f"{str(path)!r}, line 1: the header must have the columns path and label, "
            f"got {names}."
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise CampaignError(
            f"{str(path)!r}, line 1: the header has {', '.join(twice)} more than once. "
            "Give each column a name of its own, or remove one of them."
        )
    return names


def _row(cells: list[str], names: list[str], where: str) -> LabelRow:
    by_name = dict(zip(names, cells, strict=False))
    if len(cells) < len(names):
        problem = (
            f"{len(cells)} column(s), but the header has {len(names)}: the file may "
            "have been cut here. Complete the row, or write it again."
        )
        return LabelRow(where, "", "", problem=problem)
    if any(cell.strip() for cell in cells[len(names) :]):
        problem = (
            f"{len(cells)} columns, but the header has {len(names)}. Put a cell that "
            "contains the separator in quotation marks, or give the header more names."
        )
        return LabelRow(where, "", "", problem=problem)
    label = unescape_cell(by_name["label"].strip())
    sha256 = by_name.get("sha256", "").strip().lower()
    row = LabelRow(where, by_name["path"], label, sha256)
    as_of = by_name.get("as_of", "").strip()
    if not as_of:
        return row
    if not (as_of.isascii() and as_of.isdigit() and len(as_of) < 19):
        problem = f"as_of is {as_of!r}; leave it as skadma wrote it."
        return replace(row, problem=problem)
    return replace(row, as_of=int(as_of))


def _delimiter(text: str) -> str:
    """Find what separates the columns: what the header has most of."""
    header = (text[:10_000].splitlines() or [""])[0]
    return max(",;\t", key=header.count)
