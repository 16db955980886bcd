"""How good a campaign's model is on a folder of other images; the file is the audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..._utils.tables import write_table
from ...evaluation import METHODS, Audit, Estimate, audit_sample, estimate
from .event_log import CampaignError
from .image_index import scan_pool
from .labels_csv import MARKS, LabelFileError, LabelRow, read_labels

if TYPE_CHECKING:
    from ...classifier import CNNClassifier
    from .campaign import Campaign

_DESIGN = ("draw", "of", "method", "population", "stratum", "stratum_size",
           "probability")  # fmt: skip


def draw(campaign: Campaign, folder: Path, n: int, method: str, out: Path) -> int:
    """Draw images of a folder to label, and write them to a file.

    Images that the campaign has labels of are left out: the model was trained with
    them.

    Parameters
    ----------
    campaign : Campaign
    folder : Path
    n : int
    method : {"stratified", "random", "importance"}
    out : Path
        The label file. Its other columns say by what chances each image was drawn.

    Returns
    -------
    int
        How many were drawn.

    Raises
    ------
    CampaignError
        If there are not that many images, or no model yet.
    """
    contents = _contents(folder)
    trained = {decision.sha256 for _, decision, _ in campaign.decisions()}
    images = {sha: path for sha, path in contents.items() if sha not in trained}
    if not 1 <= n <= len(images):
        raise CampaignError(
            f"{n} images cannot be drawn from {str(folder)!r}: it has {len(images)} "
            "different ones that the campaign has no label of."
        )
    proba = _model(campaign).predict_proba([str(folder / p) for p in images.values()])
    audit = audit_sample(proba, n, method=method, random_state=campaign._trainer.seed)
    names = list(images.items())
    write_table(
        out,
        ("path", "label", "sha256", *_DESIGN),
        (
            (
                names[i][1],
                "",
                names[i][0],
                place + 1,
                n,
                method,
                audit.n_population,
                audit.strata[place],
                audit.stratum_sizes[place],
                repr(float(audit.probabilities[place])),
            )
            for place, i in enumerate(audit.indices)
        ),
    )
    return n


def evaluate(
    campaign: Campaign, folder: Path, labels: Path, confidence: float
) -> Estimate:
    """Estimate how good the present model is on the folder.

    Parameters
    ----------
    campaign : Campaign
    folder : Path
    labels : Path
        What :func:`draw` wrote, filled in.
    confidence : float

    Returns
    -------
    Estimate

    Raises
    ------
    CampaignError
        If the file is not whole, or an image is not there any more.
    """
    rows = read_labels(labels, more=_DESIGN)
    contents = _contents(folder)
    known = {*campaign.classes, *MARKS, ""}
    problems = [
        f"{row.where}: {row.problem}"
        if row.problem
        else f"{row.where}: {row.label!r} is none of the classes "
        f"{', '.join(campaign.classes)}, nor {', '.join(MARKS)}."
        for row in rows
        if row.problem or row.label not in known
    ]
    problems += [
        f"{row.where}: {row.path!r} is not in the folder any more, or another picture."
        for row in rows
        if row.sha256 not in contents and not row.problem
    ]
    if problems:
        raise LabelFileError(str(labels), problems, len(rows), partial=False)
    audit, rows = _design(labels, rows)
    truth = [row.label if row.label in campaign.classes else None for row in rows]
    files = [str(folder / contents[row.sha256]) for row in rows]
    guessed = _model(campaign).predict(files)
    return estimate(
        audit,
        guessed,
        np.array(truth, dtype=object),
        classes=campaign.classes,
        confidence=confidence,
    )


def _contents(folder: Path) -> dict[str, str]:
    """Paths of readable images by their SHA-256, one of each."""
    found: dict[str, str] = {}
    for path, content in sorted(scan_pool(folder, {}).items()):
        if content.sha256 and content.problem is None:
            found.setdefault(content.sha256, path)
    return found


def _model(campaign: Campaign) -> CNNClassifier:
    estimator = campaign.estimator()
    if not hasattr(estimator, "net_"):
        raise CampaignError("There is no model to measure: teach labels first.")
    return estimator


def _design(name: Path, rows: list[LabelRow]) -> tuple[Audit, list[LabelRow]]:
    """Read the audit from the file's columns, and put its rows in order."""
    try:
        columns = list(zip(*(row.more for row in rows), strict=True))
        places, of = (list(map(int, column)) for column in columns[:2])
        methods = set(columns[2])
        (population,) = set(map(int, columns[3]))
        if sorted(places) != list(range(1, len(rows) + 1)) or set(of) != {len(rows)}:
            raise ValueError("rows are missing or twice there")
        if len(methods) != 1 or not methods <= set(METHODS):
            raise ValueError(f"methods {sorted(methods)}")
        strata, sizes = (np.array(list(map(int, c))) for c in columns[4:6])
        chances = np.array(list(map(float, columns[6])))
        if not (
            np.all((chances > 0) & (chances <= 1 + 1e-9))
            and np.all((sizes >= 1) & (sizes <= population))
            and len(rows) <= population
        ):
            raise ValueError("chances or sizes that cannot be")
    except ValueError as error:
        raise CampaignError(
            f"{str(name)!r} is not the whole audit that 'skadma evaluate --images' "
            f"wrote ({error}). Fill in the column 'label', and leave all other columns "
            "and rows as they were."
        ) from error
    order = np.argsort(places)
    audit = Audit(
        np.arange(len(rows)),
        methods.pop(),
        population,
        strata[order],
        sizes[order],
        chances[order],
    )
    return audit, [rows[i] for i in order]
