"""An adapted network as a safetensors file, with its labels and random state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from .._utils.atomic import file_digest, write_atomically
from ..networks import PretrainedNetwork
from .params import ModelError

_FORMAT = "skadma-model-2"
DAMAGED = (
    safetensors.SafetensorError, ArithmeticError, AttributeError, ImportError,
    LookupError, MemoryError, OSError, RecursionError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""Errors that reading a damaged or foreign file raises."""


def write_network(estimator: Any, path: Path) -> str:
    """Write a fitted classifier's network; return the SHA-256 of the file."""
    source = estimator.source_network_
    random_state = estimator.random_state_.get_state(legacy=False)
    random_state["state"] = {
        key: np.asarray(value).tolist() for key, value in random_state["state"].items()
    }
    metadata = {
        "format": _FORMAT,
        "network": source.name,
        "fingerprint": source.fingerprint,
        "n_frozen": str(estimator.n_frozen_),
        "n_labels": str(estimator.n_labels_),
        "classes": json.dumps(describe_labels(estimator.classes_)),
        "multilabel": json.dumps(bool(estimator.multilabel_)),
        "random_state": json.dumps(random_state),
    }
    write_tensors(estimator.net_.module_.state_dict(), path, metadata)
    return file_digest(path)


def read_network(
    estimator: Any, path: Path, source: PretrainedNetwork | None = None
) -> None:
    """Give a classifier the state that :func:`write_network` wrote.

    It must have the parameters that it had then, and is not changed if the file is not
    one of its networks (ModelError). `source` is by default the estimator's pretrained
    network.
    """
    try:
        source = source or estimator.source_network()
        metadata = _read_metadata(path)
        tensors = safetensors.torch.load_file(path)
        belongs = metadata["network"], metadata["fingerprint"]
        if belongs != (source.name, source.fingerprint):
            raise ValueError(
                f"it was made from {belongs[0]} (weights {belongs[1]}), not from "
                f"{source.name} (weights {source.fingerprint})"
            )
        n_labels = int(metadata["n_labels"])
        if n_labels < 0:
            raise ValueError(f"its 'n_labels' is {n_labels}")
        state = json.loads(metadata["random_state"])
        if not 0 <= state["state"]["pos"] <= 624:  # NumPy reads there unchecked
            raise ValueError(f"its random state is at {state['state']['pos']}")
        random_state = np.random.RandomState()
        random_state.set_state(state)
        classes, multilabel = read_classes(path)
        estimator.restore(
            source,
            tensors,
            classes,
            int(metadata["n_frozen"]),
            n_labels,
            random_state,
            multilabel,
        )
    except DAMAGED as error:
        raise ModelError(f"{str(path)!r} is no model of it: {error}.") from error


def read_classes(path: Path) -> tuple[np.ndarray, bool]:
    """Read a stored network's labels, and whether an image may have several."""
    metadata = _read_metadata(path)
    multilabel = json.loads(metadata["multilabel"])
    if not isinstance(multilabel, bool):
        raise ValueError(f"its 'multilabel' is {multilabel!r}")
    return read_labels(json.loads(metadata["classes"]), multilabel), multilabel


def _read_metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r}")
    return metadata


def write_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]
) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    # Of tied weights each name gets a copy: the format has no shared memory.
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}

    def write(tmp_path: Path) -> None:
        try:
            safetensors.torch.save_file(own, tmp_path, metadata)
        except safetensors.SafetensorError as error:  # a full disk, too
            raise OSError(str(error)) from error

    write_atomically(path, write)


def describe_labels(classes: np.ndarray) -> dict[str, Any]:
    """Describe labels as JSON: their type and their values."""
    values = classes.tolist()
    name = {"U": "str", "O": "object"}.get(classes.dtype.kind, classes.dtype.name)
    if all(type(value) in (bool, int, float, str) for value in values):
        return {"dtype": name, "values": values}
    raise ModelError(
        f"The labels {values[:3]} have the type {classes.dtype}. Labels that are "
        "saved are bool, int, float or str: train with y as one of these."
    )


def read_labels(described: dict[str, Any], multilabel: bool) -> np.ndarray:
    """Make labels of :func:`describe_labels`' description; sorted if not multilabel."""
    name, values = described["dtype"], described["values"]
    dtype = np.dtype(str(name))
    if dtype.kind not in "biufUO" or dtype.itemsize > 8 or not isinstance(values, list):
        raise ValueError(f"its labels are of the type {name!r}")
    classes = np.array(values, dtype=dtype)
    if classes.ndim != 1 or classes.tolist() != values or not values:
        raise ValueError(f"its labels are not of the type {name!r} that it names")
    if not multilabel and not np.array_equal(np.unique(classes), classes):
        raise ValueError("its labels are not sorted and different")
    return classes
