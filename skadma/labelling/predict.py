"""Predictions for many image files, in a CSV file that survives a kill."""

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import filelock
import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._utils.atomic import new_file, sync_folder, write_atomically
from .._utils.processes import progress_bar
from .._utils.tables import escape_cell, escape_path
from ..images.folder import iter_images
from ..images.forms import UnreadableImageError, from_file
from ..networks.pretrained import fingerprint
from ..persistence import ModelError
from ..persistence.network_file import describe_labels

if TYPE_CHECKING:
    from ..classifier import CNNClassifier

_GROUP_SIZE = 256
"""Images that are predicted and written together."""
_SEPARATOR = ";"
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
        Rows that an earlier, interrupted run had written.
    not_resumed : str
        Which rows of the earlier run were made anew, and why; empty if none were.
    """

    n_images: int
    n_problems: int
    n_before: int
    not_resumed: str = ""

    def __str__(self) -> str:
        before = f" ({self.n_before} of them before)" if self.n_before else ""
        bad = (
            f"; {self.n_problems} could not be decided, the column 'problem' says why"
            if self.n_problems
            else ""
        )
        anew = f"; not resumed: {self.not_resumed}" if self.not_resumed else ""
        return f"{self.n_images} images{before}{bad}{anew}"


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
    labels, of the probability of the decision about it. Memory does not grow with the
    number of files, but for the names in the largest folder.

    Rows are first written to ``<out>.part``, which is renamed when it is complete.
    After a kill, the same call with the same model continues behind the rows that are
    complete, to the very same file. An image is the same if its absolute path, size and
    time of modification are: from the first one that was added, removed or changed,
    rows are made anew.

    Parameters
    ----------
    estimator : CNNClassifier
        Fitted, for images.
    inputs : iterable of str or Path
        Files, and folders, of which the image files are taken, with subfolders.
    out : str or Path
    proba : bool, default=False
    overwrite : bool, default=False
        Write over an existing file, and over what was begun with another model or
        other inputs.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    Predicted

    Raises
    ------
    FileExistsError
        If `out` exists.
    ModelError
        If there is no image, if ``<out>.part`` was begun with another model or other
        inputs, or if the disk is full; or if there are several labels per image, and
        one's name has a ";".
    """
    check_is_fitted(estimator)
    names = [str(label) for label in estimator.classes_]
    if estimator.multilabel_ and any(_SEPARATOR in name for name in names):
        raise ModelError(
            f"A name of the labels {names} has a {_SEPARATOR!r}, which separates an "
            "image's labels in the table: fit the model with other names."
        )
    out = new_file(Path(out), overwrite=overwrite)
    given = [_checked(path) for path in inputs]
    n_images = sum(1 for _ in _images(given))
    if not n_images:
        raise ModelError(f"There is no image in {', '.join(map(repr, given))}.")
    estimator = copy.copy(estimator).set_params(on_bad_image="skip")
    columns = [*_COLUMNS, *(f"proba_{name}" for name in names if proba)]
    task = {
        "model": _identity(estimator),
        "inputs": {name: str(Path(name).resolve()) for name in given},
        "columns": columns,
    }
    tmp_path = out.with_name(f"{out.name}.part")
    journal = out.with_name(f"{out.name}.part.jsonl")
    with _locked(tmp_path), warnings.catch_warnings():
        # The count above warned of what is left out; rows tell what cannot be read.
        warnings.simplefilter("ignore")
        done, not_resumed = _completed(tmp_path, journal, task, given, overwrite)
        header = _csv([columns])
        last = done[-1] if done else _Group(end=len(header))
        n_before = last.n_rows
        lines = "".join(f"{json.dumps(line)}\n" for line in (task, *map(asdict, done)))
        bar = progress_bar(
            total=n_images, initial=n_before, unit=" images", disable=not progress
        )
        try:
            write_atomically(journal, lambda path: path.write_text(lines))
            with tmp_path.open("ab") as file, journal.open("a") as log, bar:
                file.truncate(last.end if done else 0)
                if not done:
                    _append(file, header)
                groups = itertools.islice(_groups(given), len(done), None)
                for images, rows in _rows(estimator, groups, names, proba):
                    data = _csv(rows)
                    _append(file, data)
                    last = _Group(
                        n_rows=last.n_rows + len(rows),
                        n_problems=last.n_problems + sum(row[3] != "" for row in rows),
                        end=last.end + len(data),
                        images=_digest(images),
                        rows=_digest(data),
                    )
                    print(json.dumps(asdict(last)), file=log, flush=True)
                    bar.update(len(rows))
                os.fsync(file.fileno())
            tmp_path.replace(out)
        except OSError as error:
            raise ModelError(
                f"{str(tmp_path)!r} cannot be written ({error}). Its rows so far are "
                "kept: once there is room, the same command goes on from there."
            ) from error
        sync_folder(out.absolute().parent)
        journal.unlink(missing_ok=True)
    return Predicted(last.n_rows, last.n_problems, n_before, not_resumed)


# --- which files --------------------------------------------------------------

_Image = tuple[str, int, int]
"""Path, size and time of modification, which tell whether an image is the same."""


def _checked(path: str | Path) -> str:
    name = Path(path).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"The name {name!r} is not Unicode: rename it.") from error
    if not Path(name).exists():
        raise ModelError(f"There is no file or folder {name!r}.")
    return name


def _images(given: Sequence[str]) -> Iterator[_Image]:
    """Find the images, sorted by path, each once."""
    folders = [name for name in given if Path(name).is_dir()]
    files = sorted(set(given) - set(folders))
    last = None
    for image in heapq.merge(map(_from_file, files), *map(_in_folder, folders)):
        if image[0] != last:
            yield image
        last = image[0]


def _from_file(path: str) -> _Image:
    try:
        state = Path(path).stat()
    except OSError:  # it was removed since; its row says so
        return path, -1, -1
    return path, state.st_size, state.st_mtime_ns


def _in_folder(folder: str) -> Iterator[_Image]:
    prefix = {".": "", "/": "/"}.get(folder, f"{folder}/")
    for path, state in iter_images(Path(folder)):
        yield prefix + path, state.st_size, state.st_mtime_ns


def _groups(given: Sequence[str]) -> Iterator[list[_Image]]:
    """Divide the images into groups.

    A run is resumed behind a whole group only: which images share a batch shows in the
    last digits of their scores.
    """
    images = _images(given)
    return iter(lambda: list(itertools.islice(images, _GROUP_SIZE)), [])


# --- their rows ---------------------------------------------------------------


def _rows(
    estimator: CNNClassifier,
    groups: Iterator[list[_Image]],
    names: list[str],
    proba: bool,
) -> Iterator[tuple[list[_Image], list[list[str]]]]:
    """Predict group by group; yield the group and its rows of the table."""
    groups, again = itertools.tee(groups)
    scores = estimator.iter_predict_proba([path for path, *_ in g] for g in again)
    for images, matrix in zip(groups, scores, strict=True):
        pairs = zip(images, matrix, strict=True)
        multilabel = estimator.multilabel_
        yield images, [_row(i[0], row, names, proba, multilabel) for i, row in pairs]


def _row(
    path: str, scores: np.ndarray, names: list[str], proba: bool, multilabel: bool
) -> list[str]:
    shown = [f"{p:.6g}" for p in scores] if proba else []
    if not np.isfinite(scores).all():
        return [escape_path(path), "", "", _problem(path), *("" for _ in shown)]
    if multilabel:
        given = [name for name, p in zip(names, scores, strict=True) if p > 0.5]
        label = _SEPARATOR.join(given)
        confidence = np.maximum(scores, 1 - scores).mean()
    else:
        label, confidence = names[int(scores.argmax())], scores.max()
    return [escape_path(path), escape_cell(label), f"{confidence:.6g}", "", *shown]


def _problem(path: str) -> str:
    try:
        from_file(path, path)
    except UnreadableImageError as error:
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {cause}"
    return "the model's scores are not finite"


def _identity(estimator: CNNClassifier) -> str:
    """Compute a digest of all that predictions depend on."""
    source = estimator.source_network_
    return _digest(
        [
            fingerprint(estimator.net_.module_),
            describe_labels(estimator.classes_),
            asdict(source.preprocessing),
            bool(estimator.multilabel_),
            str(source.engine),
        ]
    )


# --- the unfinished file, and the journal beside it -------------------------------


@dataclass(frozen=True)
class _Group:
    """A line of the journal: a group of images whose rows are complete.

    `n_rows`, `n_problems` and `end` (in bytes) count from the beginning of the table.
    `images` and `rows` are digests.
    """

    n_rows: int = 0
    n_problems: int = 0
    end: int = 0
    images: str = ""
    rows: str = ""


@contextmanager
def _locked(tmp_path: Path) -> Iterator[None]:
    """Be the only process that writes this file."""
    path = tmp_path.with_name(f"{tmp_path.name}.lock")
    try:
        lock = filelock.FileLock(path).acquire(timeout=0)
    except filelock.Timeout as error:
        raise ModelError(
            f"Another process is writing {str(tmp_path)!r}: wait for it, or choose "
            "another name."
        ) from error
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _completed(
    tmp_path: Path,
    journal: Path,
    task: dict[str, Any],
    given: Sequence[str],
    overwrite: bool,
) -> tuple[list[_Group], str]:
    """Read which groups can be kept, and give the reason why others cannot."""
    if not tmp_path.exists():
        return [], ""
    try:
        first, *lines = journal.read_bytes().splitlines()
        before = json.loads(first)
        differs = [key for key in task if before[key] != task[key]]
        if "inputs" in differs:
            then, now = (", ".join(each["inputs"].values()) for each in (before, task))
            differs[differs.index("inputs")] = f"inputs ({then}; now {now})"
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError
    ):  # fmt: skip
        differs = ["note of what it is"]
    if differs:
        begun = f"begun with another {' and other '.join(differs)}"
        if overwrite:
            return [], f"what was {begun}"
        raise ModelError(
            f"{str(tmp_path)!r} was {begun}. Finish it with those, choose another "
            "name, or say --overwrite to begin anew."
        )
    done: list[_Group] = []
    groups = _groups(given)
    header = _csv([task["columns"]])
    with tmp_path.open("rb") as file:
        whole = file.read(len(header)) == header
        for line in lines:
            try:
                group = _Group(**json.loads(line))
            except (ValueError, TypeError, RecursionError):  # the kill cut it off
                break
            images = next(groups, [])
            place = f"the rows from {images[0][0]!r} on" if images else "the last rows"
            if group.images != _digest(images):
                return done, f"{place}, as images were added, removed or changed"
            if not whole or group.rows != _digest(file.read(group.end - file.tell())):
                return done, f"{place}, which are damaged"
            done.append(group)
    return done, ""


def _append(file: IO[bytes], data: bytes) -> None:
    """Write so that it survives the process."""
    file.write(data)
    file.flush()


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return hashlib.sha256(data).hexdigest()
