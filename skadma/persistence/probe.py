"""A probe of embeddings made elsewhere as a folder: JSON and a card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..training.probe_classifier import ProbeClassifier
from .card import CardFacts, make_card
from .folder import DESCRIPTION, json_digest, refuse_folder, write_folder
from .network_file import DAMAGED, describe_labels, read_labels
from .params import ModelError

_FORMAT = "skadma-probe-1"
_ARRAYS = "center_", "coef_", "intercept_", "sharpness_"


def save_probe(
    probe: ProbeClassifier,
    folder: str | Path,
    features: str,
    facts: CardFacts,
    *,
    overwrite: bool = False,
) -> None:
    """Write a fitted probe with a card, for the embedding of a name, whole or not."""
    folder = Path(folder).absolute()
    refuse_folder(folder, overwrite)
    described = {
        **{"format": _FORMAT, "features": features, "n_labels": probe.n_labels_},
        "labels": describe_labels(probe.classes_),
        **({"multilabel": True} if probe.multilabel_ else {}),
        **{name: getattr(probe, name).tolist() for name in _ARRAYS},
    }
    text = json.dumps({**described, "sha256": json_digest(described)})
    card = make_card(probe, facts, features=features)

    def write(tmp_path: Path) -> None:
        (tmp_path / DESCRIPTION).write_text(text, "utf-8")
        (tmp_path / "README.md").write_text(card, "utf-8")

    write_folder(folder, write)


def load_probe(folder: str | Path) -> tuple[ProbeClassifier, str]:
    """Read a model of embeddings that ``skadma export-model`` wrote.

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
    try:
        described = json.loads((Path(folder) / DESCRIPTION).read_bytes())
        if described["format"] != _FORMAT:
            raise ValueError("it is a network's, which takes images and no table")
        if described.pop("sha256") != json_digest(described):
            raise ValueError(f"{DESCRIPTION} was damaged or changed")
        probe = ProbeClassifier()
        for name in _ARRAYS:
            setattr(probe, name, np.array(described[name], dtype=np.float64))
        probe.multilabel_ = described.get("multilabel", False) is True
        probe.classes_ = read_labels(described["labels"], probe.multilabel_)
        probe.n_labels_ = described["n_labels"]
        probe.n_features_in_ = len(probe.center_)
        if probe.decision_function(probe.center_[None]).size > len(probe.classes_):
            raise ValueError("it has more scores than labels")
        return probe, str(described["features"])
    except DAMAGED as error:
        why = f"{str(folder)!r} is no intact model of a table of embeddings: {error}."
        raise ModelError(why) from error
