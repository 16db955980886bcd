"""Work on the parts of a feature store, here or on many machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..features.store import FeatureStore
from ..features.store.columns import digest_of, map_array, write_shard
from ..features.store.executing import run_tasks
from ..features.store.hashing import partition


@dataclass(frozen=True)
class Shared:
    """Arrays that every task gets, named by what is in them.

    Attributes
    ----------
    file : Path
    names : sequence of str
    """

    file: Path
    names: Sequence[str]

    def arrays(self) -> dict[str, np.ndarray]:
        """Read them, once for a process."""
        return _read(self.file, tuple(self.names))


@lru_cache(maxsize=2)
def _read(file: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: np.array(map_array(file, name)) for name in names}


@dataclass(frozen=True)
class PartTask:
    """A part to work on.

    Attributes
    ----------
    function : callable
        Gets the rows, the shared arrays and `settings`.
    rows : LazyRows, or a sequence of them
    shared : Shared or dict
    settings : object
    """

    function: Callable[[Any, dict[str, np.ndarray], Any], Any]
    rows: Any
    shared: Any
    settings: Any


def parts_of(store: FeatureStore, seed: int) -> list[np.ndarray]:
    """Divide a store's images at random by their keys' hashes.

    Parameters
    ----------
    store : FeatureStore
    seed : int

    Returns
    -------
    list of ndarray of int
        Positions, of each part in an order that the keys alone decide.
    """
    parts = partition(store.hashes, store.partitions, seed)
    return [part for part in parts if len(part)]


def for_parts(
    store: FeatureStore,
    function: Callable[[Any, dict[str, np.ndarray], Any], Any],
    rows: Sequence[Any],
    shared: Mapping[str, np.ndarray],
    settings: Any = None,
) -> list[Any]:
    """Do something with the rows of each part.

    Parameters
    ----------
    store : FeatureStore
        Has the executor; and its folder is where workers find `shared`.
    function : callable
        Importable; see :class:`PartTask`.
    rows : sequence
        Of each part.
    shared : mapping of str to ndarray
        What all parts need: sent once to a worker.
    settings : object
        What else they need; small.

    Returns
    -------
    list
        What the function returned for each part.
    """
    given: Any = dict(shared)
    file = None
    if store.executor is not None:
        file = _write(store.folder, shared)
        given = Shared(file, tuple(shared))
    tasks = [PartTask(function, some, given, settings) for some in rows]
    found: list[Any] = [None] * len(tasks)
    try:
        for number, result in run_tasks(_do, tasks, store.executor):
            found[number] = result
    finally:
        if file is not None:
            file.unlink(missing_ok=True)
    return found


def _do(task: PartTask) -> Any:
    shared = task.shared
    arrays = shared.arrays() if isinstance(shared, Shared) else shared
    return task.function(task.rows, arrays, task.settings)


def _write(folder: Path, shared: Mapping[str, np.ndarray]) -> Path:
    name = digest_of(shared)[:32]
    file = folder.absolute() / "shared" / f"{name}.safetensors"
    if not file.exists():
        write_shard(file, shared)
    return file
