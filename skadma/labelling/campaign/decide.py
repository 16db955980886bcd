"""From rows of labels to decisions about contents."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .folders import Places
from .labels_csv import MARKS, LabelRow
from .state import State


@dataclass(frozen=True)
class Taught:
    """What came of labels that were given.

    Attributes
    ----------
    n_new : int
        Images that had no decision before.
    n_changed : int
        Images with another one before.
    n_same : int
        Images with that very one before.
    refused : list of str
        Rows that were left out, with reasons; only with `partial`.
    n_repeats : int
        Blind answers about images that are decided.
    """

    n_new: int
    n_changed: int
    n_same: int
    refused: list[str]
    n_repeats: int = 0


_OTHER = {
    False: "is in an audit, whose labels are never trained with. Give it by 'skadma "
    "evaluate', or end the audit with 'skadma evaluate --release' first.",
    True: "is in no audit. Give its label by 'skadma teach'.",
}


class Said(NamedTuple):
    """What somebody says of what an image is.

    Attributes
    ----------
    image : int
    sha256 : str
    mark : str
        Class, or a mark such as "?skip".
    who : str
        Empty: whoever works on the campaign.
    where : str
        What messages call it, such as "line 7".
    """

    image: int
    sha256: str
    mark: str
    who: str = ""
    where: str = ""


def decide(
    rows: Sequence[LabelRow],
    state: State,
    places: Places,
    *,
    at_once: bool,
    audit: bool = False,
    blind: bool = False,
) -> tuple[list[Said], list[str]]:
    """Say what rows of labels mean.

    Parameters
    ----------
    rows : sequence of LabelRow
    state : State
    places : Places
    at_once : bool
        The rows are decided now; else they are from a file, which may be older than
        what an image is by now.
    audit : bool, default=False
        They are about images of an audit, and of no others; else about no such ones.
    blind : bool, default=False
        They are repeats: what holds already for an older picture is of no use.

    Returns
    -------
    decisions : list of Said
    refused : list of str
        Why the other rows cannot be taken.
    """
    numbers = state.numbers
    classes = state.classes
    decisions: dict[int, Said] = {}
    said: dict[str, tuple[str, str]] = {}
    refused = []
    before = {} if at_once else dict(state.changed_since())
    drawn = state.drawn()
    for row in rows:
        image = find_image(row.path, numbers, state, places)
        if row.problem:
            refused.append(f"{row.where}: {row.problem}")
        elif image is None:
            refused.append(f"{row.where}: {row.path!r} is not in the pool.")
        elif row.label not in classes and row.label not in MARKS:
            refused.append(f"{row.where}: {state.naming.unknown(row.label, MARKS)}")
        elif row.sha256 and row.sha256 != state.last_known[image]:
            known = state.decisions.get(row.sha256)
            if blind or known is None or known.mark != row.label:
                refused.append(
                    f"{row.where}: {row.path!r} is another picture by now than the one "
                    "that the column sha256 names."
                )
            # else it holds already, for what the file was then
        elif not row.sha256 and image in before and before[image].mark == row.label:
            refused.append(
                f"{row.where}: {row.path!r} has changed since it was labelled "
                f"{row.label!r}. If the label is for the picture as it is now, give it "
                "in a file that 'skadma query' wrote, which tells what was looked at."
            )
        elif (state.last_known[image] in drawn) != audit:
            refused.append(f"{row.where}: {row.path!r} {_OTHER[audit]}")
        else:
            sha = state.last_known[image]
            where, label = said.setdefault(sha, (row.where, row.label))
            if label != row.label:
                refused.append(
                    f"{row.where}: {row.path!r} is {row.label!r} here, but "
                    f"{label!r} in {where}, which is the same image."
                )
            else:
                decisions[image] = Said(image, sha, row.label, row.who, row.where)
    return list(decisions.values()), refused


def find_image(
    path: str, numbers: dict[str, int], state: State, places: Places
) -> int | None:
    """Find the image that a path in a label file means; None if there is none."""
    name = path if path in numbers else path.strip()
    if name in numbers:
        return numbers[name]
    if os.path.isabs(name):  # noqa: PTH117
        inside = places.find(Path(name), state.pools)
        if inside is None:
            return None
        name = inside
    name = PurePosixPath(name).as_posix()
    if name not in numbers:  # other systems spell accents otherwise
        plain = unicodedata.normalize("NFC", name)
        same = [p for p in numbers if unicodedata.normalize("NFC", p) == plain]
        name = same[0] if len(same) == 1 else name
    return numbers.get(name)


def decision_row(event: int, image: int, sha256: str, mark: str) -> tuple:
    """Make the row of the table of decisions, or of looks."""
    if mark in MARKS:
        return event, image, sha256, mark[1:], None
    return event, image, sha256, "label", mark
