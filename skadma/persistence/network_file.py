"""An adapted network as a safetensors file, with all that goes on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from .._utils.atomic import file_digest, write_atomically
from ..networks import PretrainedNetwork
from .errors import ModelError

if TYPE_CHECKING:
    from ..classifier import CNNClassifier

_FORMAT = "skadma-model-2"


def write_network(estimator: CNNClassifier, path: Path) -> str:
    """Write a fitted classifier's network, labels and random state.

    Parameters
    ----------
    estimator : CNNClassifier
    path : Path

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    ModelError
        If its labels cannot be stored.
    OSError
        If the file cannot be written.
    """
    source = estimator.source_network_
    metadata = {
        "format": _FORMAT,
        "network": source.name,
        "fingerprint": source.fingerprint,
        "n_frozen": str(estimator.n_frozen_),
        "n_labels": str(estimator.n_labels_),
        "classes": json.dumps(describe_labels(estimator.classes_)),
        "multilabel": json.dumps(bool(estimator.multilabel_)),
        "random_state": json.dumps(
            _listed(estimator.random_state_.get_state(legacy=False))
        ),
    }
    write_tensors(estimator.net_.module_.state_dict(), path, metadata)
    return file_digest(path)


def read_network(
    estimator: CNNClassifier, path: Path, source: PretrainedNetwork | None = None
) -> None:
    """Give a classifier the state that :func:`write_network` wrote.

    Parameters
    ----------
    estimator : CNNClassifier
        With the parameters that it had then. Changed only if all is well.
    path : Path
    source : PretrainedNetwork, optional
        M0, where it is at hand; else the estimator's.

    Raises
    ------
    ModelError
        If the file is none of this classifier.
    """
    try:
        source = source or estimator.source_network()
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        belongs = metadata["network"], metadata["fingerprint"]
        if belongs != (source.name, source.fingerprint):
            raise ValueError(
                f"it was made from {belongs[0]} (weights {belongs[1]}), not from "
                f"{source.name} (weights {source.fingerprint})"
            )
        n_labels = int(metadata["n_labels"])
        random_state = np.random.RandomState()
        random_state.set_state(json.loads(metadata["random_state"]))
        n_frozen = int(metadata["n_frozen"])
        multilabel = json.loads(metadata["multilabel"])
        if not isinstance(multilabel, bool):
            raise ValueError(f"its 'multilabel' is {multilabel!r}")
        classes = read_labels(json.loads(metadata["classes"]), multilabel=multilabel)
        estimator.restore(
            source, tensors, classes, n_frozen, n_labels, random_state, multilabel
        )
    except (
        safetensors.SafetensorError,
        OSError,
        AttributeError,
        LookupError,
        MemoryError,
        OverflowError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ModelError(f"{str(path)!r} is no model of it: {error}.") from error


def write_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]
) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    # Of tied weights each name gets a copy: the format has no shared memory.
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}

    def write(part: Path) -> None:
        try:
            safetensors.torch.save_file(own, part, metadata)
        except safetensors.SafetensorError as error:  # a full disk, too
            raise OSError(str(error)) from error

    write_atomically(path, write)


def describe_labels(classes: np.ndarray) -> dict[str, Any]:
    """Describe labels as JSON: their type and their values.

    Raises
    ------
    ModelError
        If they are neither bool, int, float nor str.
    """
    values = classes.tolist()
    name = {"U": "str", "O": "object"}.get(classes.dtype.kind, classes.dtype.name)
    if all(type(value) in (bool, int, float, str) for value in values):
        return {"dtype": name, "values": values}
    raise ModelError(
        f"The labels {values[:3]} have the type {classes.dtype}. Labels that are "
        "saved are bool, int, float or str: train with y as one of these."
    )


def read_labels(described: dict[str, Any], *, multilabel: bool) -> np.ndarray:
    """Make labels of what :func:`describe_labels` wrote.

    Parameters
    ----------
    described : dict
    multilabel : bool
        They are in the order of the columns of y, sorted or not.

    Raises
    ------
    ValueError, TypeError, KeyError
        If they are none, or not sorted and different as a classifier's are.
    """
    name, values = described["dtype"], described["values"]
    dtype = np.dtype(str(name))
    if dtype.kind not in "biufUO" or dtype.itemsize > 8 or not isinstance(values, list):
        raise ValueError(f"its labels are of the type {name!r}")
    classes = np.array(values, dtype=dtype)
    if classes.ndim != 1 or classes.tolist() != values or not values:
        raise ValueError(f"its labels are not of the type {name!r} that it says")
    if not multilabel and not np.array_equal(np.unique(classes), classes):
        raise ValueError("its labels are not sorted and different")
    return classes


def _listed(state: dict[str, Any]) -> dict[str, Any]:
    """NumPy's random state with lists for arrays."""
    inner = {k: np.asarray(v).tolist() for k, v in state["state"].items()}
    return {**state, "state": inner}
