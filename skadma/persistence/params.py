"""An estimator's parameters as JSON: names and plain values, never pickles."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from ..networks.registry import is_weights_file
from .errors import ModelError

if TYPE_CHECKING:
    from ..classifier import CNNClassifier

_Estimator = TypeVar("_Estimator", bound="CNNClassifier")
_GIVEN = "<given on opening>"
_CLASSES: dict[str, Any] = {
    "optimizer": (torch.optim, torch.optim.Optimizer),
    "criterion": (nn, nn.Module),
}
"""Parameters that are classes of a module, stored by name."""


def describe_params(
    estimator: CNNClassifier, without: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, ModelError]]:
    """Describe an estimator's parameters by plain values.

    Parameters
    ----------
    estimator : CNNClassifier
    without : collection of str
        Parameters to leave out.

    Returns
    -------
    described : dict of str to plain value
        A callable backbone is a dict with its name only.
    refused : dict of str to ModelError
        The parameters that are no plain values, and what they are.
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
    if name == "backbone" and callable(value) and not isinstance(value, nn.Module):
        return {_GIVEN: getattr(value, "__name__", type(value).__name__)}
    if name in _CLASSES and _is_from(value, _CLASSES[name][0]):
        return value.__name__
    if name == "weights" and value is not None and is_weights_file(value):
        return str(Path(value).absolute())
    if name == "classes" and value is not None:
        value = np.asarray(value).tolist()
    return plain(value, f"{owner}({name}=...)")


def plain(value: Any, what: str) -> Any:
    """A value as JSON has it.

    Raises
    ------
    ModelError
        If it is more than numbers, strings, lists and dicts of them.
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
    cls: type[_Estimator],
    described: dict[str, Any],
    backbone: Callable[[], nn.Module] | None,
    *,
    owner: str,
    how: str,
    **more: Any,
) -> _Estimator:
    """Build an estimator from its described parameters.

    Nothing is imported by a name that stands there. A callable backbone has no
    description, so it has to be given.

    Parameters
    ----------
    cls : type
        CNNClassifier or a subclass.
    described : dict
    backbone : callable or None
    owner : str
        What messages call it, "campaign" or "model".
    how : str
        How a callable is given, for messages.
    **more
        Further parameters of the estimator.

    Raises
    ------
    ModelError
        If the description is none, or needs a backbone that is not given.
    """
    params = dict(described)
    name = params.get("backbone")
    if isinstance(name, dict):
        if backbone is None:
            raise ModelError(
                f"The {owner}'s network is the callable {name.get(_GIVEN)!r}, of "
                f"which only the name is stored. Give it: {how}."
            )
        params["backbone"] = backbone
    elif not isinstance(name, str) or ":" in name:
        # timm would fetch "hf-hub:..." and read "local-dir:...".
        raise ModelError(f"The {owner}'s backbone {name!r} is no network's name.")
    for key, (module, base) in _CLASSES.items():
        if key in params:
            params[key] = _class(module, params[key], key, base, owner)
    if params.get("image_shape") is not None:
        params["image_shape"] = tuple(params["image_shape"])
    try:
        return cls(**params, **more)
    except TypeError as error:
        raise ModelError(f"The {owner}'s estimator is not known: {error}") from error


def _is_from(value: Any, module: Any) -> bool:
    name = getattr(value, "__name__", "")
    return isinstance(value, type) and getattr(module, name, None) is value


def _class(module: Any, name: Any, key: str, base: type, owner: str) -> type:
    found = getattr(module, str(name), None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ModelError(
            f"The {owner}'s {key} {name!r} is none of {module.__name__}'s."
        )
    return found
