"""Read and check a benchmark's configuration, and list its cells."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from .. import strategies
from ..classifier import CNNClassifier
from ..strategies import QueryStrategy
from .datasets import find_reader

FULLY_TRAINED = "FullyTrained"
"""In place of a strategy's class: every label of the pool at once, the ceiling."""

PROTOCOL: dict[str, Any] = {
    "n_rounds": 8,
    "n_instances": 20,
    "pool_size": None,
    "test_size": None,
}
"""Settings that a data set may have its own of, with their defaults."""

_NAMED = ("datasets", "networks", "strategies")
_DEFAULTS = {"seeds": 5, "centers": None, "warm_start": True}
_FROM_1 = Interval(Integral, 1, 10**9, closed="both")
_CONSTRAINTS: dict[str, Any] = {
    "n_rounds": [_FROM_1],
    "n_instances": [_FROM_1],
    "pool_size": [None, _FROM_1],
    "test_size": [None, _FROM_1],
    "seeds": [list, Interval(Integral, 1, 10**6, closed="both")],
    "centers": [None, str],
    "warm_start": ["boolean"],
    "classifier": [Mapping],
    "class": [str],
    "path": [None, str],
    "datasets": [list, Mapping],
}
_MANAGED = {"backbone", "classes", "memory", "random_state", "verbose", "warm_start"}


@dataclass(frozen=True)
class Cell:
    """One simulation: its names, its seed, and all settings that decide its results."""

    dataset: str
    network: str
    strategy: str
    seed: int
    settings: dict[str, dict[str, Any]]

    @property
    def file_name(self) -> str:
        """Name of the file with the cell's results."""
        names = (self.dataset, self.network, self.strategy, str(self.seed))
        return ",".join(quote(name, safe=" ") for name in names) + ".json"


def load_cells(config: str | Path | Mapping[str, Any]) -> list[Cell]:
    """Read a configuration, check it, and list its cells.

    In an order in which a process keeps a data set and a network as long as it can,
    and in which all strategies of a seed come together.
    """
    if isinstance(config, (str, Path)):
        try:
            config = json.loads(Path(config).read_text("utf-8"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{str(config)!r} is not JSON: {error}.") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"A configuration is a dict, got {type(config).__name__}.")
    empty: dict[str, Any] = dict.fromkeys([*_NAMED, "classifier"], {})
    defaults = {**empty, **_DEFAULTS, **PROTOCOL}
    _check(config, set(defaults), "The configuration")
    full = {**defaults, **config, **{key: _by_name(config, key) for key in _NAMED}}
    if isinstance(full["seeds"], int):
        full["seeds"] = list(range(full["seeds"]))
    if not all(type(seed) is int and 0 <= seed < 2**32 for seed in full["seeds"]):
        raise ValueError(f"The seeds must be ints from 0, got {full['seeds']}.")
    for name, settings in full["datasets"].items():
        _check(settings, {"class", "path", *PROTOCOL}, f"The data set {name!r}")
        find_reader(settings.get("class", name))
    own = set(CNNClassifier().get_params()) - _MANAGED
    _check(full["classifier"], own, "'classifier'")
    for name, settings in full["networks"].items():
        known = own | {"backbone", "centers", "warm_start"}
        _check(settings, known, f"The network {name!r}")
        params = {"backbone": name, **full["classifier"], **settings}
        params.pop("centers", None)
        CNNClassifier(**params)._validate_params()
    for name, settings in full["strategies"].items():
        known = {"class", "datasets"}
        found = str(settings.get("class", name))
        if found != FULLY_TRAINED:
            known |= {*inspect.signature(strategy_class(found)).parameters}
        if "centers" in known:
            known.add("n_centers")
        _check(settings, known - {"random_state"}, f"The strategy {name!r}")
        unknown = sorted(set(settings.get("datasets", [])) - set(full["datasets"]))
        if unknown:
            raise ValueError(
                f"The strategy {name!r} is for the data sets {unknown}, but there are "
                f"only {sorted(full['datasets'])}."
            )
    return _expand(full)


def _expand(config: Mapping[str, Any]) -> list[Cell]:
    cells = []
    for (dataset, own), (network, overrides), seed, (strategy, params) in product(
        config["datasets"].items(),
        config["networks"].items(),
        config["seeds"],
        config["strategies"].items(),
    ):
        chosen = {"class": strategy, **params}
        if dataset not in chosen.pop("datasets", [dataset]):
            continue
        settings = {
            "dataset": {"class": own.get("class", dataset), "path": own.get("path")},
            "network": {
                "backbone": network,
                "centers": config["centers"],
                "warm_start": config["warm_start"],
                **config["classifier"],
                **overrides,
            },
            "strategy": chosen,
            "protocol": {key: own.get(key, config[key]) for key in PROTOCOL},
        }
        cells.append(Cell(dataset, network, strategy, seed, settings))
    return cells


def _by_name(config: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each data set, network or strategy; a list has none."""
    names = config.get(key, {})
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        names = dict.fromkeys(names, {})
    if not (
        isinstance(names, Mapping)
        and all(isinstance(settings, Mapping) for settings in names.values())
    ):
        raise ValueError(
            f"{key!r} must be a list of names, or names with a dict of settings each."
        )
    if not names:
        raise ValueError(f"The configuration names no {key}.")
    return dict(names)


def _check(settings: Mapping[str, Any], known: set[str], what: str) -> None:
    """Check names of settings, and the values of those that are a benchmark's own."""
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"{what} has {unknown}, but takes only {sorted(known)}.")
    validate_parameter_constraints(_CONSTRAINTS, dict(settings), what)


def strategy_class(name: str) -> type[QueryStrategy]:
    """Find a strategy's class: skadma's by name, others as ``module.Class``."""
    module, _, cls = name.rpartition(".")
    home = importlib.import_module(module) if module else strategies
    found: Any = getattr(home, cls, None)
    if not _is_strategy(found):
        known = [n for n in strategies.__all__ if _is_strategy(getattr(strategies, n))]
        raise ValueError(
            f"There is no strategy {name!r}. There are {known}, {FULLY_TRAINED!r}, and "
            "any subclass of QueryStrategy as 'module.Class'; a name of your own "
            "needs 'class'."
        )
    return found


def _is_strategy(found: Any) -> bool:
    is_class = inspect.isclass(found) and issubclass(found, QueryStrategy)
    return is_class and not inspect.isabstract(found)
