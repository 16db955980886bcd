"""A fitted classifier as a folder: safetensors and JSON, with checksums."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from torch import nn

from .. import __version__
from .._utils.atomic import file_digest, replace_folder
from ..images.dataset import Preprocessing
from ..networks.engines import Engine
from ..networks.pretrained import PretrainedNetwork, rebuild_pretrained
from .network_file import (
    DAMAGED,
    read_classes,
    read_network,
    write_network,
    write_tensors,
)
from .params import ModelError, build_estimator, check_params, describe_params

_Estimator = TypeVar("_Estimator")
_FORMAT = "skadma-model"
_VERSION = 1
DESCRIPTION = "model.json"
_NETWORK, _SOURCE = "model.safetensors", "source.safetensors"
_OF_THE_MACHINE = ("memory", "device")
_TYPES = {
    "class": str,
    "params": dict,
    "left_out": list,
    "network": str,
    "fingerprint": str,
    "preprocessing": dict,
    "source_classes": list | None,
    "input_shape": list,
    "features": list | None,
    "not_of_source": list,
    "files": dict,
}
"""What the description has, beside its format, version and checksum."""
_MOST = 2**26
"""Numbers in one input, so that a forged file does not fill the memory."""
_SIDE = 2**13
_PREPROCESSING = {
    "image_size": [Interval(Integral, 1, _SIDE, closed="both")],
    "resize_size": [Interval(Integral, 1, _SIDE, closed="both")],
    "interpolation": [StrOptions({"bilinear", "bicubic"})],
    "crop_mode": [StrOptions({"center", "squash"})],
    "reduced": ["boolean"],
}


def save_model(
    estimator: Any,
    folder: str | Path,
    *,
    overwrite: bool = False,
    more: Callable[[Path], object] | None = None,
) -> None:
    """Write a fitted classifier to a folder, whole or not at all.

    `more` writes further files into the folder that it is given.
    """
    folder = Path(folder).absolute()
    refuse_folder(folder, overwrite)
    params, refused = describe_params(estimator, _OF_THE_MACHINE)
    if refused:
        warnings.warn(
            f"{', '.join(refused)}: no plain values, so the saved model is without "
            "them. It predicts the same; set them again before it is trained further.",
            stacklevel=3,
        )

    def write(tmp_path: Path) -> None:
        _write_files(estimator, tmp_path, params, list(refused))
        if more is not None:
            more(tmp_path)

    write_folder(folder, write)


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a model's folder, whole or not at all; ModelError if it cannot be."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, write)
    except OSError as error:
        raise ModelError(
            f"The model could not be saved in {str(folder)!r} ({error}); what was "
            "there before is untouched. Is the disk full, or are rights missing?"
        ) from error


def refuse_folder(folder: Path, overwrite: bool) -> None:
    """Raise a ModelError, before the work is done, if `folder` must not be written."""
    if not folder.exists() and not folder.is_symlink():
        above = next(p for p in folder.parents if p.exists() or p.is_symlink())
        if above.is_dir() and os.access(above, os.W_OK):
            return
        raise ModelError(f"Nothing can be written to {str(above)!r}.")
    if folder.is_dir() and not folder.is_symlink():
        if not any(folder.iterdir()):
            return
        if (folder / DESCRIPTION).is_file():
            if overwrite:
                return
            raise ModelError(
                f"There is a model in {str(folder)!r} already. Choose another folder, "
                "or write over it with --overwrite (overwrite=True)."
            )
    raise ModelError(
        f"{str(folder)!r} is there already and is no folder of a model, so nothing is "
        "written over it. Choose another folder."
    )


def _write_files(
    estimator: Any, folder: Path, params: dict[str, Any], left_out: list[str]
) -> None:
    source = estimator.source_network_
    own = estimator.net_.module_.network.state_dict()
    # Frozen weights are in the adapted network's file already.
    pretrained = {
        name: tensor
        for name, tensor in source.module.state_dict().items()
        if not torch.equal(tensor.cpu(), own[name].cpu())
    }
    digest = write_network(estimator, folder / _NETWORK)
    write_tensors(pretrained, folder / _SOURCE, {"format": "pt"})
    names = getattr(estimator, "feature_names_in_", None)
    described = {
        "format": _FORMAT,
        "version": _VERSION,
        "skadma": __version__,
        "class": type(estimator).__name__,
        "params": params,
        "left_out": left_out,
        "network": source.name,
        "fingerprint": source.fingerprint,
        "preprocessing": asdict(source.preprocessing),
        "source_classes": source.class_names and list(source.class_names),
        "input_shape": list(source.example.shape[1:]),
        "features": None if names is None else [str(name) for name in names],
        "not_of_source": sorted(own.keys() - source.module.state_dict().keys()),
        "files": {_NETWORK: digest, _SOURCE: file_digest(folder / _SOURCE)},
    }
    text = json.dumps({**described, "sha256": json_digest(described)}, indent=1)
    (folder / DESCRIPTION).write_text(text + "\n", "utf-8")


def load_model(
    cls: type[_Estimator],
    folder: str | Path,
    *,
    backbone: Callable[[], nn.Module] | None = None,
) -> _Estimator:
    """Read a classifier of `cls`, or of a subclass, that :func:`save_model` wrote.

    Nothing in the folder is run, and nothing is downloaded: the weights of the
    pretrained network are in the folder as well. `backbone` is the network of a model
    with a callable one. ModelError if the model is damaged, of a newer skadma, or of
    another class.
    """
    folder = Path(folder).absolute()
    described = _read_description(folder)
    try:
        for name in (_NETWORK, _SOURCE):
            if not (folder / name).is_file():
                raise ValueError(f"its file {name} is missing")
            if file_digest(folder / name) != described["files"].get(name):
                raise ValueError(f"its file {name} was damaged or changed")
        params = described["params"]
        if not_saved := params.keys() & _OF_THE_MACHINE:
            raise ValueError(f"{DESCRIPTION} has the parameters {sorted(not_saved)}")
        estimator: Any = build_estimator(
            _find_class(cls, described["class"], folder),
            params,
            backbone,
            owner=f"the model {str(folder / DESCRIPTION)!r}",
            how=f"{cls.__name__}.load(folder, backbone=...)",
        )
        if backbone is not None and isinstance(params["backbone"], str):
            raise ModelError(
                f"The network of the model in {str(folder)!r} is "
                f"{params['backbone']!r}, so no backbone= is to be given."
            )
        try:
            check_params(estimator, *read_classes(folder / _NETWORK))
        except RecursionError as error:
            what = f"in {DESCRIPTION} a parameter is nested too deeply"
            raise ValueError(what) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"in {DESCRIPTION}, {error}") from error
        source = _read_source(estimator, described, folder)
        read_network(estimator, folder / _NETWORK, source)
        # What scikit-learn checks in tables.
        if len(described["input_shape"]) == 1:
            estimator.n_features_in_ = described["input_shape"][0]
        if described["features"] is not None:
            estimator.feature_names_in_ = np.array(described["features"], dtype=object)
        left_out = described["left_out"]
    except ModelError:
        raise
    except DAMAGED as error:
        raise _not_intact(folder, error) from error
    if left_out:
        warnings.warn(
            f"The model was saved without {', '.join(left_out)}. It predicts the same; "
            "set them before it is trained further.",
            stacklevel=3,
        )
    return estimator


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        old = folder.with_name(f".{folder.name}.old")
        found = (
            f" The one before is in {str(old)!r}: rename it." if old.exists() else ""
        )
        raise ModelError(
            f"There is no model in {str(folder)!r}: no {DESCRIPTION}. Models are "
            f"written by CNNClassifier.save and skadma export-model.{found}"
        )
    try:
        described = json.loads(path.read_bytes())
        if not isinstance(described, dict) or described.get("format") != _FORMAT:
            raise ValueError(f"{DESCRIPTION} is none of skadma's")
        version = described["version"]
        if type(version) is int and version > _VERSION:
            raise ModelError(
                f"The model in {str(folder)!r} is of a newer skadma "
                f"({described.get('skadma')}; its format is {version}, this one reads "
                f"{_VERSION}): upgrade skadma."
            )
        digest = described.pop("sha256")
        if version != _VERSION or json_digest(described) != digest:
            raise ValueError(f"{DESCRIPTION} was damaged or changed")
        for name, kind in _TYPES.items():
            value = described.get(name)
            of_names = isinstance(value, list) and name != "input_shape"
            if not isinstance(value, kind) or (
                of_names and not all(isinstance(item, str) for item in value)
            ):
                raise ValueError(f"{name!r} in {DESCRIPTION} is {reprlib.repr(value)}")
    except ModelError:
        raise
    except DAMAGED as error:
        raise _not_intact(folder, error) from error
    return described


def _not_intact(folder: Path, error: BaseException) -> ModelError:
    reason = f"its {DESCRIPTION} lacks {error}" if type(error) is KeyError else error
    return ModelError(
        f"{str(folder)!r} is no intact model of skadma: {reason}. Copy the whole "
        "folder again from where it was saved."
    )


def json_digest(described: dict[str, Any]) -> str:
    """Compute the SHA-256 of JSON values."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _find_class(cls: type[_Estimator], name: str, folder: Path) -> type[_Estimator]:
    """Return `cls` or the subclass of it that has the name."""
    package = importlib.import_module("skadma")
    if name in package.__all__:
        getattr(package, name)  # its public classes are imported on first use
    known, left = {}, [cls]
    while left:
        one = left.pop()
        known[one.__name__] = one
        left += reversed(one.__subclasses__())
    if name not in known:
        raise ModelError(
            f"The model in {str(folder)!r} is a {name!r}, and {cls.__name__}.load "
            f"reads {', '.join(known)}."
        )
    return known[name]


def _read_source(
    estimator: Any, described: dict[str, Any], folder: Path
) -> PretrainedNetwork:
    """Rebuild the pretrained network: frozen weights are the adapted network's."""
    stored_network = safetensors.torch.load_file(folder / _NETWORK)
    new = {f"network.{name}" for name in described["not_of_source"]}
    tensors = {
        name.removeprefix("network."): tensor
        for name, tensor in stored_network.items()
        if name.startswith("network.") and name not in new
    }
    tensors |= safetensors.torch.load_file(folder / _SOURCE)
    preprocessing = _read_preprocessing(described["preprocessing"])
    shape, side = described["input_shape"], preprocessing.image_size
    images = shape == [3, side, side]
    rows = len(shape) == 1 and type(shape[0]) is int and 0 < shape[0] <= _MOST
    if not images and not rows:
        raise ValueError(
            f"'input_shape' in {DESCRIPTION} is {reprlib.repr(shape)}, for images of "
            f"{side} x {side} pixels"
        )
    names = described["source_classes"]
    try:
        source = rebuild_pretrained(
            estimator.backbone,
            name=described["network"],
            state_dict=tensors,
            preprocessing=preprocessing,
            class_names=None if names is None else tuple(names),
            example=torch.zeros(1, *shape),
            engine=Engine(estimator.engine, estimator.precision),
        )
    except DAMAGED as error:
        raise ModelError(
            f"The model in {str(folder)!r} is of the network {described['network']!r}, "
            f"and what backbone= gives, or the package that has it, is another one: "
            f"{error}"
        ) from error
    if source.fingerprint != described["fingerprint"]:
        raise ValueError("the pretrained weights are not those that it names")
    return source


def _read_preprocessing(stored: dict[str, Any]) -> Preprocessing:
    """Read how images are prepared; ValueError on what no network has."""
    where = f"'preprocessing' in {DESCRIPTION}"
    names = [field.name for field in fields(Preprocessing)]
    if sorted(stored) != sorted(names):
        raise ValueError(f"{where} has {sorted(stored)}, not {sorted(names)}")
    validate_parameter_constraints(_PREPROCESSING, stored, where)
    mean, std, value_range = (stored[k] for k in ("mean", "std", "value_range"))
    for name, right in (
        ("mean", _are_numbers(mean, 3)),
        ("std", _are_numbers(std, 3) and min(std) > 0),
        (
            "value_range",
            value_range is None
            or (_are_numbers(value_range, 2) and value_range[0] < value_range[1]),
        ),
    ):
        if not right:
            raise ValueError(f"{name!r} of {where} is {reprlib.repr(stored[name])}")
    read: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
    }
    return Preprocessing(**read)


def _are_numbers(value: Any, n: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == n
        and all(type(x) in (int, float) and abs(x) < 2**64 for x in value)
    )
