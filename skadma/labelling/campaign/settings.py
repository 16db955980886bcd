"""A campaign's settings, and its estimator and strategy as JSON, never pickled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from torch import nn

from ... import strategies
from ..._utils.atomic import write_atomically
from ...centers import SourceCenters, shipped_centers
from ...classifier import CNNClassifier
from ...persistence.params import ModelError, check_params, describe_params, plain
from ...persistence.params import build_estimator as _build
from ...strategies import QueryStrategy
from .event_log import CampaignError
from .stored_settings import check_settings

CENTERS = "centers.safetensors"
_KEPT_BY_CAMPAIGN = ("memory", "warm_start", "classes", "verbose", "on_bad_image")
"""Parameters of CNNClassifier that are the campaign's to set."""

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
"""The strategies that a campaign accepts, by name."""


def settle(
    settings: dict[str, Any],
    estimator: CNNClassifier | None,
    strategy: QueryStrategy | None,
) -> Callable[[], nn.Module] | None:
    """Describe in the settings what was given; refuse what cannot be used.

    Returns a callable backbone.
    """
    if estimator is not None:
        settings["estimator"] = describe_estimator(estimator)
    if strategy is not None:
        settings["strategy"] = describe_strategy(strategy)
    check_settings(settings)
    given = getattr(estimator, "backbone", None)
    backbone = given if callable(given) else None
    built = build_estimator(settings["estimator"], backbone, memory=False)
    strategy = strategy or build_strategy(settings["strategy"], Path())
    check_usable(built, strategy, settings["classes"])
    check_network(built, strategy, settings["classes"])
    return backbone


def check_usable(
    estimator: CNNClassifier, strategy: QueryStrategy, classes: list[str]
) -> None:
    """Refuse what would fail only when the first labels are there.

    The parameters are those of the campaign's settings. The network is not loaded.
    """
    with _refused(estimator):
        if estimator.image_shape is not None:
            raise ValueError(
                "image_shape is for rows of numbers, a campaign has files."
            )
        estimator.torch_device()
        check_params(estimator, np.array(classes))
    with _refused(strategy):
        strategy._validate_params()
        constraints = strategy._parameter_constraints
        for name, value in strategy.get_params(deep=False).items():
            if isinstance(value, bool) and "boolean" not in constraints.get(name, ()):
                raise ValueError(f"{name} must be no truth value, got {value}.")
            if isinstance(value, int) and abs(value) >= 2**32:
                raise ValueError(f"{name} must be a number below {2**32}.")


def check_network(
    estimator: CNNClassifier, strategy: QueryStrategy, classes: list[str]
) -> None:
    """Refuse a network that cannot be loaded, and a strategy that cannot query it."""
    estimator = clone(estimator).set_params(memory=False, max_epochs=0)
    noise = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    with _refused(estimator):
        estimator.fit(noise[:2], classes[:2])
    with _refused(strategy):
        if "centers" in strategy.get_params(deep=False):
            found = strategy.get_params(deep=False)["centers"]
            found = shipped_centers(estimator) if found is None else found
            # Two, as all would take a minute in each process that trains.
            few = replace(found, inputs=found.inputs[:2], classes=found.classes[:2])
            strategy = clone(strategy).set_params(centers=few)
        labeled: dict[str, Any] = {"X_labeled": noise[:2], "y_labeled": classes[:2]}
        strategy.query(estimator, noise[2:], 2, iteration=1, n_rounds=2, **labeled)


@contextmanager
def _refused(one: CNNClassifier | QueryStrategy) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any library that the parameters reach
        too_deep = isinstance(error, RecursionError)
        reason = "a parameter is nested too deeply." if too_deep else error
        raise CampaignError(
            f"The {type(one).__name__} cannot be used: {reason}"
        ) from error


def describe_estimator(estimator: CNNClassifier) -> dict[str, Any]:
    """Describe an estimator by plain values; refuse parameters that are none."""
    if not isinstance(estimator, CNNClassifier):
        raise CampaignError(
            f"A campaign takes a CNNClassifier, got {type(estimator).__name__}."
        )
    with _refused(estimator):
        described, refused = describe_params(estimator, _KEPT_BY_CAMPAIGN)
        for error in refused.values():
            raise error
    return described


def build_estimator(
    described: dict[str, Any],
    backbone: Callable[[], nn.Module] | None,
    memory: Path | bool,
) -> CNNClassifier:
    """Build an estimator from its description, with its cache in the folder `memory`.

    Nothing is imported by a name from the description. A callable backbone has no
    description, so it has to be given.
    """
    try:
        return _build(
            CNNClassifier,
            described,
            backbone,
            owner="the campaign",
            how="Campaign.open(folder, backbone=...)",
            memory=memory,
        )
    except (ModelError, TypeError) as error:
        raise CampaignError(f"The settings of the estimator: {error}") from error


def describe_strategy(strategy: QueryStrategy) -> dict[str, Any]:
    """Describe a strategy by its class's name and plain values, without its centres."""
    name = type(strategy).__name__
    if STRATEGIES.get(name) is not type(strategy):
        reason = _NOT_TAKEN.get(name, "it is not one of skadma.strategies")
        raise CampaignError(
            f"A campaign cannot take the strategy {name}: {reason}. It takes "
            f"{', '.join(sorted(STRATEGIES))}."
        )
    with _refused(strategy):
        params = {
            key: CENTERS
            if isinstance(value, SourceCenters)
            else plain(value, f"{name}({key}=...)")
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
    except (KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        raise CampaignError(
            f"The campaign's strategy is not known, or without its centres: {error}"
        ) from error


def save_centers(strategy: QueryStrategy, folder: Path) -> None:
    """Write the centres of a strategy that has any."""
    centers = strategy.get_params(deep=False).get("centers")
    if isinstance(centers, SourceCenters):
        write_atomically(folder / CENTERS, centers.save)
