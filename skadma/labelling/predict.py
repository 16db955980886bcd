"""Predictions for many image files, in a CSV file that survives a kill."""

from __future__ import annotations

import copy
import hashlib
import heapq
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._utils.atomic import alone, new_file, remove_abandoned, write_atomically
from .._utils.processes import progress_bar
from .._utils.tables import write_table
from ..images.decoding import UnreadableImageError, from_file
from ..images.folder import iter_images
from ..persistence import ModelError

if TYPE_CHECKING:
    from ..classifier import CNNClassifier
    from ..features.table import EmbeddingTable
    from ..training.probe_classifier import ProbeClassifier

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
        text = f"{self.n_images} images"
        if self.n_before:
            text += f" ({self.n_before} of them before)"
        if self.n_problems:
            text += (
                f"; {self.n_problems} could not be decided, see the column 'problem'"
            )
        return text + (f"; not resumed: {self.not_resumed}" if self.not_resumed else "")


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

    The columns are path, label, confidence and problem; with `proba`, or several labels
    per image, one per class, ``proba_<class>``. Paths are sorted. A file that cannot be
    decoded has an empty label and its reason under problem. With several labels per
    image those that are more probable than not are joined by ";", and the confidence is
    the mean, over all labels, of the probability of the decision about it. Memory does
    not grow with the number of files, but for the names in the largest folder.

    Rows are first written to ``<out>.part``. After a kill, the same call continues
    behind those that are complete, to the very same file. An image is the same if its
    absolute path, size and time of modification are: from the first one that was added,
    removed or changed, rows are made anew.

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
    proba = proba or estimator.multilabel_
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
    journal = out.with_name(f"{out.name}.part")
    counts: Counter[str] = Counter()
    lock = journal.with_name(f"{journal.name}.lock")
    with alone(lock, out), warnings.catch_warnings():
        # The count above warned of what is left out; rows tell what cannot be read.
        warnings.simplefilter("ignore")
        for path in (out, journal):
            remove_abandoned(path)
        end, n_groups, n_before, not_resumed = _kept(journal, task, given, overwrite)
        bar = progress_bar(
            total=n_images, initial=n_before, unit=" images", disable=not progress
        )
        try:
            if not end:
                write_atomically(journal, lambda path: path.write_bytes(_line(task)))
            with journal.open("ab") as file, bar:
                if end:
                    file.truncate(end)
                groups = itertools.islice(_groups(given), n_groups, None)
                for images, rows in _rows(estimator, groups, names, proba):
                    _append(file, _line([_digest(images), rows]))
                    bar.update(len(rows))
            write_table(out, columns, _read_rows(journal, counts))
        except OSError as error:
            raise ModelError(
                f"{str(out)!r} cannot be written ({error}). Its rows so far are "
                "kept: once there is room, the same command goes on from there."
            ) from error
        journal.unlink()
    return Predicted(counts["images"], counts["problems"], n_before, not_resumed)


def predict_table(
    probe: ProbeClassifier,
    table: EmbeddingTable,
    out: Path,
    *,
    proba: bool = False,
    overwrite: bool = False,
) -> Predicted:
    """Write the labels of a table's images to a CSV file as `predict_files` does."""
    if table.paths is None:
        raise ModelError(f"{str(table.file)!r} has no paths: give an .npz with them.")
    names, several = [str(label) for label in probe.classes_], probe.multilabel_
    proba = proba or several
    columns = [*_COLUMNS, *(f"proba_{name}" for name in names if proba)]
    scored = zip(table.paths, probe.predict_proba(table.rows), strict=True)
    rows = (_row(path, scores, names, proba, several) for path, scores in scored)
    write_table(new_file(out, overwrite=overwrite), columns, rows)
    return Predicted(len(table.paths), 0, 0)


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
    estimator = copy.copy(estimator).set_params(memory=False)  # each image once
    multilabel = estimator.multilabel_
    for images in groups:
        scores = estimator.predict_proba([path for path, *_ in images])
        pairs = zip(images, scores, strict=True)
        yield images, [_row(i[0], row, names, proba, multilabel) for i, row in pairs]


def _row(
    path: str, scores: np.ndarray, names: list[str], proba: bool, multilabel: bool
) -> list[str]:
    shown = [f"{p:.6g}" for p in scores] if proba else []
    if not np.isfinite(scores).all():
        return [path, "", "", _problem(path), *("" for _ in shown)]
    if multilabel:
        given = [name for name, p in zip(names, scores, strict=True) if p > 0.5]
        label = _SEPARATOR.join(given)
        confidence = np.maximum(scores, 1 - scores).mean()
    else:
        label, confidence = names[int(scores.argmax())], scores.max()
    return [path, label, f"{confidence:.6g}", "", *shown]


def _problem(path: str) -> str:
    try:
        from_file(path, path)
    except UnreadableImageError as error:
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {cause}"
    return "the model's scores are not finite"


def _identity(estimator: CNNClassifier) -> str:
    """Compute a digest of all that predictions depend on."""
    from ..networks.pretrained import fingerprint
    from ..persistence.network_file import describe_labels

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


# --- the journal ----------------------------------------------------------------------
# A line for the task, and one for each group: the digest of its images, and its rows.


def _line(value: Any) -> bytes:
    data = json.dumps(value).encode() + b"\n"
    return f"{_digest(data)} ".encode() + data


def _append(file: IO[bytes], data: bytes) -> None:
    """Write so that it survives the process."""
    file.write(data)
    file.flush()


def _read(journal: Path) -> Iterator[tuple[int, Any]]:
    """Read the lines up to the first that is not whole, with the place of their end."""
    end = 0
    with journal.open("rb") as file:
        for line in file:
            digest, _, data = line.partition(b" ")
            if digest != _digest(data).encode():
                return
            end += len(line)
            yield end, json.loads(data)


def _read_rows(journal: Path, counts: Counter[str]) -> Iterator[list[str]]:
    """Read the rows of all groups, and count them."""
    for _, (_, rows) in itertools.islice(_read(journal), 1, None):
        counts["images"] += len(rows)
        counts["problems"] += sum(row[3] != "" for row in rows)
        yield from rows


def _kept(
    journal: Path, task: dict[str, Any], given: Sequence[str], overwrite: bool
) -> tuple[int, int, int, str]:
    """Count the bytes, groups and rows that can be kept; say why others cannot."""
    if not journal.exists():
        return 0, 0, 0, ""
    lines = _read(journal)
    end: int
    before: Any
    end, before = next(lines, (0, None))
    if before is None:
        differs = ["note of what it is"]
    else:
        differs = [key for key in task if before[key] != task[key]]
    if "inputs" in differs:
        then, now = (", ".join(each["inputs"].values()) for each in (before, task))
        differs[differs.index("inputs")] = f"inputs ({then}; now {now})"
    if differs:
        begun = f"begun with another {' and other '.join(differs)}"
        if overwrite:
            return 0, 0, 0, f"what was {begun}"
        raise ModelError(
            f"{str(journal)!r} was {begun}. Finish it with those, choose another "
            "name, or say --overwrite to begin anew."
        )
    n_groups = n_rows = 0
    groups = _groups(given)
    for end_of_group, (digest, rows) in lines:
        images = next(groups, [])
        if digest != _digest(images):
            place = f"the rows from {images[0][0]!r} on" if images else "the last rows"
            why = f"{place}, as images were added, removed or changed"
            return end, n_groups, n_rows, why
        end, n_groups, n_rows = end_of_group, n_groups + 1, n_rows + len(rows)
    return end, n_groups, n_rows, ""


def _digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return hashlib.sha256(data).hexdigest()
