"""A fitted classifier as a folder: safetensors and JSON, with checksums."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from .._utils.atomic import file_digest, replace_folder
from ..images.dataset import Preprocessing
from ..networks.engines import Engine
from ..networks.pretrained import PretrainedNetwork, rebuild_pretrained
from .errors import ModelError
from .network_file import read_network, write_network, write_tensors
from .params import build_estimator, describe_params

if TYPE_CHECKING:
    from ..classifier import CNNClassifier

_Estimator = TypeVar("_Estimator", bound="CNNClassifier")
_FORMAT = "skadma-model"
_VERSION = 1
DESCRIPTION, _NETWORK, _SOURCE = "model.json", "model.safetensors", "source.safetensors"
_OF_THE_MACHINE = ("memory", "device")
_MOST = 2**26
"""Numbers in one input, so that a forged file does not fill the memory."""


def save_model(
    estimator: CNNClassifier,
    folder: str | Path,
    *,
    overwrite: bool = False,
    more: Callable[[Path], object] | None = None,
) -> None:
    """Write a fitted classifier to a folder, whole or not at all.

    Parameters
    ----------
    estimator : CNNClassifier
        Fitted.
    folder : str or Path
        New, or with `overwrite` a folder with a model, which is replaced.
    overwrite : bool, default=False
    more : callable, optional
        Writes further files into the folder that it is given.

    Raises
    ------
    ModelError
        If it cannot be stored, the folder is there already, or the disk is full.
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

    def write(part: Path) -> None:
        _write_files(estimator, part, params, list(refused))
        if more is not None:
            more(part)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, write)
    except OSError as error:
        raise ModelError(
            f"The model could not be saved in {str(folder)!r} ({error}); what was "
            "there before is untouched. Is the disk full, or are rights missing?"
        ) from error


def refuse_folder(folder: Path, overwrite: bool) -> None:
    """Refuse to write where something is, before the work is done.

    Raises
    ------
    ModelError
    """
    if not folder.exists() and not folder.is_symlink():
        return
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


def load_model(
    cls: type[_Estimator],
    folder: str | Path,
    *,
    backbone: Callable[[], nn.Module] | None = None,
) -> _Estimator:
    """Read a classifier that :func:`save_model` wrote.

    Nothing that the folder holds is run, and nothing is downloaded: the weights of
    the pretrained network are in the folder as well.

    Parameters
    ----------
    cls : type
        CNNClassifier, or the subclass that was saved.
    folder : str or Path
    backbone : callable, optional
        The network, for a model with a callable backbone.

    Returns
    -------
    CNNClassifier

    Raises
    ------
    ModelError
        If it is damaged, of a newer skadma, or of another class.
    """
    folder = Path(folder).absolute()
    described = _read_description(folder)
    try:
        for name in (_NETWORK, _SOURCE):
            if not (folder / name).is_file():
                raise ValueError(f"its file {name} is missing")
            if file_digest(folder / name) != described["files"][name]:
                raise ValueError(f"its file {name} was damaged or changed")
        known: dict[str, type[_Estimator]] = _with_subclasses(cls)
        if described["class"] not in known:
            raise ModelError(
                f"The model in {str(folder)!r} is a {described['class']!r}, and "
                f"{cls.__name__}.load reads {', '.join(known)}."
            )
        estimator = build_estimator(
            known[described["class"]],
            described["params"],
            backbone,
            owner="model",
            how=f"{cls.__name__}.load(folder, backbone=...)",
        )
        if backbone is not None and isinstance(described["params"]["backbone"], str):
            raise ModelError(
                f"The network of the model in {str(folder)!r} is "
                f"{described['params']['backbone']!r}, so no backbone= is to be given."
            )
        estimator._validate_params()
        source = _read_source(estimator, described, folder)
        read_network(estimator, folder / _NETWORK, source)
        _set_features(estimator, described)
        left_out = [str(name) for name in described["left_out"]]
    except ModelError:
        raise
    except _WRONG as error:
        raise _no_model(folder, error) from error
    if left_out:
        warnings.warn(
            f"The model was saved without {', '.join(left_out)}. It predicts the same; "
            "set them before it is trained further.",
            stacklevel=3,
        )
    return estimator


_WRONG = (
    safetensors.SafetensorError, ArithmeticError, AttributeError, ImportError,
    LookupError, MemoryError, OSError, RecursionError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What damaged or foreign files lead to."""


def _write_files(
    estimator: CNNClassifier, folder: Path, params: dict, left_out: list[str]
) -> None:
    source = estimator.source_network_
    own = estimator.net_.module_.network.state_dict()
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
        "skadma": _own_version(),
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
    text = json.dumps({**described, "sha256": _digest(described)}, indent=1)
    (folder / DESCRIPTION).write_text(text + "\n", "utf-8")


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
                f"({described.get('skadma')}; its format is {version}, this one knows "
                f"{_VERSION}): upgrade skadma."
            )
        digest = described.pop("sha256")
        if version != _VERSION or _digest(described) != digest:
            raise ValueError(f"{DESCRIPTION} was damaged or changed")
    except ModelError:
        raise
    except _WRONG as error:
        raise _no_model(folder, error) from error
    return described


def _no_model(folder: Path, error: BaseException) -> ModelError:
    said = f"its {DESCRIPTION} lacks {error}" if type(error) is KeyError else error
    return ModelError(
        f"{str(folder)!r} is no intact model of skadma: {said}. Copy the whole folder "
        "again from where it was saved."
    )


def _digest(described: dict[str, Any]) -> str:
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_source(
    estimator: CNNClassifier, described: dict[str, Any], folder: Path
) -> PretrainedNetwork:
    """M0: its weights are those of the adapted network but where they differ."""
    stored_network = safetensors.torch.load_file(folder / _NETWORK)
    new = {f"network.{name}" for name in described.get("not_of_source", ())}
    tensors = {
        name.removeprefix("network."): tensor
        for name, tensor in stored_network.items()
        if name.startswith("network.") and name not in new
    }
    tensors |= safetensors.torch.load_file(folder / _SOURCE)
    shape = tuple(described["input_shape"])
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in described["preprocessing"].items()
    }
    preprocessing = Preprocessing(**stored)
    sides = (preprocessing.image_size, preprocessing.resize_size, *shape)
    if not all(type(side) is int and 0 < side <= _MOST for side in sides) or (
        math.prod(shape) > _MOST
    ):
        raise ValueError(f"it is for inputs of shape {shape}")
    names = described["source_classes"]
    try:
        source = rebuild_pretrained(
            estimator.backbone,
            name=str(described["network"]),
            state_dict=tensors,
            preprocessing=preprocessing,
            class_names=None if names is None else tuple(map(str, names)),
            example=torch.zeros(1, *shape),
            engine=Engine(estimator.engine, estimator.precision),
        )
    except _WRONG as error:
        raise ModelError(
            f"The model in {str(folder)!r} is of the network {described['network']!r}, "
            f"and what backbone= gives, or the package that has it, is another one: "
            f"{error}"
        ) from error
    if source.fingerprint != described["fingerprint"]:
        raise ValueError("the pretrained weights are not those that it names")
    return source


def _set_features(estimator: CNNClassifier, described: dict[str, Any]) -> None:
    """What scikit-learn checks of tables."""
    shape, names = described["input_shape"], described["features"]
    if len(shape) == 1:
        estimator.n_features_in_ = shape[0]
    if names is not None:
        estimator.feature_names_in_ = np.array(list(map(str, names)), dtype=object)


def _with_subclasses(cls: type[_Estimator]) -> dict[str, type[_Estimator]]:
    found = {cls.__name__: cls}
    for sub in cls.__subclasses__():  # type: type[_Estimator]
        found |= _with_subclasses(sub)
    return found


def _own_version() -> str:
    from .. import __version__  # which is there once all of skadma is imported

    return __version__
