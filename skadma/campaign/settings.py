"""An estimator and a strategy as JSON: names and plain values, never pickles."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import strategies
from ..backbones.registry import is_weights_file
from ..centers import SourceCenters
from ..classifier import CNNClassifier
from ..files import write_atomically
from ..strategies import QueryStrategy
from .naming import check_classes
from .store import CampaignError

CENTERS = "centers.safetensors"
_GIVEN = "<given on opening>"
_KEPT_BY_CAMPAIGN = ("memory", "warm_start", "classes", "verbose", "on_bad_image")
"""Parameters of CNNClassifier that are the campaign's to set."""

_CLASSES: dict[str, Any] = {"optimizer": torch.optim, "criterion": nn}
"""Parameters that are classes of a module, stored by name."""

_NOT_TAKEN = {
    "CEAL": "it trains on its own guesses, which no label in the log accounts for",
    "QueryByCommittee": "it needs an ensemble, a campaign has one CNNClassifier",
    "ModALStrategy": "it holds a function, which cannot be stored as plain values",
    "SkactivemlStrategy": "it holds an object of another package",
}
STRATEGIES: dict[str, Any] = {
    name: cls
    for name, cls in vars(strategies).items()
    if isinstance(cls, type)
    and issubclass(cls, QueryStrategy)
    and name not in _NOT_TAKEN
    and name not in ("QueryStrategy", "ScoringStrategy")
}
"""What a campaign takes, by name."""


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse settings that no campaign writes.

    Raises
    ------
    CampaignError
    """
    kinds = {
        "pool": str,
        "classes": list,
        "estimator": dict,
        "strategy": dict,
        "n_instances": int,
        "warm_start": bool,
        "random_state": int,
    }
    for name, kind in kinds.items():
        if type(settings.get(name)) is not kind:
            raise CampaignError(
                f"The campaign cannot be opened: its setting {name!r} is "
                f"{settings.get(name)!r}."
            )
    check_classes(settings["classes"])


def check_usable(
    estimator: CNNClassifier,
    strategy: QueryStrategy,
    n_instances: int,
    random_state: int,
) -> None:
    """Refuse what would fail only when the first labels are there.

    Raises
    ------
    CampaignError
    """
    if n_instances < 1 or not 0 <= random_state < 2**32:
        raise CampaignError(
            f"n_instances={n_instances} must be at least 1, random_state="
            f"{random_state} from 0 to {2**32 - 1}."
        )
    for one in (estimator, strategy):
        try:
            if hasattr(one, "_parameter_constraints"):
                one._validate_params()
            if isinstance(one, CNNClassifier):
                torch.empty(0, device=one.torch_device())
                one.source_network()
        except (ValueError, TypeError, RuntimeError, OSError, AssertionError) as error:
            raise CampaignError(
                f"The {type(one).__name__} cannot be used: {error}"
            ) from error


def describe_estimator(estimator: CNNClassifier) -> dict[str, Any]:
    """Describe an estimator by plain values.

    Raises
    ------
    CampaignError
        If a parameter is something that cannot be.
    """
    if not isinstance(estimator, CNNClassifier):
        raise CampaignError(
            f"A campaign takes a CNNClassifier, got {type(estimator).__name__}."
        )
    described: dict[str, Any] = {}
    for name, value in estimator.get_params(deep=False).items():
        if name in _KEPT_BY_CAMPAIGN:
            continue
        if name == "backbone" and callable(value) and not isinstance(value, nn.Module):
            described[name] = {_GIVEN: getattr(value, "__name__", repr(value))}
        elif name in _CLASSES and _is_from(value, _CLASSES[name]):
            described[name] = value.__name__
        elif name == "weights" and value is not None and is_weights_file(value):
            described[name] = str(Path(value).absolute())
        else:
            described[name] = _plain(value, f"{type(estimator).__name__}({name}=...)")
    return described


def build_estimator(
    described: dict[str, Any], backbone: Callable[[], nn.Module] | None, memory: Path
) -> CNNClassifier:
    """Build an estimator from its description.

    Nothing is imported by a name that stands there. A callable backbone has no
    description, so it has to be given.

    Parameters
    ----------
    described : dict
    backbone : callable or None
    memory : Path
        Folder of the cache.

    Raises
    ------
    CampaignError
        If the description is none, or needs a backbone that is not given.
    """
    params = dict(described)
    name = params.get("backbone")
    if isinstance(name, dict):
        if backbone is None:
            raise CampaignError(
                f"The campaign's network is the callable {name.get(_GIVEN)!r}, of "
                "which only the name is stored. Give it: "
                "Campaign.open(folder, backbone=...)."
            )
        params["backbone"] = backbone
    elif not isinstance(name, str) or ":" in name:
        # timm would fetch "hf-hub:..." and read "local-dir:...".
        raise CampaignError(f"The campaign's backbone {name!r} is no network's name.")
    params["optimizer"] = _class(
        torch.optim, params, "optimizer", torch.optim.Optimizer
    )
    params["criterion"] = _class(nn, params, "criterion", nn.Module)
    if params.get("image_shape") is not None:
        params["image_shape"] = tuple(params["image_shape"])
    try:
        return CNNClassifier(**params, memory=memory)
    except TypeError as error:
        raise CampaignError(
            f"The campaign's estimator is not known: {error}"
        ) from error


def describe_strategy(strategy: QueryStrategy) -> dict[str, Any]:
    """Describe a strategy by its class's name and plain values; see `centers_of`."""
    name = type(strategy).__name__
    if STRATEGIES.get(name) is not type(strategy):
        reason = _NOT_TAKEN.get(name, "it is not one of skadma.strategies")
        raise CampaignError(
            f"A campaign cannot take the strategy {name}: {reason}. It takes "
            f"{', '.join(sorted(STRATEGIES))}."
        )
    params = {
        key: CENTERS
        if isinstance(value, SourceCenters)
        else _plain(value, f"{name}({key}=...)")
        for key, value in strategy.get_params(deep=False).items()
    }
    return {"class": name, "params": params}


def build_strategy(described: dict[str, Any], folder: Path) -> QueryStrategy:
    """Build a strategy from its description and the centres in a folder."""
    try:
        cls = STRATEGIES[described["class"]]
        params = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in described["params"].items()
        }
        if params.get("centers") is not None:
            params["centers"] = SourceCenters.load(folder / CENTERS)
        return cls(**params)
    except (KeyError, TypeError, AttributeError) as error:
        raise CampaignError(f"The campaign's strategy is not known: {error}") from error
    except (OSError, ValueError) as error:
        raise CampaignError(f"The campaign's centres are not there: {error}") from error


def save_centers(strategy: QueryStrategy, folder: Path) -> None:
    """Write the centres of a strategy that has some."""
    centers = strategy.get_params(deep=False).get("centers")
    if isinstance(centers, SourceCenters):
        write_atomically(folder / CENTERS, centers.save)


def _is_from(value: Any, module: Any) -> bool:
    name = getattr(value, "__name__", "")
    return isinstance(value, type) and getattr(module, name, None) is value


def _class(module: Any, params: dict[str, Any], key: str, base: type) -> type:
    found = getattr(module, str(params.get(key)), None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CampaignError(
            f"The campaign's {key} {params.get(key)!r} is none of {module.__name__}'s."
        )
    return found


def _plain(value: Any, what: str) -> Any:
    """A value as JSON has it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        value = str(value.absolute())
    if isinstance(value, (list, tuple)):
        return [_plain(item, what) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, what) for key, item in value.items()}
    finite = not isinstance(value, float) or math.isfinite(value)
    if value is None or (isinstance(value, (bool, int, float, str)) and finite):
        return value
    raise CampaignError(
        f"{what} is {value!r}. A campaign stores plain values only (numbers, strings, "
        "lists), so that a file from elsewhere can run nothing."
    )
