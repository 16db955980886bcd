"""A probe of embeddings made elsewhere as a folder: JSON, safetensors and a card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from .._utils.atomic import file_digest, replace_folder
from ..training.probe_classifier import ProbeClassifier
from .card import CardFacts, make_card
from .folder import json_digest, refuse_folder
from .network_file import DAMAGED, describe_labels, read_labels
from .params import ModelError

_DESCRIPTION, _ARRAYS = "model.json", "model.safetensors"
_NAMES = "center_", "coef_", "intercept_", "sharpness_"


def save_probe(
    probe: ProbeClassifier,
    folder: str | Path,
    features: str,
    facts: CardFacts,
    *,
    overwrite: bool = False,
) -> None:
    """Write a fitted probe of one block, with the name of its embedding.

    The folder is there whole or not at all, and `load_probe` reads it.
    """
    folder = Path(folder).absolute()
    refuse_folder(folder, overwrite)

    def write(tmp_path: Path) -> None:
        arrays = {name: np.ascontiguousarray(getattr(probe, name)) for name in _NAMES}
        (tmp_path / _ARRAYS).write_bytes(safetensors.numpy.save(arrays))
        described = {
            "format": "skadma-probe-1",
            "features": features,
            "labels": describe_labels(probe.classes_),
            "n_labels": probe.n_labels_,
            "file": file_digest(tmp_path / _ARRAYS),
        }
        text = json.dumps({**described, "sha256": json_digest(described)}, indent=1)
        (tmp_path / _DESCRIPTION).write_text(text + "\n", "utf-8")
        card = make_card(probe, facts, features=features)
        (tmp_path / "README.md").write_text(card, "utf-8")

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, write)
    except OSError as error:
        raise ModelError(
            f"The model could not be saved in {str(folder)!r} ({error}); what was "
            "there before is untouched. Is the disk full, or are rights missing?"
        ) from error


def load_probe(folder: str | Path) -> tuple[ProbeClassifier, str]:
    """Read a probe that ``skadma export-model`` wrote for a table of embeddings.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    probe : ProbeClassifier
    features : str
        The name of the embedding whose rows it takes.

    Raises
    ------
    ModelError
        If it is no such model, or damaged.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / _DESCRIPTION).read_bytes())
        if described["format"] != "skadma-probe-1":
            raise ValueError("it is a network's, which takes images and no table")
        if described.pop("sha256") != json_digest(described):
            raise ValueError(f"{_DESCRIPTION} was damaged or changed")
        if file_digest(folder / _ARRAYS) != described["file"]:
            raise ValueError(f"{_ARRAYS} was damaged or changed")
        probe = ProbeClassifier()
        arrays = safetensors.numpy.load_file(folder / _ARRAYS)
        for name in _NAMES:
            setattr(probe, name, arrays[name])
        probe.multilabel_ = False
        probe.classes_ = read_labels(described["labels"], multilabel=False)
        probe.n_labels_ = int(described["n_labels"])
        n, probe.n_features_in_ = len(probe.classes_), len(probe.center_)
        if (probe.coef_ @ probe.center_ + probe.intercept_).shape != (n,):
            raise ValueError("its arrays do not fit its labels")
        return probe, str(described["features"])
    except DAMAGED as error:
        raise ModelError(
            f"{str(folder)!r} is no intact model of a table of embeddings: {error}."
        ) from error
