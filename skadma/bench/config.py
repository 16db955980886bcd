"""Read and check a benchmark's configuration, and list its cells."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import Any, TypeGuard

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
    "n_initial": 0,
    "pool_size": None,
    "test_size": None,
}
"""Settings that a data set may have its own of, with their defaults."""

_REQUIRED = ("datasets", "networks", "strategies")
_OTHERS: dict[str, Any] = {
    "seeds": 5,
    "centers": None,
    "warm_start": True,
    "classifier": {},
}
_FROM_0, _FROM_1 = (Interval(Integral, k, 10**9, closed="both") for k in (0, 1))
_CONSTRAINTS: dict[str, Any] = {
    "n_rounds": [_FROM_1],
    "n_instances": [_FROM_1],
    "n_initial": [_FROM_0],
    "pool_size": [None, _FROM_1],
    "test_size": [None, _FROM_1],
    "seeds": [list, Interval(Integral, 1, 10**6, closed="both")],
    "centers": [None, str],
    "warm_start": ["boolean"],
    "classifier": [Mapping],
    "class": [str],
    "path": [None, str],
    "datasets": [list],
}
_MANAGED = {"backbone", "classes", "memory", "random_state", "verbose", "warm_start"}


@dataclass(frozen=True)
class Cell:
    """One simulation: its names, its seed, and all settings that decide its results.

    Attributes
    ----------
    dataset, network, strategy : str
        Names.
    seed : int
    settings : dict
        ``dataset``, ``network``, ``strategy`` and ``protocol``: as in the
        configuration, with its defaults.
    """

    dataset: str
    network: str
    strategy: str
    seed: int
    settings: dict[str, dict[str, Any]]

    @property
    def file_name(self) -> str:
        """Name of the file with the cell's results."""
        names = (self.dataset, self.network, self.strategy)
        return f"{file_stem(*names, str(self.seed))}.json"


def file_stem(*names: str) -> str:
    """Make a file's name of names that may hold anything."""
    return "__".join(re.sub(r"[^\w.+-]+", "-", name) for name in names)


def load_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Read a configuration, check it, and fill in the defaults.

    Parameters
    ----------
    config : str, Path or dict
        A JSON file or its content; docs/benchmarks.md lists the settings.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If a setting is unknown or missing.
    """
    if isinstance(config, (str, Path)):
        try:
            config = json.loads(Path(config).read_text("utf-8"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{str(config)!r} is not JSON: {error}.") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"A configuration is a dict, got {type(config).__name__}.")
    defaults = {**dict.fromkeys(_REQUIRED, {}), **PROTOCOL, **_OTHERS}
    _refuse_unknown(config, set(defaults), "The configuration")
    full = {**defaults, **config, **{key: _by_name(config, key) for key in _REQUIRED}}
    _check_values({k: full[k] for k in full if k not in _REQUIRED}, "the configuration")
    if isinstance(full["seeds"], int):
        full["seeds"] = list(range(full["seeds"]))
    if not all(type(seed) is int and 0 <= seed < 2**32 for seed in full["seeds"]):
        raise ValueError(f"The seeds must be ints from 0, got {full['seeds']}.")
    for name, settings in full["datasets"].items():
        what = f"The data set {name!r}"
        _refuse_unknown(settings, {"class", "path", *PROTOCOL}, what)
        _check_values(settings, what)
        find_reader(settings.get("class", name))
    own = set(CNNClassifier().get_params()) - _MANAGED
    _refuse_unknown(full["classifier"], own, "'classifier'")
    for name, settings in full["networks"].items():
        known = own | {"backbone", "centers", "warm_start"}
        _refuse_unknown(settings, known, f"The network {name!r}")
        _check_values(settings, f"The network {name!r}")
        params = {"backbone": name, **full["classifier"], **settings}
        params.pop("centers", None)
        CNNClassifier(**params)._validate_params()
    for name, settings in full["strategies"].items():
        _check_values(settings, f"The strategy {name!r}")
        _check_strategy(name, settings, set(full["datasets"]))
    return full


def _by_name(config: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each data set, network or strategy; a list has none."""
    names = config.get(key, {})
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        names = dict.fromkeys(names, {})
    if not isinstance(names, Mapping) or not all(
        isinstance(settings, Mapping) for settings in names.values()
    ):
        raise ValueError(
            f"{key!r} must be a list of names, or names with a dict of settings each; "
            f"got {reprlib.repr(names)}."
        )
    if not names:
        raise ValueError(f"The configuration names no {key}.")
    return dict(names)


def _refuse_unknown(settings: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{what} has {unknown}, but takes only {sorted(known)}.")


def _check_values(settings: Mapping[str, Any], what: str) -> None:
    validate_parameter_constraints(_CONSTRAINTS, dict(settings), what)


def _check_strategy(name: str, settings: Mapping[str, Any], datasets: set[str]) -> None:
    unknown = sorted(set(settings.get("datasets", [])) - datasets)
    if unknown:
        raise ValueError(
            f"The strategy {name!r} is for the data sets {unknown}, but there are only "
            f"{sorted(datasets)}."
        )
    settings = {key: value for key, value in settings.items() if key != "datasets"}
    found = settings.get("class", name)
    if found == FULLY_TRAINED:
        _refuse_unknown(settings, {"class"}, f"The strategy {name!r}")
        return
    cls = strategy_class(found)
    known = {"class", *inspect.signature(cls).parameters} - {"random_state"}
    if "centers" in known:
        known.add("n_centers")
    _refuse_unknown(settings, known, f"The strategy {name!r}")


def _is_strategy(found: Any) -> TypeGuard[type[QueryStrategy]]:
    return (
        inspect.isclass(found)
        and issubclass(found, QueryStrategy)
        and not inspect.isabstract(found)
    )


def strategy_class(name: str) -> type[QueryStrategy]:
    """Find a strategy's class: skadma's by name, others as ``module.Class``."""
    module, _, cls = name.rpartition(".")
    home = importlib.import_module(module) if module else strategies
    found = getattr(home, cls, None)
    if not _is_strategy(found):
        known = [n for n in strategies.__all__ if _is_strategy(getattr(strategies, n))]
        raise ValueError(
            f"There is no strategy {name!r}. There are {known}, {FULLY_TRAINED!r}, and "
            "any subclass of QueryStrategy as 'module.Class'; a name of your own "
            "needs 'class'."
        )
    return found


def expand(config: Mapping[str, Any]) -> list[Cell]:
    """List the cells of a configuration.

    In an order in which a process keeps a data set and a network as long as it can,
    and in which all strategies of a seed come together.

    Parameters
    ----------
    config : dict
        From :func:`load_config`.

    Returns
    -------
    list of Cell
    """
    cells: dict[str, Cell] = {}
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
        cell = Cell(dataset, network, strategy, seed, settings)
        other = cells.setdefault(cell.file_name, cell)
        if other is not cell:
            raise ValueError(
                f"{(dataset, network, strategy, seed)} and "
                f"{(other.dataset, other.network, other.strategy, other.seed)} would "
                "be kept in one file. Give them names that differ in more than "
                "punctuation."
            )
    return list(cells.values())
