"""An adapted network as a safetensors file, with all that goes on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from ..backbones import AdaptedNetwork
from ..backbones.weights import load_into
from ..classifier import CNNClassifier
from ..files import file_digest, write_atomically
from .store import CampaignError

_FORMAT = "skadma-model-1"


def save_model(estimator: CNNClassifier, path: Path) -> str:
    """Write a fitted classifier's network and random state.

    Parameters
    ----------
    estimator : CNNClassifier
    path : Path

    Returns
    -------
    str
        SHA-256 of the file.
    """
    source = estimator.source_network_
    state = estimator.random_state_.get_state(legacy=False)
    metadata = {
        "format": _FORMAT,
        "network": source.name,
        "fingerprint": source.fingerprint,
        "n_frozen": str(estimator.n_frozen_),
        "n_labels": str(estimator.n_labels_),
        "classes": json.dumps(estimator.classes_.tolist()),
        "random_state": json.dumps(_listed(state)),
    }
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in estimator.net_.module_.network.state_dict().items()
    }
    write_atomically(
        path, lambda part: safetensors.torch.save_file(tensors, part, metadata)
    )
    return file_digest(path)


def load_model(estimator: CNNClassifier, path: Path) -> None:
    """Give a classifier the state that :func:`save_model` wrote.

    Parameters
    ----------
    estimator : CNNClassifier
        With the parameters that it had then.
    path : Path

    Raises
    ------
    CampaignError
        If the file is none of this classifier.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        source = estimator.source_network()
        belongs = metadata["network"], metadata["fingerprint"]
        if belongs != (source.name, source.fingerprint):
            raise ValueError(
                f"it was made from {belongs[0]} (weights {belongs[1]}), not from "
                f"{source.name} (weights {source.fingerprint})"
            )
        classes = np.array(json.loads(metadata["classes"]))
        n_frozen, n_labels = estimator.n_frozen, int(metadata["n_labels"])
        if classes.ndim != 1 or int(metadata["n_frozen"]) != n_frozen:
            raise ValueError("it has other classes or other frozen layers")
        random_state = np.random.RandomState()
        random_state.set_state(json.loads(metadata["random_state"]))
        network = AdaptedNetwork(
            source, len(classes), n_frozen, estimator.batch_norm == "update"
        )
        load_into(network.network, tensors, source.name)
    except (
        safetensors.SafetensorError,
        OSError,
        AttributeError,
        LookupError,
        OverflowError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise CampaignError(f"{str(path)!r} is no model of it: {error}.") from error
    estimator.restore(network, source, classes, n_labels, random_state)


def _listed(state: dict[str, Any]) -> dict[str, Any]:
    """NumPy's random state with lists for arrays."""
    inner = {k: np.asarray(v).tolist() for k, v in state["state"].items()}
    return {**state, "state": inner}
