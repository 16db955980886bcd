"""An estimator's parameters as JSON: names and plain values, never pickles."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Callable, Collection
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

if TYPE_CHECKING:
    from torch import nn

_Estimator = TypeVar("_Estimator")
_GIVEN = "<given on opening>"
_OF_TRAINING = (
    "criterion", "optimizer", "net_params", "class_weight", "classes", "callbacks",
    "train_split", "training", "batch_norm",
)  # fmt: skip


def _class_params() -> dict[str, Any]:
    """Parameters that are classes of a module, stored by name: module and base."""
    from torch import nn, optim

    return {"optimizer": (optim, optim.Optimizer), "criterion": (nn, nn.Module)}


class ModelError(ValueError):
    """A model cannot be saved, loaded or exported; the message names a remedy."""


def describe_params(
    estimator: Any, without: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, ModelError]]:
    """Return an estimator's parameters as plain values, and those that have none.

    A callable backbone becomes a dict with its name only. Parameters in `without` are
    left out of both.
    """
    described: dict[str, Any] = {}
    refused: dict[str, ModelError] = {}
    for name, value in estimator.get_params(deep=False).items():
        if name in without:
            continue
        try:
            described[name] = _describe(name, value, type(estimator).__name__)
        except ModelError as error:
            refused[name] = error
    return described, refused


def _describe(name: str, value: Any, owner: str) -> Any:
    from torch import nn

    from ..networks.registry import is_weights_file

    known = _class_params()
    if name == "backbone" and callable(value) and not isinstance(value, nn.Module):
        return {_GIVEN: getattr(value, "__name__", type(value).__name__)}
    if name in known and isinstance(value, type):
        class_name = value.__name__
        if getattr(known[name][0], class_name, None) is value:
            return class_name
    if name == "weights" and value is not None and is_weights_file(value):
        return str(Path(value).absolute())
    if name == "classes" and value is not None:
        value = np.asarray(value).tolist()
    return plain(value, f"{owner}({name}=...)")


def plain(value: Any, what: str) -> Any:
    """Convert a value to JSON types; ModelError where it is not made of plain values.

    `what` names the value in the message.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        value = str(value.absolute())
    if isinstance(value, (list, tuple)):
        return [plain(item, what) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item, what) for key, item in value.items()}
    finite = not isinstance(value, float) or math.isfinite(value)
    if value is None or (isinstance(value, (bool, int, float, str)) and finite):
        return value
    raise ModelError(
        f"{what} is {value!r}. Only plain values are stored (numbers, strings, "
        "lists), so that a file from elsewhere can run nothing."
    )


def build_estimator(
    cls: Callable[..., _Estimator],
    described: dict[str, Any],
    backbone: Callable[[], nn.Module] | None,
    *,
    owner: str,
    how: str,
    **more: Any,
) -> _Estimator:
    """Build an estimator from what :func:`describe_params` returned, and `more`.

    In messages `owner` has the description, and `how` is the call that gives a callable
    backbone. No name in the description is imported.
    """
    params = dict(described)
    name = params.get("backbone")
    if isinstance(name, dict):
        if backbone is None:
            raise ModelError(
                f"The network of {owner} is the callable {name.get(_GIVEN)!r}, of "
                f"which only the name is stored. Give it: {how}."
            )
        params["backbone"] = backbone
    elif not isinstance(name, str) or ":" in name:
        # timm would fetch "hf-hub:..." and read "local-dir:...".
        raise ModelError(f"The backbone {name!r} of {owner} is no network's name.")
    for key, (module, base) in _class_params().items():
        if key in params:
            found = getattr(module, str(params[key]), None)
            if not (isinstance(found, type) and issubclass(found, base)):
                raise ModelError(
                    f"The {key} {params[key]!r} of {owner} is none of "
                    f"{module.__name__}'s."
                )
            params[key] = found
    for key in ("image_shape", "value_range"):
        if isinstance(params.get(key), list):
            params[key] = tuple(params[key])
    try:
        return cls(**params, **more)
    except TypeError as error:
        raise ModelError(f"The estimator of {owner} is not known: {error}") from error


# --- checks ---------------------------------------------------------------------------


def check_params(estimator: Any, classes: np.ndarray, multilabel: bool = False) -> None:
    """Raise a ValueError that names the parameter with which ``fit`` would fail.

    Parameters are validated as in ``fit``, and a network of two layers is trained with
    them on noise. The estimator's own network is not loaded.
    """
    estimator._validate_params()
    estimator._given_range()
    _check_device(estimator.device)
    known = {
        **estimator._parameter_constraints,
        "num_workers": [Interval(Integral, 0, 64, closed="both")],
    }
    net_params = dict(estimator.net_params or {})
    entries = {k.removeprefix("iterator_train__"): v for k, v in net_params.items()}
    validate_parameter_constraints(
        known, {k: v for k, v in entries.items() if k in known}, "net_params"
    )
    small = clone(estimator).set_params(
        backbone=_small_network,
        weights="DEFAULT",
        n_frozen_layers=0,
        image_size=None,
        image_shape=None,
        engine="torch",
        precision="float32",
        lr=1e-6,
        head_lr=1e-6,
        max_epochs=1,
        augment=None,
        net_params=net_params
        | {"max_epochs": 1, "verbose": 0, "iterator_train__num_workers": 0},
        classes=classes.tolist() if estimator.classes is None else estimator.classes,
        memory=False,
        device="cpu",
        verbose=0,
        random_state=0,
    )
    y = np.eye(len(classes), dtype=int) if multilabel else classes
    y = np.concatenate([y[:20], y[:20]])
    if (error := _error_in_training(small, y)) is None:
        return
    for name in _OF_TRAINING:
        default = getattr(type(estimator)(), name)
        if _error_in_training(clone(small).set_params(**{name: default}), y) is None:
            value = reprlib.repr(getattr(estimator, name))
            raise ValueError(f"{name}={value} cannot be used: {error}") from error
    raise ValueError(f"its network cannot be trained: {error}") from error


def _check_device(device: Any) -> None:
    """Refuse a device of no machine; this one may lack that of a campaign."""
    import torch

    try:
        known = device == "auto" or torch.device(device).type != "meta"
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"device={device!r} computes nothing. Take device='auto'.")


def _small_network() -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip


def _error_in_training(small: Any, y: np.ndarray) -> Exception | None:
    X = np.random.default_rng(0).integers(0, 256, (len(y), 8, 8, 3), dtype=np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small.fit(X, y)
        tensors = small.net_.module_.state_dict().values()
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise ValueError("weights become infinite or NaN")
        if small.training != "probe" and not math.isfinite(
            small.net_.history[-1, "train_loss"]
        ):
            raise ValueError("the loss is infinite or NaN")
    except Exception as error:  # of any library that the parameters reach
        return error
    return None
