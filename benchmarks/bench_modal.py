"""Compare ADMA and UncertaintyHerding with modAL's own strategies.

    pip install "scikit-learn==1.7.*" && pip install --no-deps modAL-python==0.4.2.1
    python benchmarks/bench_modal.py OUT [--jobs 2] [--data DIR]

Each of modAL's functions goes through `from_modal`, on the same classifier, splits and
seeds as the others (configs/modal.json). `uncertainty_batch_sampling` and
`information_density` compare rows: they get the network's penultimate features, where
modAL by itself would compare pixels. OUT gets the results and report.md; a run that was
stopped goes on. About 45 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from modAL.batch import uncertainty_batch_sampling
from modAL.density import information_density
from modAL.uncertainty import (
    classifier_uncertainty,
    entropy_sampling,
    margin_sampling,
    uncertainty_sampling,
)
from modAL.utils.selection import multi_argmax

from skadma.bench import run_benchmark, write_report
from skadma.strategies import from_modal
from skadma.strategies._modal import ModALStrategy

CONFIG = Path(__file__).parent / "configs" / "modal.json"
LAYER = -2


def ranked_batch(learner: Any, X: Any, n_instances: int = 1) -> Any:
    """Ranked batch of modAL by the network's features."""
    return uncertainty_batch_sampling(*_by_features(learner, X), n_instances)


def density(learner: Any, X: Any, n_instances: int = 1) -> Any:
    """Uncertainty times information density, as modAL's documentation joins them."""
    learner, rows = _by_features(learner, X)
    utility = classifier_uncertainty(learner, rows) * information_density(rows)
    return multi_argmax(utility, n_instances)


def _by_features(learner: Any, X: Any) -> tuple[Any, np.ndarray]:
    """A learner that takes a pool's rows of features for its images."""
    known = learner.X_training
    of_rows = SimpleNamespace(
        on_transformed=False,
        X_training=None if known is None else learner.embed(known, LAYER)[LAYER],
        predict_proba=lambda rows, **_: learner.predict_proba(X),
    )
    return of_rows, learner.embed(X, LAYER)[LAYER]


class _Own(ModALStrategy):
    """A strategy of modAL under a name that a configuration can have."""

    asked: ClassVar[Callable]
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, random_state: Any = None) -> None:
        vars(self).update(vars(from_modal(type(self).asked, **self.options)))
        self.random_state = random_state


class _Uncertainty(_Own):
    # Before the first fit all images tie; by default modAL takes a run of the pool.
    options: ClassVar[dict[str, Any]] = {"random_tie_break": True}


class UncertaintySampling(_Uncertainty):
    """``modAL.uncertainty.uncertainty_sampling``."""

    asked = staticmethod(uncertainty_sampling)


class MarginSampling(_Uncertainty):
    """``modAL.uncertainty.margin_sampling``."""

    asked = staticmethod(margin_sampling)


class EntropySampling(_Uncertainty):
    """``modAL.uncertainty.entropy_sampling``."""

    asked = staticmethod(entropy_sampling)


class RankedBatch(_Own):
    """``modAL.batch.uncertainty_batch_sampling``."""

    asked = staticmethod(ranked_batch)


class Density(_Own):
    """``modAL.density.information_density`` times uncertainty."""

    asked = staticmethod(density)


def main() -> None:
    """Run what has not been run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args()
    run_benchmark(options.config, options.out, jobs=options.jobs, data=options.data)
    print(write_report(options.out, against="UncertaintyHerding").read_text("utf-8"))


if __name__ == "__main__":
    main()
