"""A campaign's settings, and its estimator and strategy as JSON, never pickled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from sklearn.base import clone

from ... import strategies
from ..._utils.atomic import write_atomically
from ...features.cache import DiskCache
from ...features.table import EmbeddingTable
from ...persistence.params import ModelError, check_params, describe_params, plain
from ...persistence.params import build_estimator as _build
from ...strategies.base import QueryStrategy
from ...training.probe_classifier import ProbeClassifier
from .event_log import CampaignError
from .stored_settings import check_settings

if TYPE_CHECKING:
    from torch import nn

    from ...classifier import CNNClassifier

Model: TypeAlias = "CNNClassifier | ProbeClassifier"
CENTERS = "centers.safetensors"
_KEPT_BY_CAMPAIGN = ("memory", "warm_start", "classes", "verbose", "on_bad_image")
"""Parameters of CNNClassifier that are the campaign's to set."""

_NOT_TAKEN = {
    "CEAL": "it trains on its own guesses, which no label in the log accounts for",
    "QueryByCommittee": "it needs an ensemble, a campaign has one CNNClassifier",
    "ModALStrategy": "it holds a function, which cannot be stored as plain values",
    "SkactivemlStrategy": "it holds an object of another package",
}
STRATEGIES = tuple(
    name
    for name in strategies.__all__
    if name[0].isupper()
    and name not in _NOT_TAKEN
    and name not in ("QueryStrategy", "ScoringStrategy", "Scores", "ADMAScores")
)
"""Names of the strategies that a campaign accepts."""


def settle(
    settings: dict[str, Any],
    estimator: Model | None,
    strategy: QueryStrategy | None,
    table: EmbeddingTable | None,
) -> Callable[[], nn.Module] | None:
    """Describe in the settings what was given; refuse what cannot be used.

    Returns a callable backbone.
    """
    if estimator is None and table is not None:
        estimator = ProbeClassifier()
    if estimator is not None:
        settings["estimator"] = describe_estimator(estimator, table)
    if strategy is not None:
        settings["strategy"] = describe_strategy(strategy)
    check_settings(settings)
    given = getattr(estimator, "backbone", None)
    backbone = given if callable(given) else None
    built = build_estimator(settings["estimator"], backbone, memory=None)
    strategy = strategy or build_strategy(settings["strategy"], Path())
    check_usable(built, strategy, settings)
    check_network(built, strategy, settings)
    return backbone


def check_usable(
    estimator: Model, strategy: QueryStrategy, settings: dict[str, Any]
) -> None:
    """Refuse what would fail only when the first labels are there.

    The parameters are those of the campaign's settings. The network is not loaded.
    """
    several = settings.get("several_labels", False)
    with _refused(estimator):
        if isinstance(estimator, ProbeClassifier):
            estimator._validate_params()
        elif estimator.image_shape is not None:
            raise ValueError(
                "image_shape is for rows of numbers, a campaign has files."
            )
        else:
            estimator.torch_device()
            check_params(estimator, np.array(settings["classes"]), several)
    with _refused(strategy):
        if several:
            strategy.check_multilabel()
        strategy._validate_params()
        constraints = strategy._parameter_constraints
        for name, value in strategy.get_params(deep=False).items():
            if isinstance(value, bool) and "boolean" not in constraints.get(name, ()):
                raise ValueError(f"{name} must be no truth value, got {value}.")
            if isinstance(value, int) and abs(value) >= 2**32:
                raise ValueError(f"{name} must be a number below {2**32}.")


def check_network(
    estimator: Model, strategy: QueryStrategy, settings: dict[str, Any]
) -> None:
    """Refuse a network that cannot be loaded, and a strategy that cannot query it."""
    rng = np.random.default_rng(0)
    noise: np.ndarray = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    if isinstance(estimator, ProbeClassifier):
        noise = rng.normal(size=(5, 8))
    else:
        estimator = clone(estimator).set_params(memory=False, max_epochs=0)
    y = classes = settings["classes"]
    if settings.get("several_labels"):
        y = np.eye(len(classes), dtype=int)
    with _refused(estimator):
        estimator.fit(noise[:2], y[:2])
    with _refused(strategy):
        if "centers" in strategy.get_params(deep=False):
            found = strategy.get_params(deep=False)["centers"]
            if found is None:
                from ...centers import shipped_centers

                found = shipped_centers(estimator)
            # Two, as all would take a minute in each process that trains.
            few = replace(found, inputs=found.inputs[:2], classes=found.classes[:2])
            strategy = clone(strategy).set_params(centers=few)
        labeled: dict[str, Any] = {"X_labeled": noise[:2], "y_labeled": y[:2]}
        strategy.query(estimator, noise[2:], 2, iteration=1, n_rounds=2, **labeled)


@contextmanager
def _refused(one: Model | QueryStrategy) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any library that the parameters reach
        too_deep = isinstance(error, RecursionError)
        reason = "a parameter is nested too deeply." if too_deep else error
        raise CampaignError(
            f"The {type(one).__name__} cannot be used: {reason}"
        ) from error


def describe_estimator(
    estimator: Model, table: EmbeddingTable | None = None
) -> dict[str, Any]:
    """Describe an estimator by plain values; refuse parameters that are none.

    A probe's description has the name of its embedding and the number of dimensions.
    """
    wanted: type = ProbeClassifier
    if table is None:
        from ...classifier import CNNClassifier as wanted  # noqa: N813
    if not isinstance(estimator, wanted):
        raise CampaignError(
            "A campaign takes a CNNClassifier, or a ProbeClassifier with features=; "
            f"got {type(estimator).__name__}{'' if table is None else ' with them'}."
        )
    with _refused(estimator):
        if table is not None:
            weight = plain(estimator.class_weight, "ProbeClassifier(class_weight=...)")
            width = table.rows.shape[1]
            return {"features": table.name, "width": width, "class_weight": weight}
        described, refused = describe_params(estimator, _KEPT_BY_CAMPAIGN)
        for error in refused.values():
            raise error
    return described


def build_estimator(
    described: dict[str, Any],
    backbone: Callable[[], nn.Module] | None,
    memory: Path | None,
) -> Any:
    """Build an estimator from its description, with its cache in the folder `memory`.

    A probe's inputs are kept in half precision, which changes its probabilities by
    thousandths. Nothing is imported by a name from the description. A callable backbone
    has no description, so it has to be given.
    """
    if "features" in described:
        return ProbeClassifier(class_weight=described.get("class_weight"))
    from ...classifier import CNNClassifier

    half = described.get("training") == "probe"
    try:
        return _build(
            CNNClassifier,
            described,
            backbone,
            owner="the campaign",
            how="Campaign.open(folder, backbone=...)",
            memory=memory is not None and DiskCache(memory, half=half),
        )
    except (ModelError, TypeError) as error:
        raise CampaignError(f"The settings of the estimator: {error}") from error


def describe_strategy(strategy: QueryStrategy) -> dict[str, Any]:
    """Describe a strategy by its class's name and plain values, without its centres."""
    name = type(strategy).__name__
    if name not in STRATEGIES or getattr(strategies, name) is not type(strategy):
        reason = _NOT_TAKEN.get(name, "it is not one of skadma.strategies")
        raise CampaignError(
            f"A campaign cannot take the strategy {name}: {reason}. It takes "
            f"{', '.join(sorted(STRATEGIES))}."
        )
    with _refused(strategy):
        params = {
            key: CENTERS
            if key == "centers" and value is not None
            else plain(value, f"{name}({key}=...)")
            for key, value in strategy.get_params(deep=False).items()
        }
    return {"class": name, "params": params}


def build_strategy(described: dict[str, Any], folder: Path) -> QueryStrategy:
    """Build a strategy from its description and the centres in a folder."""
    try:
        if described["class"] not in STRATEGIES:
            raise KeyError(described["class"])
        cls = getattr(strategies, described["class"])
        params = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in described["params"].items()
        }
        if params.get("centers") is not None:
            from ...centers import SourceCenters

            params["centers"] = SourceCenters.load(folder / CENTERS)
        strategy: QueryStrategy = cls(**params)
        return strategy
    except (KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        raise CampaignError(
            f"The campaign's strategy is not known, or without its centres: {error}"
        ) from error


def save_centers(strategy: QueryStrategy, folder: Path) -> None:
    """Write the centres of a strategy that has any."""
    centers = strategy.get_params(deep=False).get("centers")
    if centers is not None:
        write_atomically(folder / CENTERS, centers.save)
