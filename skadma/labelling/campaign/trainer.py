"""The trainer: makes a campaign's models and queries from its settings and log."""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from ..._utils.atomic import file_digest, remove_leftovers
from ..._utils.processes import release_freed_memory
from ...evaluation import out_of_fold_proba
from ...features.estimators import per_label
from ...persistence.params import ModelError
from ...strategies._uncertainty_herding import (
    UncertaintyHerding,
    herd_by_distances,
    herding_distances,
)
from ...training.probe_classifier import ProbeClassifier
from .embeddings import is_of_table, read_embeddings, table_digests
from .event_log import CampaignError, EventLog
from .settings import build_estimator, build_strategy, check_usable
from .state import Proposal, State, digest, propose, read_state, refresh_if_there
from .stored_settings import learns_at_once

if TYPE_CHECKING:
    from torch import nn

    from ...classifier import CNNClassifier
    from ...features.store import FeatureStore
    from ...learner import ActiveLearner
    from ...networks import PretrainedNetwork

_logger = logging.getLogger(__name__)
_KEPT = 3
"""Models that stay on the disk: undoing finds them; older ones can be made again."""
_FIRST = 256  # images that the network is run on before the page's first choice
_MOST_DISTANCES = 12_000
"""Images of which the distances between all are kept, 4 bytes each."""


@dataclass(eq=False)
class Table:
    """A pretrained network's outputs for the images that can be read."""

    contents: np.ndarray  # SHA-256, sorted
    rows: np.ndarray  # (n, d), float32
    source: Any  # the network with the images' range of values; None of embeddings

    @cached_property
    def distances(self) -> np.ndarray:
        """Distances between all rows, as UncertaintyHerding compares them."""
        distances = herding_distances(self.rows)
        release_freed_memory()  # of the network's pass, too
        return distances

    def numbers(self, contents: Iterable[str]) -> np.ndarray:
        """Rows of contents."""
        return np.searchsorted(self.contents, np.array([*contents], dtype=str))


@dataclass(eq=False)
class Learnt:
    """A probe of some labels, by content, and its probabilities of a table's rows."""

    table: Table
    labels: dict[str, str]
    classes: list[str]
    probe: ProbeClassifier  # not fitted without labels
    proba: np.ndarray | None = None


class Trainer:
    """Make models and queries from a campaign's log.

    Both are named by all that they depend on: the pretrained weights, the labelled
    contents in order, the classes, the candidates, the number asked for. What was
    recorded under a name is not computed again, and computing it again gives the same.

    `backbone` is needed where the settings have only its name.
    """

    def __init__(
        self,
        log: EventLog,
        settings: dict[str, Any],
        backbone: Callable[[], nn.Module] | None,
    ) -> None:
        self._log = log
        self._folder = log.path.parent
        self._models = self._folder / "models"
        self.seed: int = settings["random_state"]
        self.warm_start: bool = settings["warm_start"]
        folder, described = self._folder, settings["estimator"]
        self._estimator = build_estimator(described, backbone, folder / "cache")
        self._strategy = build_strategy(settings["strategy"], folder)
        check_usable(self._estimator, self._strategy, settings)
        self.is_of_table = is_of_table(settings)
        self._settings = settings
        self._learnt: Learnt | None = None
        self._n_instances: int = settings["n_instances"]

    @cached_property
    def _learner(self) -> ActiveLearner:
        """What trains a network and queries it; of no use with a table."""
        from ...learner import ActiveLearner

        return ActiveLearner(
            self._estimator,
            self._strategy,
            n_rounds=None,
            n_instances=self._n_instances,
            warm_start=self.warm_start,
            store=None,
            random_state=self.seed,
        )

    def learns(self, state: State) -> bool:
        """Whether a state's labels are learnt at once, by a probe of rows in memory."""
        return learns_at_once(self._settings, len(state.usable()))

    def files(self, images: Iterable[int], state: State) -> list[str]:
        """Files of images."""
        return [str(state.folders.file(state.paths[image])) for image in images]

    def inputs(self, images: Iterable[int], state: State) -> Any:
        """What the model predicts images by: their files, or rows of a table."""
        if not self.is_of_table or (learnt := self.learnt(state)) is None:
            return self.files(images, state)
        return learnt.table.rows[learnt.table.numbers(state.sha256s(images))]

    def ways(self, state: State) -> tuple[CNNClassifier, CNNClassifier]:
        """The campaign's way of training and the other one: a probe or fine-tuning."""
        own = clone(self._estimator).set_params(classes=state.classes)
        if own.random_state is None:
            own.set_params(random_state=self.seed)
        if (learnt := self.learnt(state)) is not None:
            source = learnt.table.source
            own.set_params(value_range=source.preprocessing.value_range)
        backbone, is_probe = own.backbone, own.training == "probe"
        if isinstance(backbone, str):
            if is_probe:
                backbone = backbone.removeprefix("layers/").partition("+")[0]
            elif not backbone.startswith(("layers/", "hf/")):
                backbone = f"layers/{backbone}"
        training = "fine-tune" if is_probe else "probe"
        # Not the campaign's cache on the disk: what is frozen is large, and used once.
        other = clone(own).set_params(
            backbone=backbone, training=training, n_frozen_layers="paper", memory=None
        )
        return own, other

    # --- models -------------------------------------------------------------

    def present_model(self) -> tuple[State, Any]:
        """Refresh the log, and train or load the model of all its labels."""
        with self._log.locked("training"):
            refresh_if_there(self._log)
            state = read_state(self._log)
            return state, self.model(state)

    def model(self, state: State) -> Any:
        """Load the model of a state's labels, or train it. Without labels, unfitted."""
        if (learnt := self.learnt(state)) is not None:
            if self.is_of_table:
                return learnt.probe
            return self._with_probe(learnt, state)
        keys = self.model_keys(state)
        estimator = self._unfitted(state)
        missing: list[tuple[str, list[tuple[int, str]]]] = []
        for key, labelled in zip(keys[::-1], state.training_sets[::-1], strict=True):
            if key is None or self._load(key, estimator):
                break
            missing.append((key, labelled))
            if not self.warm_start:
                break
        for key, labelled in reversed(missing):
            estimator = self._train(estimator, key, labelled, state)
        return estimator

    def last_model(self, state: State) -> tuple[int, CNNClassifier | None]:
        """Load the last model that was made, and the number of its labels.

        0 and None if there is no model.
        """
        keys = self.model_keys(state)
        for key, labelled in zip(keys[::-1], state.training_sets[::-1], strict=True):
            estimator = self._unfitted(state)
            if key is not None and self._load(key, estimator):
                return len(labelled), estimator
        return 0, None

    def model_key(self, state: State) -> str | None:
        """Name the model of a state's labels; None without labels."""
        keys = self.model_keys(state)
        return keys[-1] if keys else None

    def model_keys(self, state: State) -> list[str | None]:
        """Name the models of each training set; None for one without labels."""
        weights = self._fingerprint if state.training_sets else None
        keys: list[str | None] = []
        for labelled in state.training_sets:
            known = [(state.contents[i].sha256, label) for i, label in labelled]
            base = keys[-1] if keys and self.warm_start else None
            name = digest("model", weights, base, known, *_changed_classes(state))
            keys.append(name if labelled else None)
        return keys

    def _unfitted(self, state: State) -> CNNClassifier:
        self._learner.set_params(classes=state.classes)
        self._learner.resume(["none"], _targets([None], state))
        return self._learner.estimator_

    @cached_property
    def source_network(self) -> PretrainedNetwork:
        """The pretrained network."""
        return self._estimator.source_network()

    @property
    def _fingerprint(self) -> str:
        """Name the pretrained weights: a file of weights may have been replaced.

        Of a table the first file: rows that came later do not change those before.
        """
        if self.is_of_table:
            return table_digests(self._log)[0]
        return self.source_network.fingerprint

    def _trained(self) -> list[dict[str, Any]]:
        """The details of the log's "train" events, oldest first."""
        rows = self._log.rows(
            "SELECT detail FROM events WHERE kind = 'train' ORDER BY id"
        )
        with self._log.intact():
            return [dict(json.loads(detail)) for (detail,) in rows]

    def _load(self, key: str, estimator: CNNClassifier) -> bool:
        with self._log.intact():
            known = {each["key"]: each["sha256"] for each in self._trained()}
        expected, path = known.get(key), self._models / f"{key}.safetensors"
        if expected is None or not path.is_file():
            return False
        if file_digest(path) != expected:
            warnings.warn(
                f"The model {path.name} was damaged or changed; it is made anew.",
                stacklevel=2,
            )
            return False
        try:
            from ...persistence.network_file import read_network

            read_network(estimator, path)
        except ModelError as error:
            raise CampaignError(str(error)) from error
        _logger.info("model %s loaded", key)
        return True

    def _train(
        self,
        base: CNNClassifier,
        key: str,
        labelled: list[tuple[int, str]],
        state: State,
    ) -> CNNClassifier:
        begin = perf_counter()
        _logger.info("training with %d labels", len(labelled))
        self._warn_of_other_weights()
        images, labels = zip(*labelled, strict=True)
        self._learner.resume(self.files(images, state), _targets(labels, state))
        if hasattr(base, "net_"):
            self._learner.estimator_ = base
        estimator = self._learner.adapt().estimator_
        self.check_unchanged(images, state)
        seconds = perf_counter() - begin
        self._models.mkdir(exist_ok=True)
        remove_leftovers(self._models)
        path = self._models / f"{key}.safetensors"
        try:
            from ...persistence.network_file import write_network

            sha256 = write_network(estimator, path)
        except Exception as error:
            raise CampaignError(
                f"The labels are safe, but the model could not be saved as "
                f"{str(path)!r} ({error}). Once there is room, the next query makes "
                "it again."
            ) from error
        with self._log.transaction():
            self._log.add_event(
                "train",
                key=key,
                sha256=sha256,
                n_labels=len(labelled),
                weights=self._fingerprint,
                seconds=round(seconds, 3),
            )
        _logger.info("trained in %.1f s, saved as %s", seconds, path)
        made = self._models.glob("*.safetensors")
        for old in sorted(made, key=lambda file: file.stat().st_mtime_ns)[:-_KEPT]:
            old.unlink(missing_ok=True)
        return estimator

    def _warn_of_other_weights(self) -> None:
        """Warn if the last model was made from other pretrained weights."""
        before = [detail.get("weights") for detail in self._trained()[-1:]]
        if before and before[0] not in (None, self._fingerprint):
            warnings.warn(
                f"The network's weights are others (fingerprint {self._fingerprint}) "
                f"than those of the last model ({before[0]}): models are made anew "
                "from them. If that is not meant, put the old weights back.",
                stacklevel=2,
            )

    def check_unchanged(self, images: Sequence[int], state: State) -> None:
        """Refuse a model of other images than those by whose contents it is named."""
        for image in images:
            content = state.contents[image]
            found = state.folders.file(state.paths[image]).stat()
            if (found.st_size, found.st_mtime_ns) != (content.size, content.mtime_ns):
                raise CampaignError(
                    f"The labels are safe, but {state.paths[image]!r} was changed "
                    "while the model was trained. The next query trains it again."
                )

    # --- a probe: a function of the labels and the network's outputs ------------------

    def part_of(self, state: State) -> tuple[State, int]:
        """Restrict a state to images that are looked at soon; how many are left.

        Decided ones come first, then at random (by SHA-256) as many as were before.
        """
        known = {*self._learnt.table.contents.tolist()} if self._learnt else set()
        usable, decided = state.usable(), state.decisions
        new = sorted(usable.keys() - known, key=lambda s: (s not in decided, s))
        n = sum(s in decided for s in new) + max(_FIRST, len(known))
        return state.restricted({*known, *new[:n]}), max(0, len(new) - n)

    def learnt(self, state: State) -> Learnt | None:
        """Fit the probe to a state's labels, in milliseconds.

        None where a network is trained, or the images are too many.
        """
        if not self.learns(state):
            return None
        table = self._table(state.usable(), state)
        labels = {str(state.contents[i].sha256): y for i, y in state.labelled()}
        known = table, [*labels.items()], state.classes  # `loo_proba_` has their order
        if (last := self._learnt) is not None and known == (
            last.table, [*last.labels.items()], last.classes
        ):  # fmt: skip
            return last
        probe = self._probe(table.source, state)
        learnt = self._learnt = Learnt(table, labels, state.classes, probe)
        if labels:
            y = _targets([*labels.values()], state)
            probe.fit(table.rows[table.numbers(labels)], y)
            learnt.proba = probe.predict_proba(table.rows)
        return learnt

    def _probe(self, source: PretrainedNetwork | None, state: State) -> ProbeClassifier:
        """Make the probe of a network's outputs, not fitted."""
        return ProbeClassifier(
            block_widths=_block_widths(source),
            classes=state.classes,
            class_weight=self._estimator.class_weight,
        )

    def _table(self, usable: dict[str, int], state: State) -> Table:
        """Take the rows of images from memory or the cache, and compute the others."""
        known = self._learnt.table if self._learnt else None
        if known is not None and usable.keys() == {*known.contents.tolist()}:
            return known
        if self.is_of_table:
            stored, keys = read_embeddings(self._log), np.sort([*usable])
            with self._log.intact():
                return Table(keys, np.array([stored[key] for key in keys]), None)
        from ...features.adapter import cnn_adapter

        files = dict(zip(usable, self.files(usable.values(), state), strict=True))
        adapter = cnn_adapter(self._estimator).with_range_of([*files.values()])
        adapter = replace(adapter, verbose=sys.stderr.isatty())
        source, rows = adapter.source, {}
        if known is not None and known.source.namespace == source.namespace:
            rows = dict(zip(known.contents.tolist(), known.rows, strict=True))
        if new := [sha256 for sha256 in files if sha256 not in rows]:
            _logger.info("the network is run on %d images", len(new))
            found = adapter.collect([files[s] for s in new], source_layers=[-2])[1]
            rows |= zip(new, *found.values(), strict=True)
            self.check_unchanged([usable[sha256] for sha256 in new], state)
        contents = np.array(sorted(files))
        return Table(contents, np.array([rows[sha256] for sha256 in contents]), source)

    def _with_probe(self, learnt: Learnt, state: State) -> CNNClassifier:
        """Make the classifier of images whose last layer is a probe."""
        import torch

        estimator, probe = self._unfitted(state), learnt.probe
        if not learnt.labels:
            return estimator
        source, seed = learnt.table.source, np.random.RandomState(self.seed)
        tensors = source.module.state_dict()
        head, n_frozen = source.graph.layers[-1].name, len(source.graph.layers) - 1
        fitted = {"centre": probe.center_, "weight": probe.coef_}
        for name, values in {**fitted, "bias": probe.intercept_}.items():
            tensors[f"{head}.{name}"] = torch.from_numpy(np.float32(values))
        tensors = {f"network.{name}": tensor for name, tensor in tensors.items()}
        n_labels = len(learnt.labels)
        fitted_with = n_frozen, n_labels, seed, probe.multilabel_
        return estimator.restore(source, tensors, probe.classes_, *fitted_with)

    def _choose(
        self, learnt: Learnt, state: State, n: int
    ) -> tuple[list[int], np.ndarray]:
        """Choose `n` images by their rows; with the strategy's scores."""
        table, proba = learnt.table, learnt.proba
        candidates = state.candidates()
        images = dict(zip(state.sha256s(candidates), candidates, strict=True))
        contents = sorted(images)
        pool, labelled = table.numbers(contents), table.numbers(learnt.labels)
        strategy = clone(self._strategy)
        if strategy.random_state is None:
            strategy.set_params(random_state=self.seed)
        if (
            isinstance(strategy, UncertaintyHerding)
            and strategy.normalize
            and len(table.rows) <= _MOST_DISTANCES
        ):
            # By cover alone in the first round: few labels' margins mislead.
            first = len(labelled) < self._n_instances
            some = None if proba is None or first else proba[pool]
            if some is not None and state.class_names.several:
                some = per_label(some)
            by = table.distances, labelled, pool, some, n, strategy._seed()
            chosen, scores = herd_by_distances(*by)
        else:
            chosen, scores = strategy(
                learnt.probe,
                table.rows[pool],
                n,
                iteration=len(labelled) / self._n_instances,
                X_labeled=table.rows[labelled],
                y_labeled=_targets([*learnt.labels.values()], state),
            )
        return [images[contents[i]] for i in chosen], scores

    def predictions(
        self, state: State, images: Sequence[int]
    ) -> tuple[int, list[tuple[str, float]]]:
        """Label and probability of images, by the last model that was made.

        And the number of its labels; without a model 0 and nothing. Of several labels
        per image those that are more probable than not, and the mean probability of
        these decisions.
        """
        learnt, model = self.learnt(state), None
        if learnt is None:
            n_labels, model = self.last_model(state)
        else:
            n_labels = len(learnt.labels)
        if not n_labels or not images:
            return n_labels, []
        if learnt is not None and learnt.proba is not None:
            proba = learnt.proba[learnt.table.numbers(state.sha256s(images))]
            classes = learnt.probe.classes_
        elif model is not None:
            proba = model.predict_proba(self.files(images, state))
            classes = model.classes_
        if (names := state.class_names).several:
            sure = np.maximum(proba, 1 - proba).mean(axis=1).tolist()
            found = [names.join(classes[row > 0.5].tolist()) for row in proba]
            return n_labels, [*zip(found, sure, strict=True)]
        best = zip(proba.argmax(axis=1), proba.max(axis=1), strict=True)
        return n_labels, [(str(classes[k]), float(p)) for k, p in best]

    # --- queries ------------------------------------------------------------

    def query_key(self, state: State, n: int) -> str:
        """Name a query by what it depends on."""
        pool = [(state.paths[i], state.contents[i].sha256) for i in state.candidates()]
        known = [
            (state.paths[i], state.contents[i].sha256, label)
            for i, label in state.labelled()
        ]
        model = self.model_key(state) or self._fingerprint
        return digest("query", model, known, pool, n, *_changed_classes(state))

    def recorded_query(self, key: str, state: State) -> list[Proposal]:
        """Find the log's answer to a query; empty if it was not asked before."""
        for event, detail in self._log.rows(
            "SELECT id, detail FROM events WHERE kind = 'query' ORDER BY id DESC"
        ):
            with self._log.intact():
                found = json.loads(detail)["key"] == key
            if found:
                rows = self._log.rows(
                    "SELECT image, score, guess, confidence FROM proposals "
                    "WHERE event = ? ORDER BY place",
                    event,
                )
                return [propose(state, *row) for row in rows]
        return []

    def query(self, state: State, n: int) -> list[tuple[int, Proposal]]:
        """Choose `n` of the candidates, or all that are left."""
        begin = perf_counter()
        if (learnt := self.learnt(state)) is not None:
            images, scores = self._choose(learnt, state, n)
        else:
            images, scores = self._choose_by_network(state, n)
        guesses: Sequence[tuple[str | None, float | None]]
        guesses = self.predictions(state, images)[1] or [(None, None)] * len(images)
        _logger.info(
            "%d of %d images chosen in %.1f s",
            len(images),
            len(state.candidates()),
            perf_counter() - begin,
        )
        known = [None if math.isnan(score) else float(score) for score in scores]
        return [
            (image, propose(state, image, score, *guessed))
            for image, score, guessed in zip(images, known, guesses, strict=True)
        ]

    def _choose_by_network(self, state: State, n: int) -> tuple[list[int], np.ndarray]:
        """Choose `n` images by the network; with the strategy's scores."""
        estimator = self.model(state)
        labels = dict(state.labelled())
        images = sorted({*labels, *state.candidates()}, key=state.paths.__getitem__)
        files = self.files(images, state)
        y = _targets([labels.get(image) for image in images], state)
        X = self._stored_features(files, state.sha256s(images)) or files
        self._learner.resume(X, y, iteration=len(labels) / self._n_instances)
        if hasattr(estimator, "net_"):
            self._learner.estimator_ = estimator
        chosen, scores = self._learner.query_with_scores(n)
        return [images[i] for i in chosen], scores

    def _stored_features(
        self, files: list[str], contents: list[str]
    ) -> FeatureStore | None:
        """Open the features of images on the disk, where memory is too small for them.

        Once they are in the campaign's folder, they are used. Features that are missing
        are computed when a strategy asks.
        """
        from ...features.store import FeatureStore, can_be_stored, fits_memory

        given = self._estimator, files, self._strategy
        place = self._folder / "features"
        if not can_be_stored(*given) or (
            not (place / "store.json").exists() and fits_memory(*given)
        ):
            return None
        store = self._open_store(place, dict(zip(contents, files, strict=True)))
        number = {key: i for i, key in enumerate(store.keys)}
        rows = np.array([number[key] for key in contents])
        # Files may be elsewhere by now than when they were scanned.
        where = list(store.images)
        for row, file in zip(rows, files, strict=True):
            where[row] = file
        store = FeatureStore.open(place, images=where)
        store.skip_unreadable = True  # some files of former images may be missing
        return store.select(rows)

    def _open_store(self, place: Path, files: dict[str, str]) -> FeatureStore:
        """Open or begin a store of features, with the files of these contents."""
        from ...features.store import FeatureStore, StoreError

        names, paths = list(files), list(files.values())
        try:
            store = FeatureStore.open(place)
            return store.append(self._estimator, paths, names, compute=False)
        except StoreError as error:
            if (place / "store.json").exists():
                _logger.warning("the features are computed anew: %s", error)
                (place / "store.json").unlink()
        return FeatureStore.build(
            self._estimator,
            paths,
            place,
            layer=self._strategy.layer,
            dtype="float32",
            keys=names,
            compute=False,
        )

    def source_features(self, images: Sequence[int], state: State) -> np.ndarray:
        """Outputs of the pretrained network's last layer but one, a row per image."""
        if (learnt := self.learnt(state)) is not None:
            return learnt.table.rows[learnt.table.numbers(state.sha256s(images))]
        return clone(self._estimator).embed(self.files(images, state), -2)[-2]

    # --- labels judged by models that did not see them ----------------------

    def unseen_proba(
        self,
        images: list[int],
        labels: np.ndarray,
        state: State,
        *,
        refit: bool,
        verbose: bool = False,
    ) -> np.ndarray:
        """Out-of-fold probabilities of labelled images.

        Of a probe they are leave-one-out. Of a fine-tuned network, with `refit` by the
        network, adapted anew for each fold; else by a probe of the pretrained one.
        """
        if (learnt := self.learnt(state)) is not None:
            probe = learnt.probe
        elif refit:
            given = self.ways(state)[0], self.files(images, state), labels
            return out_of_fold_proba(*given, classes=state.classes, verbose=verbose)
        else:
            is_probe = self._estimator.training == "probe"
            probe = self._probe(self.source_network if is_probe else None, state)
            probe.fit(self.source_features(images, state), labels)
        at = np.searchsorted(probe.classes_, labels)
        alone = np.bincount(at)[at] < 2
        return np.where(alone[:, None], np.nan, probe.loo_proba_)


def _block_widths(source: PretrainedNetwork | None) -> list[int] | None:
    """Widths of the feature blocks that a network's last layer gets."""
    if source is None:
        return None
    from ...networks.heads import get_head

    head = get_head(source.module, source.graph.layers[-1].name)
    return list(getattr(head, "block_widths", [head.weight.shape[1]]))


def _targets(labels: Sequence[str | None], state: State) -> np.ndarray:
    """What is fitted: labels, or rows of 0 and 1 where there are several; -1: none."""
    names = state.class_names
    if not names.several:
        return np.array(labels, dtype=object if None in labels else str)
    held = [label and {*names.split(label)} for label in labels]
    rows = [[-1 if h is None else name in h for name in names.classes] for h in held]
    return np.array(rows, dtype=int)


def _changed_classes(state: State) -> list[list[str]]:
    """The classes, for a name, once they differ from those of the start."""
    return [state.classes] if state.class_names.changed else []
