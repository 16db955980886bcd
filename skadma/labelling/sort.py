"""Sort image files into a folder for each class.

The plan is on the disk before the first file is touched: by it a sort that was
interrupted goes on, and moves are taken back.
"""

from __future__ import annotations

import copy
import errno
import filecmp
import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from .._utils.atomic import alone, file_digest, sync_folder, write_atomically
from .._utils.processes import progress_bar
from ..images.decoding import image_suffixes
from ..images.folder import iter_images
from .campaign.event_log import CampaignError
from .campaign.folders import absolute, is_within
from .campaign.state import State, known_contents, read_state, refresh_if_there

if TYPE_CHECKING:
    from .campaign import Campaign

JOURNAL, UNDO = "skadma-sort.jsonl", "skadma-undo.jsonl"
"""Names of the plan in the folder that is sorted into, and of a move that was done."""
_OURS = ".skadma-sort"
"""What names begin with that a killed process may leave in an empty folder."""
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\s*(\..*)?", re.IGNORECASE)
"""What Windows takes for no file name."""


@dataclass
class SortPlan:
    """Files, and their places below the folder `into`; ``print`` shows the counts."""

    into: Path
    how: str  # "copy", "link" or "move"
    files: list[tuple[Path, str]] = field(default_factory=list)
    n_labelled: int = 0  # the others go where the model says
    notes: list[str] = field(default_factory=list)
    undoes: Path | None = None  # the file of a move: all goes back

    def __str__(self) -> str:
        by = (f.parent if self.undoes else Path(to).parent for f, to in self.files)
        lines = [f"{n:9}  {folder}" for folder, n in sorted(Counter(by).items())]
        n_guessed = len(self.files) - self.n_labelled
        lines.append(f"{self.n_labelled} by your labels, {n_guessed} by the model.")
        more = [f"and {len(self.notes) - 20} more"] if len(self.notes) > 20 else []
        return "\n".join([*lines, *self.notes[:20], *more])


def plan_sort(
    campaign: Campaign,
    into: str | Path,
    photos: Sequence[str | Path] = (),
    *,
    how: str = "copy",
    unsure: float = 0.8,
) -> SortPlan:
    """Decide for each image where it goes; nothing is written.

    By what a person said of its content, else by the present model; below the
    probability `unsure` into a folder of that name. `photos` are folders, the
    campaign's pools if empty. CampaignError if `into` or they cannot be taken.
    """
    if not 0 <= unsure <= 1:
        raise CampaignError(f"unsure={unsure}; it must be from 0 to 1.")
    roots = [absolute(p) for p in photos] or list(campaign.pools.values())
    plan = SortPlan(check_into(into, roots), how)
    refresh_if_there(campaign._event_log)
    state = read_state(campaign._event_log)
    known = {state.folders.file(p): c for p, c in known_contents(state).items()}
    digests: dict[Path, str] = {}
    for file, at in ((root / p, at) for root in roots for p, at in iter_images(root)):
        c = known.get(file)
        if how == "move" and file.is_symlink():
            plan.notes.append(f"{str(file)!r} is left out: moved, a link may break.")
        elif c and (c.size, c.mtime_ns) == (at.st_size, at.st_mtime_ns):
            digests[file] = str(c.sha256)
        else:
            try:
                digests[file] = file_digest(file)
            except OSError as error:
                plan.notes.append(f"{str(file)!r} is left out: {error.strerror}.")
    state.class_names.refuse_several("To sort into a folder for each class")
    said, guesses = _said(state), dict[str, tuple[str, float]]()
    if not said.keys() >= {*digests.values()}:
        state, model = campaign._trainer.present_model()  # all is by this one state
        if not hasattr(model, "classes_"):
            raise CampaignError("There are no labels to sort by: 'skadma label' first.")
        said = _said(state)
        unknown = {sha256: f for f, sha256 in digests.items() if sha256 not in said}
        if campaign.features is not None:
            images = {k: image for k, image in state.usable().items() if k in unknown}
            _, best = campaign._trainer.predictions(state, [*images.values()])
            guesses = dict(zip(images, best, strict=True))
        elif unknown:
            model = copy.copy(model).set_params(on_bad_image="skip")
            proba = model.predict_proba([str(file) for file in unknown.values()])
            labels = model.classes_[proba.argmax(axis=1)].tolist()
            guessed = zip(unknown, labels, proba.max(axis=1), strict=True)
            guesses = {k: (label, p) for k, label, p in guessed if p >= 0}  # not NaN
    names = folder_names((*state.classes, "?cant-tell", "?not-an-image", "?unsure"))
    for mark, name in names.items():
        if name != mark.removeprefix("?"):
            plan.notes.append(f"{mark!r} goes into the folder {name!r}.")
    taken = set[str]()
    for file, sha256 in sorted(digests.items()):
        known_as = (said[sha256], 1.0) if sha256 in said else guesses.get(sha256)
        if known_as is None:
            why = "it has no row, or" if campaign.features else "it"
            plan.notes.append(f"{str(file)!r} is left out: {why} cannot be read.")
            continue
        name = names[known_as[0] if known_as[1] >= unsure else "?unsure"]
        plan.files.append((file, _free(f"{name}/{file.stem}", taken, file.suffix)))
        plan.n_labelled += sha256 in said
    return plan


def _said(state: State) -> dict[str, str]:
    """What a person said of contents, but for what was skipped."""
    decided = {k: d for k, d in state.decisions.items() if d.kind != "skip"}
    marks = {k: d.mark for k, d in (state.audit_answers | decided).items()}
    return {sha256: mark for sha256, mark in marks.items() if mark != "?skip"}


def check_into(into: str | Path, roots: Iterable[Path]) -> Path:
    """Return a folder to sort into, absolute; refuse it unless it is new or empty."""
    path, why = absolute(into), ""
    if not path.parent.is_dir():
        why = f"there is no folder {str(path.parent)!r}"
    elif os.path.lexists(path) and not path.is_dir():
        why = "it is a link that leads nowhere, or no folder"
    elif path.is_dir() and any(p.name[:12] != _OURS for p in path.iterdir()):
        why = "there is something in it"
    elif inside := [root for root in roots if is_within(path, root)]:
        why = f"what is sorted would be among the photographs of {str(inside[0])!r}"
    if why:
        raise CampaignError(
            f"Nothing can be sorted into {str(path)!r}: {why}. Give a new folder."
        )
    return path


def folder_names(marks: Iterable[str]) -> dict[str, str]:
    """Name a folder for each mark, as all file systems take it, no two the same."""
    names, taken = {}, set[str]()
    for mark in marks:
        text = unicodedata.normalize("NFC", mark.removeprefix("?"))
        kept = (c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in text)
        text = "".join(kept).encode()[:100].decode(errors="ignore").strip().rstrip(". ")
        odd = not text or text.startswith(".") or _DEVICE.fullmatch(text)
        names[mark] = _free(f"_{text}" if odd else text, taken)
    return names


def _free(stem: str, taken: set[str], suffix: str = "") -> str:
    """Number a name that some file system takes for one that is taken; take it."""
    for n in count(1):
        end = f" ({n})" * (n > 1) + suffix
        while len(os.fsencode(stem.rpartition("/")[2] + end)) > 255:
            stem = stem[:-1]
        key = unicodedata.normalize("NFC", stem + end).casefold()
        if key not in taken:
            break
    taken.add(key)
    return stem + end


# --- on the disk ----------------------------------------------------------------------


def run_sort(plan: SortPlan, *, progress: bool = False) -> list[str]:
    """Do what is planned, or what is left of it; return what could not be done.

    Nothing is overwritten; a file is at its place whole or not at all. After a kill
    `unfinished` gives the plan again.
    """
    journal = plan.into / JOURNAL
    plan.into.mkdir(exist_ok=True)
    with alone(plan.into / f"{_OURS}.lock", plan.into):
        places = [(source, plan.into / to) for source, to in plan.files]
        if not journal.exists():
            rows = [{"from": str(source), "to": str(place)} for source, place in places]
            head = {"how": plan.how, "labelled": plan.n_labelled}
            text = "\n".join(map(json.dumps, [head, *rows]))
            write_atomically(journal, lambda tmp: tmp.write_text(f"{text}\n", "utf-8"))
        bar = progress_bar(places, unit=" files", disable=not progress)
        problems = _place_all(bar, plan.how)
        if plan.how == "move":
            journal.rename(plan.into / UNDO)
        else:
            journal.unlink()
    return problems


def undo_sort(plan: SortPlan) -> tuple[int, list[str]]:
    """Move files back by what `read_plan` read; count them, say what stays."""
    with alone(plan.into / f"{_OURS}.lock", plan.into):
        places = [(plan.into / to, source) for source, to in plan.files]
        problems = _place_all(places, "move")
        for folder in {place.parent for place, _ in places}:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        if plan.undoes and not problems:
            plan.undoes.unlink()
    return len(places) - len(problems), problems


def unfinished(into: Path, roots: Iterable[Path]) -> SortPlan | None:
    """Read the plan of an interrupted sort of the folders `roots`; None if none is."""
    plan = read_plan(into / JOURNAL, roots) if (into / JOURNAL).exists() else None
    if plan:
        plan.notes.append(f"A sort was interrupted. This goes on with it: {plan.how}.")
    return plan


def read_plan(journal: Path, roots: Iterable[Path] | None = None) -> SortPlan:
    """Read a plan, perhaps a stranger's.

    Refuse one that leads out of its folder, or is not about images of the folders. With
    no folders, it is of a move that was done, to take it back.
    """
    try:
        head, *rows = map(json.loads, journal.read_text("utf-8").splitlines())
        plan = SortPlan(absolute(journal).parent, head["how"])
        plan.n_labelled = int(head["labelled"])
        for row in rows:
            source, place = Path(row["from"]), Path(row["to"])
            folder = place.parent.name  # the one above may be elsewhere by now
            to, parts = f"{folder}/{place.name}", {*source.parts, *place.parts}
            inside = folder and is_within(plan.into / folder, plan.into)
            odd = ".." in parts or "\0" in row["from"] + row["to"]
            images = {source.suffix.lower(), place.suffix.lower()} <= image_suffixes()
            ours = roots is None or any(is_within(source.parent, r) for r in roots)
            if odd or not (source.is_absolute() and inside and images and ours):
                raise ValueError(f"{row['from']!r} to {row['to']!r}")
            plan.files.append((source, to))
    except (ValueError, KeyError, TypeError) as error:
        raise CampaignError(
            f"{str(journal)!r} is no plan for these photographs that 'skadma sort' "
            f"wrote ({error}). Name their folder, or sort into a new one."
        ) from error
    if roots is None and plan.how != "move":
        raise CampaignError("Only files that were moved go back: remove the copies.")
    plan.undoes = journal if roots is None else None
    return plan


def _place_all(places: Iterable[tuple[Path, Path]], how: str) -> list[str]:
    """Bring files to their places; return what could not be done."""
    problems = []
    for source, target in places:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(source, target, how)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise  # others are about one file
            problems.append(f"{str(source)!r}: {error.strerror or error}")
    return problems


def _place(source: Path, target: Path, how: str) -> None:
    """Bring a file to its place, unless it is there; overwrite nothing."""
    tmp = target.with_name(f".{target.name[:60]}.skadma-part")
    tmp.unlink(missing_ok=True)  # a kill may have left it
    if how == "move" and source.is_symlink() or how != "link" and target.is_symlink():
        raise FileExistsError("there is a link, which may lead to the only copy")
    if os.path.lexists(target):
        if not source.exists() and how == "move":
            return
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            raise FileExistsError("there is another file at its place")
        only = source.stat().st_nlink < 2 or source.parent.samefile(target.parent)
        if how == "move" and only and source.samefile(target):
            raise FileExistsError("it is there already, by a linked folder")
    elif how == "link":
        source.stat()  # raises where it leads nowhere
        target.symlink_to(source)
    elif how == "copy" or not _linked(source, target):
        try:
            shutil.copy2(source, tmp)
            with tmp.open("rb") as file:
                os.fsync(file.fileno())
            if not _linked(tmp, target):
                tmp.rename(target)
        finally:
            tmp.unlink(missing_ok=True)
        sync_folder(target.parent)
    if how == "move":
        source.unlink()


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that is on another disk, or cannot be."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        source.stat()
        return False
    return True
