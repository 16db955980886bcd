"""The features of a campaign's images, on the disk where they fit no memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...features.store import FeatureStore, StoreError, can_be_stored, fits_memory
from ...learner import ActiveLearner
from .state import State

_log = logging.getLogger(__name__)


def stored(
    folder: Path,
    features: str | Path | None,
    learner: ActiveLearner,
    images: Sequence[int],
    files: Sequence[str],
    state: State,
) -> FeatureStore | None:
    """Keep features on the disk, by contents, if they fit no memory or it is wanted.

    Once they are in the campaign's folder, they are used.

    Parameters
    ----------
    folder : Path
        The campaign's.
    features : "auto", str, Path or None
        See :class:`Campaign`.
    learner : ActiveLearner
    images : sequence of int
    files : sequence of str
        Where they are.
    state : State

    Returns
    -------
    FeatureStore or None
        Of the images, in order; scanned when a strategy asks.
    """
    estimator, strategy = learner.estimator, learner.strategy
    files = list(files)
    if features is None or not can_be_stored(estimator, files, strategy):
        return None
    place = folder / "features" if features == "auto" else Path(features)
    wanted = features != "auto" or (place / "store.json").exists()
    if not wanted and fits_memory(estimator, files, strategy):
        return None
    keys = [str(state.contents[image].sha256) for image in images]
    store = _open(place, learner, keys, files)
    number = {key: i for i, key in enumerate(store.keys)}
    rows = np.array([number[key] for key in keys])
    # Files may be elsewhere by now than when they were scanned.
    where = list(store.images)
    for row, file in zip(rows, files, strict=True):
        where[row] = file
    store = FeatureStore.open(place, images=where)
    store.skip_unreadable = True  # of the images before there may be some no more
    return store.select(rows)


def _open(
    place: Path, learner: ActiveLearner, keys: list[str], files: list[str]
) -> FeatureStore:
    estimator = learner.estimator
    unique = list(dict(zip(keys, files, strict=True)).items())
    names, paths = [key for key, _ in unique], [file for _, file in unique]
    try:
        store = FeatureStore.open(place)
        return store.append(estimator, paths, names, compute=False)
    except StoreError as error:
        if (place / "store.json").exists():
            _log.warning("the features are computed anew: %s", error)
            (place / "store.json").unlink()
    return FeatureStore.build(
        estimator,
        paths,
        place,
        layer=learner.strategy.layer,  # type: ignore[attr-defined]
        dtype="float32",
        keys=names,
        compute=False,
    )
