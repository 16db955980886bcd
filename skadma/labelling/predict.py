"""Predictions for many image files, in a CSV file that outlives a kill."""

from __future__ import annotations

import copy
import csv
import hashlib
import heapq
import io
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import filelock
import numpy as np
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._utils.atomic import new_file, sync_folder, write_atomically
from .._utils.tables import safe_path
from ..images.folder import iter_images
from ..images.forms import UnreadableImageError, check_readable
from ..networks.engines import TORCH
from ..networks.pretrained import fingerprint
from ..persistence.errors import ModelError
from ..persistence.network_file import describe_labels

if TYPE_CHECKING:
    from ..classifier import CNNClassifier

_TOGETHER = 256
"""Images that are decided and written together."""
_BETWEEN = ";"
"""Between the labels of an image that has several."""
_COLUMNS = ("path", "label", "confidence", "problem")


@dataclass(frozen=True)
class Predicted:
    """What is in a file of predictions.

    Attributes
    ----------
    n_images : int
        Rows.
    n_problems : int
        Rows of images that could not be decided.
    n_before : int
        Rows that an earlier, broken off run had written.
    """

    n_images: int
    n_problems: int
    n_before: int

    def __str__(self) -> str:
        before = f" ({self.n_before} of them before)" if self.n_before else ""
        bad = (
            f"; {self.n_problems} could not be decided, the column 'problem' says why"
            if self.n_problems
            else ""
        )
        return f"{self.n_images} images{before}{bad}"


def predict_files(
    estimator: CNNClassifier,
    inputs: Iterable[str | Path],
    out: str | Path,
    *,
    proba: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Predicted:
    """Write the labels of image files to a CSV file.

    The columns are path, label, confidence and problem; with `proba` one per class,
    ``proba_<class>``. Paths are sorted. A file that cannot be decoded has an empty
    label and its reason under problem. With several labels per image those that are
    more probable than not are joined by ";", and the confidence is the mean, over all
    labels, of the probability that what is said of each is right. Memory does not grow
    with the number of files, but for the names in the largest folder.

    Rows go to ``<out>.part``, which gets its name when all are there. Called again
    after a kill, with the same model and the same inputs, it goes on behind the rows
    that are whole, to the very same file. Files that came or went since are noticed,
    changed ones are not.

    Parameters
    ----------
    estimator : CNNClassifier
        Fitted, for images.
    inputs : iterable of str or Path
        Files, and folders, of which the image files are taken, with subfolders.
    out : str or Path
    proba : bool, default=False
    overwrite : bool, default=False
        Write over a file that is there, and over what another model or other inputs
        began.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    Predicted

    Raises
    ------
    FileExistsError
        If `out` is there.
    ModelError
        If there is no image, the beginning is another's, or the disk is full; or if
        there are several labels per image, and one's name has a ";".
    """
    check_is_fitted(estimator)
    names = [str(label) for label in estimator.classes_]
    if estimator.multilabel_ and any(_BETWEEN in name for name in names):
        raise ModelError(
            f"A name of the labels {names} has a {_BETWEEN!r}, which is what separates "
            "an image's labels in the table: fit the model with other names."
        )
    out = new_file(Path(out), overwrite=overwrite)
    asked = [_checked(path) for path in inputs]
    n_images = sum(1 for _ in _files(asked))
    if not n_images:
        raise ModelError(f"There is no image in {', '.join(map(repr, asked))}.")
    estimator = copy.copy(estimator).set_params(on_bad_image="skip")
    columns = [*_COLUMNS, *(f"proba_{name}" for name in names if proba)]
    task = {"model": _identity(estimator), "inputs": asked, "columns": columns}
    part = out.with_name(f"{out.name}.part")
    with _alone(part), warnings.catch_warnings():
        # The walk above said what is left out, and rows say what cannot be read.
        warnings.simplefilter("ignore")
        begun = _begin(part, task, overwrite)
        try:
            with part.open("r+b" if begun else "w+b") as file:
                known = partial(_is_row, columns, names, estimator.multilabel_)
                paths, n_before, n_problems = _go_on(file, columns, known, asked)
                with tqdm(
                    total=n_images, initial=n_before, unit=" images",
                    disable=not progress,
                ) as bar:  # fmt: skip
                    n_rows = n_before
                    for rows in _rows(estimator, paths, names, proba):
                        _append(file, rows)
                        n_rows += len(rows)
                        n_problems += sum(row[3] != "" for row in rows)
                        bar.update(len(rows))
                os.fsync(file.fileno())
            part.replace(out)
        except OSError as error:
            raise ModelError(
                f"{str(part)!r} cannot be written ({error}). Its rows so far are kept: "
                "once there is room, the same command goes on from there."
            ) from error
        sync_folder(out.absolute().parent)
        _note(part).unlink(missing_ok=True)
    return Predicted(n_rows, n_problems, n_before)


# --- which files --------------------------------------------------------------


def _checked(path: str | Path) -> str:
    name = Path(path).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"The name {name!r} is not Unicode: rename it.") from error
    if not Path(name).exists():
        raise ModelError(f"There is no file or folder {name!r}.")
    return name


def _files(inputs: Sequence[str]) -> Iterator[str]:
    """Paths, sorted, each once."""
    folders = [name for name in inputs if Path(name).is_dir()]
    walks = [_below(folder) for folder in folders]
    given = sorted(set(inputs) - set(folders))
    last = None
    for path in heapq.merge(given, *walks):
        if path != last:
            yield path
        last = path


def _below(folder: str) -> Iterator[str]:
    prefix = {".": "", "/": "/"}.get(folder, f"{folder}/")
    return (prefix + path for path, _ in iter_images(Path(folder)))


# --- what is said of them -------------------------------------------------------


def _rows(
    estimator: CNNClassifier, paths: Iterator[str], names: list[str], proba: bool
) -> Iterator[list[list[str]]]:
    """Rows of the table, of some images at a time."""
    together, asked = itertools.tee(
        iter(lambda: list(itertools.islice(paths, _TOGETHER)), [])
    )
    scores = estimator.iter_predict_proba(asked)
    for some, part in zip(together, scores, strict=True):
        yield [
            _row(path, row, names, proba, estimator.multilabel_)
            for path, row in zip(some, part, strict=True)
        ]


def _row(
    path: str, scores: np.ndarray, names: list[str], proba: bool, multilabel: bool
) -> list[str]:
    if np.isfinite(scores).all():
        if multilabel:
            said = [name for name, p in zip(names, scores, strict=True) if p > 0.5]
            label, sure = _BETWEEN.join(said), np.maximum(scores, 1 - scores).mean()
        else:
            label, sure = names[int(scores.argmax())], scores.max()
        cells = [label, f"{sure:.6g}", ""]
        shown = [f"{p:.6g}" for p in scores]
    else:
        cells, shown = ["", "", _problem(path)], [""] * len(names)
    return [safe_path(path), *cells, *(shown if proba else [])]


def _problem(path: str) -> str:
    try:
        check_readable(path)
    except UnreadableImageError as error:
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {cause}"
    return "the model's scores are not finite"


def _identity(estimator: CNNClassifier) -> str:
    """Name all that predictions depend on."""
    source = estimator.source_network_
    parts = (
        fingerprint(estimator.net_.module_),
        describe_labels(estimator.classes_),
        asdict(source.preprocessing),
        bool(estimator.multilabel_),
        *([] if source.engine == TORCH else [str(source.engine)]),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# --- the file that grows ----------------------------------------------------------


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Be the only process that writes this file."""
    path = part.with_name(f"{part.name}.lock")
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ModelError(
            f"Another process is writing {str(part)!r}: wait for it, or choose another "
            "name."
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _note(part: Path) -> Path:
    """Where it stands what the part belongs to."""
    return part.with_name(f"{part.name}.json")


def _begin(part: Path, task: dict[str, Any], overwrite: bool) -> bool:
    """Tell whether there is a beginning of this very task, and note the task."""
    if part.exists():
        try:
            before = json.loads(_note(part).read_bytes())
            differs = [key for key in task if before[key] != task[key]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            differs = ["note of what it is"]
        if not differs:
            return True
        if not overwrite:
            raise ModelError(
                f"{str(part)!r} was begun with another {' and other '.join(differs)}. "
                "Finish it with those, choose another name, or say --overwrite to "
                "begin anew."
            )
    text = json.dumps(task)
    write_atomically(_note(part), lambda path: path.write_text(text, "utf-8"))
    return False


def _go_on(
    file: BinaryIO,
    columns: list[str],
    known: Callable[[str, list[str]], bool],
    inputs: Sequence[str],
) -> tuple[Iterator[str], int, int]:
    """Find where to go on: behind the last rows that are as they would be now.

    Those that were decided together are kept together: who stands beside an image in
    a batch shows in the last digits of its scores.

    Parameters
    ----------
    file : file
    columns : list of str
    known : callable
        Tells whether cells are a row of a path.
    inputs : sequence of str

    Returns
    -------
    paths : iterator of str
        What is left to do.
    n_rows, n_problems : int
        Of what is done.
    """
    paths = _files(inputs)
    rows = _whole_rows(file)
    done, end = (0, 0), 0
    if next(rows, ([], 0))[0] == columns:
        n_problems = 0
        for number, (cells, offset) in enumerate(rows, 1):
            path = next(paths, None)
            if path is None or not known(path, cells):
                break
            n_problems += cells[3] != ""
            if number % _TOGETHER == 0:
                done, end = (number, n_problems), offset
    file.seek(end)
    file.truncate()
    if end == 0:
        _append(file, [columns])
    return itertools.islice(_files(inputs), done[0], None), *done


def _is_row(
    columns: list[str], names: list[str], multilabel: bool, path: str, cells: list[str]
) -> bool:
    if len(cells) != len(columns) or cells[0] != safe_path(path):
        return False
    _, label, confidence, problem, *proba = cells
    if problem:
        return not any((label, confidence, *proba))
    said = (label.split(_BETWEEN) if label else []) if multilabel else [label]
    try:
        return set(said) <= set(names) and all(
            0 <= float(p) <= 1 for p in (confidence, *proba)
        )
    except ValueError:
        return False


def _whole_rows(file: BinaryIO) -> Iterator[tuple[list[str], int]]:
    """Rows of a CSV file, and the place behind each, up to the first that is none."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield line.decode()

    try:
        for cells in csv.reader(lines(), strict=True):
            yield cells, end
    except (csv.Error, UnicodeDecodeError):
        return


def _append(file: BinaryIO, rows: Iterable[Sequence[str]]) -> None:
    """Write rows, so that they outlive the process."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    file.write(text.getvalue().encode())
    file.flush()
