"""The campaign's model and queries: functions of the settings and the log."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.base import clone
from torch import nn

from ..._utils.atomic import file_digest, remove_leftovers
from ...classifier import CNNClassifier
from ...evaluation import out_of_fold_proba
from ...learner import ActiveLearner
from .event_log import CampaignError, Store
from .folders import Places
from .kept_features import stored
from .model import load_model, save_model
from .second_look import quick_model
from .settings import build_estimator, build_strategy
from .state import State, digest

_log = logging.getLogger(__name__)
_KEPT = 3
"""Models that stay on the disk: undoing finds them; older ones can be made again."""


@dataclass(frozen=True)
class Proposal:
    """An image that a query asks a label for.

    Attributes
    ----------
    path : str
        Relative to the pool.
    score : float or None
        The strategy's.
    guess : str or None
        What the present model takes it for; None before the first labels.
    confidence : float or None
        The model's probability of that.
    sha256 : str
        Of the file's bytes: what there is to be looked at.
    """

    path: str
    score: float | None
    guess: str | None
    confidence: float | None
    sha256: str


def unguessed(state: State, images: Iterable[int]) -> list[Proposal]:
    """Show images without scores and guesses, to be judged blind."""
    return [
        Proposal(state.paths[i], None, None, None, str(state.contents[i].sha256))
        for i in images
    ]


class Trainer:
    """What makes models and queries of a campaign's log.

    Both are named by all that they depend on: the weights of M0, the labelled contents
    in order, the classes, the candidates, the number asked for. What was recorded under
    a name is never computed again, and computing it again gives the same.

    Parameters
    ----------
    folder : Path
        The campaign's.
    places : Places
        Where the pools are.
    store : Store
    settings : dict
    backbone : callable or None
        Where the settings have only its name.
    features : str, Path or None, default="auto"
        See :class:`Campaign`.
    """

    def __init__(
        self,
        folder: Path,
        places: Places,
        store: Store,
        settings: dict[str, Any],
        backbone: Callable[[], nn.Module] | None,
        features: str | Path | None = "auto",
    ) -> None:
        self._places = places
        self._store = store
        self._folder, self._features = folder, features
        self._models = folder / "models"
        self._weights: str | None = None
        self.n_instances: int = settings["n_instances"]
        self.seed: int = settings["random_state"]
        self.warm_start: bool = settings["warm_start"]
        self._learner = ActiveLearner(
            build_estimator(settings["estimator"], backbone, folder / "cache"),
            build_strategy(settings["strategy"], folder),
            n_rounds=None,
            n_instances=self.n_instances,
            warm_start=self.warm_start,
            store=None,
            random_state=settings["random_state"],
        )

    def files(self, images: list[int], state: State) -> list[str]:
        """Paths to read images from."""
        return [
            str(self._places.file(state.paths[image], state.pools)) for image in images
        ]

    def unseen_proba(
        self,
        images: list[int],
        labels: np.ndarray,
        state: State,
        *,
        refit: bool,
        verbose: bool = False,
    ) -> np.ndarray:
        """Probabilities of labelled images by models that did not see their labels.

        Of the network, adapted anew for each fold, or of a classifier on what the
        pretrained one makes of the images, which knows no label.
        """
        files = self.files(images, state)
        estimator = clone(self._learner.estimator)
        classes = state.classes
        if refit:
            if estimator.random_state is None:
                estimator.set_params(random_state=self.seed)
            return out_of_fold_proba(
                estimator, files, labels, classes=classes, verbose=verbose
            )
        features = estimator.embed(files, -2)[-2]
        quick = quick_model(features.shape[1])
        return out_of_fold_proba(quick, features, labels, classes=classes)

    # --- models -------------------------------------------------------------

    def model_keys(self, state: State) -> list[str | None]:
        """Names of the models after each change of the labels; None for none."""
        weights = self._fingerprint() if state.training_sets else None
        keys: list[str | None] = []
        for labelled in state.training_sets:
            known = [(state.contents[i].sha256, label) for i, label in labelled]
            base = keys[-1] if keys and self.warm_start else None
            name = digest("model", weights, base, known, *_other_classes(state))
            keys.append(name if labelled else None)
        return keys

    def model(self, state: State) -> CNNClassifier:
        """Load the model of the present labels, or train it.

        Returns
        -------
        CNNClassifier
            Not fitted where there are no labels.
        """
        keys = self.model_keys(state)
        first = 0 if self.warm_start else max(len(keys) - 1, 0)
        estimator = self._empty(state)
        start = first
        for number in range(len(keys) - 1, first - 1, -1):
            key = keys[number]
            if key is None or self._load(key, estimator):
                start = number + 1
                break
        for number in range(start, len(keys)):
            key = keys[number]
            if key is None:
                estimator = self._empty(state)
            else:
                labelled = state.training_sets[number]
                estimator = self._train(estimator, key, labelled, state)
        return estimator

    def latest(self, state: State) -> tuple[int, CNNClassifier | None]:
        """Load the last model that was made, of fewer labels than there are maybe.

        Returns
        -------
        n_labels : int
            That it was trained with; 0 if there is no model.
        estimator : CNNClassifier or None
        """
        keys = self.model_keys(state)
        for key, labelled in zip(keys[::-1], state.training_sets[::-1], strict=True):
            estimator = self._empty(state)
            if key is not None and self._load(key, estimator):
                return len(labelled), estimator
        return 0, None

    def _empty(self, state: State) -> CNNClassifier:
        self._learner.set_params(classes=state.classes)
        self._learner.resume(["none"], np.array([None]))
        return self._learner.estimator_

    def _path(self, key: str) -> Path:
        return self._models / f"{key}.safetensors"

    def _fingerprint(self) -> str:
        """Name M0's weights: a file of weights may have been replaced."""
        if self._weights is None:
            self._weights = self._learner.estimator.source_network().fingerprint
        return self._weights

    def _trained(self) -> list[dict[str, Any]]:
        """What the log says of the models that were made, oldest first."""
        rows = self._store.rows(
            "SELECT detail FROM events WHERE kind = 'train' ORDER BY id"
        )
        with self._store.intact():
            return [dict(json.loads(detail)) for (detail,) in rows]

    def _recorded(self) -> dict[str, str]:
        """SHA-256 of the models that were made, by name."""
        details = self._trained()
        with self._store.intact():
            return {detail["key"]: detail["sha256"] for detail in details}

    def _warn_of_other_weights(self) -> None:
        """Say so where the last model was made from other weights than these."""
        before = [detail.get("weights") for detail in self._trained()[-1:]]
        if before and before[0] not in (None, self._fingerprint()):
            warnings.warn(
                f"The network's weights are others (fingerprint {self._fingerprint()}) "
                f"than those of the last model ({before[0]}): models are made anew "
                "from them. If that is not meant, put the old weights back.",
                stacklevel=2,
            )

    def _load(self, key: str, estimator: CNNClassifier) -> bool:
        expected = self._recorded().get(key)
        path = self._path(key)
        if expected is None or not path.is_file():
            return False
        if file_digest(path) != expected:
            warnings.warn(
                f"The model {path.name} was damaged or changed; it is made anew.",
                stacklevel=2,
            )
            return False
        load_model(estimator, path)
        _log.info("model %s loaded", key)
        return True

    def _train(
        self,
        base: CNNClassifier,
        key: str,
        labelled: list[tuple[int, str]],
        state: State,
    ) -> CNNClassifier:
        begin = perf_counter()
        _log.info("training with %d labels", len(labelled))
        self._warn_of_other_weights()
        images, labels = zip(*labelled, strict=True)
        self._learner.resume(self.files(list(images), state), np.array(labels))
        if hasattr(base, "net_"):
            self._learner.estimator_ = base
        estimator = self._learner.adapt().estimator_
        self._check_unchanged(list(images), state)
        seconds = perf_counter() - begin
        self._models.mkdir(exist_ok=True)
        remove_leftovers(self._models)
        path = self._path(key)
        try:
            sha256 = save_model(estimator, path)
        except Exception as error:
            raise CampaignError(
                f"The labels are safe, but the model could not be saved as "
                f"{str(path)!r} ({error}). Once there is room, the next query makes "
                "it again."
            ) from error
        with self._store.transaction():
            self._store.add_event(
                "train",
                key=key,
                sha256=sha256,
                n_labels=len(labelled),
                weights=self._fingerprint(),
                seconds=round(seconds, 3),
            )
        _log.info("trained in %.1f s, saved as %s", seconds, path)
        made = sorted(self._models.glob("*.safetensors"), key=_age, reverse=True)
        for old in made[_KEPT:]:
            old.unlink(missing_ok=True)
        return estimator

    def _check_unchanged(self, images: list[int], state: State) -> None:
        """Refuse a model of other pictures than the ones it will be named by."""
        for image in images:
            content = state.contents[image]
            found = self._places.file(state.paths[image], state.pools).stat()
            if (found.st_size, found.st_mtime_ns) != (content.size, content.mtime_ns):
                raise CampaignError(
                    f"The labels are safe, but {state.paths[image]!r} was changed "
                    "while the model was trained. The next query trains it again."
                )

    # --- queries ------------------------------------------------------------

    def query_key(self, state: State, n: int) -> str:
        """Name a query by what it depends on."""
        keys = self.model_keys(state)
        pool = [(state.paths[i], state.contents[i].sha256) for i in state.candidates()]
        known = [
            (state.paths[i], state.contents[i].sha256, label)
            for i, label in state.labelled()
        ]
        model = keys[-1] if keys else None
        given = model or self._fingerprint()
        return digest("query", given, known, pool, n, *_other_classes(state))

    def query(self, state: State, n: int) -> list[tuple[int, Proposal]]:
        """Choose `n` of the candidates."""
        begin = perf_counter()
        estimator = self.model(state)
        labels = dict(state.labelled())
        images = sorted({*labels, *state.candidates()}, key=state.paths.__getitem__)
        files = self.files(images, state)
        y = np.array([labels.get(image) for image in images], dtype=object)
        own = self._folder, self._features, self._learner
        X = stored(*own, images, files, state) or files
        self._learner.resume(X, y, iteration=len(labels) / self.n_instances)
        if hasattr(estimator, "net_"):
            self._learner.estimator_ = estimator
        chosen, scores = self._learner.query_with_scores(n)
        guesses: list[tuple[str | None, float | None]] = [(None, None)] * n
        if hasattr(estimator, "net_"):
            proba = estimator.predict_proba([files[i] for i in chosen])
            best = proba.argmax(axis=1)
            guesses = [
                (str(estimator.classes_[k]), float(row[k]))
                for k, row in zip(best, proba, strict=True)
            ]
        _log.info(
            "%d of %d images chosen in %.1f s",
            n,
            len(images) - len(labels),
            perf_counter() - begin,
        )
        return [
            (
                images[i],
                Proposal(
                    state.paths[images[i]],
                    None if math.isnan(score) else float(score),
                    *guess,
                    str(state.contents[images[i]].sha256),
                ),
            )
            for i, score, guess in zip(chosen, scores, guesses, strict=True)
        ]


def _other_classes(state: State) -> list[list[str]]:
    """What a name says of the classes, once they are not those of the start."""
    return [state.classes] if state.naming.changed else []


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
