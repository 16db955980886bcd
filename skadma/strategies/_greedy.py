"""Greedy choice of rows, lazily and over the partitions of a feature store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._utils.lazy_rows import BLOCK_ROWS, AnyRows, selected
from ..features.store.executing import run_all
from ..features.store.hashing import partition


def lazy_greedy(
    values: np.ndarray,
    n: int,
    update: Callable[[np.ndarray, int], np.ndarray],
    add: Callable[[int], None],
    *,
    n_ahead: int,
    least: float = -np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the row of the greatest value, n times; return the rows and their values.

    After each choice `add` gets the row. A value only falls as rows are added, so an
    old value is an upper bound: `values` (overwritten) are computed again only where
    they are the largest, at first `n_ahead` at once, by `update(rows, since)` of rows
    whose values take the first `since` choices into account. `least` cannot fall.
    """
    chosen = np.empty(n, dtype=np.intp)
    found = np.empty(n)
    seen = np.zeros(len(values), dtype=np.intp)  # choices taken into account
    for k in range(n):
        size = n_ahead
        while seen[i := int(values.argmax())] < k and values[i] > least:
            size = min(size, len(values))
            ahead = np.argpartition(values, len(values) - size)[-size:]
            old = (seen[ahead] < k) & (values[ahead] > least)
            ahead = np.union1d(ahead[old], i)  # i may be one of many equals
            values[ahead] = update(ahead, seen[ahead].min())
            seen[ahead] = k
            size = min(2 * size, BLOCK_ROWS)
        chosen[k], found[k] = i, values[i]
        add(i)
        values[i] = -np.inf
    return chosen, found


def choose_from_partitions(
    choose: Callable[[AnyRows], tuple[Any, ...]],
    features: AnyRows,
    store: Any,
    seed: int,
) -> tuple[list[np.ndarray], list[tuple[Any, ...]], np.ndarray]:
    """Choose from each partition by the store's executor.

    Returns the partitions, what `choose` returned for each, of which the first are the
    rows chosen, and the union of these.
    """
    partitions = partition(store.hashes, store.partitions, seed)
    found = run_all(
        choose, [selected(features, rows) for rows in partitions], store.executor
    )
    union = [rows[one[0]] for rows, one in zip(partitions, found, strict=True)]
    return partitions, found, np.concatenate(union)
