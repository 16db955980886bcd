"""Whether a feature store is what was written, and still of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...classifier import CNNClassifier
from ..adapter import cnn_adapter
from .columns import check_shard, shard_file
from .plan import Plan
from .scanning import CONTENT, content_digest

if TYPE_CHECKING:
    from .feature_store import FeatureStore


def find_damage(
    store: FeatureStore, plan: Plan, estimator: CNNClassifier | None, *, repair: bool
) -> list[str]:
    """Say what is wrong with a store; see :meth:`FeatureStore.verify`."""
    found = []
    columns = [CONTENT, *(path.name for path in sorted(store.folder.glob("*-*")))]
    for number, size in enumerate(plan.sizes):
        wrong = []
        for column in columns:
            path = shard_file(store.folder, column, number)
            problem = check_shard(path, size)
            if problem and (path.exists() or not column.startswith("model-")):
                found.append(f"{column}/{path.name} {problem}")
                wrong.append(path)
        if estimator is not None and not wrong:
            for name in _changed(store, plan, estimator, number):
                found.append(f"{name!r} has changed since it was scanned")
                wrong = [shard_file(store.folder, c, number) for c in columns]
        for path in wrong if repair else ():
            path.unlink(missing_ok=True)
    return found


def _changed(
    store: FeatureStore, plan: Plan, estimator: CNNClassifier, number: int
) -> list[str]:
    """Keys of a shard's images that are not what was scanned."""
    start = sum(plan.sizes[:number])
    some = store.select(np.arange(start, start + plan.sizes[number]))
    X = some.images
    dataset = cnn_adapter(estimator).image_dataset(X)
    before = [sha.tobytes().hex() if sha.any() else "" for sha in some.sha256]
    return [
        key
        for i, (key, sha) in enumerate(zip(some.keys, before, strict=True))
        if content_digest(dataset, X, i) != sha
    ]
