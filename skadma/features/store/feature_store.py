"""FeatureStore: the outputs of networks for a pool's images, on the disk."""

from __future__ import annotations

import copy
import logging
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from torch import nn

from ..._utils.lazy_rows import BLOCK_ROWS, LazyRows, row_by_row
from ..._utils.processes import progress_bar
from ...images.dataset import ImageDataset
from ...images.decoding import Range, UnreadableImageError
from ...images.selection import StoredImages, n_images, take
from ...networks.pretrained import fingerprint
from ...networks.torch_state import torch_defaults
from ..adapter import CNNAdapter, cnn_adapter
from .computing import (
    CONTENT,
    SOURCE,
    Column,
    ShardTask,
    compute_shard,
    file_states,
    image_digest,
    network_name,
    send_estimator,
)
from .executing import run_all, run_tasks
from .shards import (
    Manifest,
    ShardedRows,
    StoreError,
    add_images,
    check_shard,
    drop_columns,
    file_state,
    map_array,
    read_images,
    read_manifest,
    shard_file,
)

_log = logging.getLogger(__name__)

_checked: dict[Path, tuple[int, ...]] = {}
"""Files that this process has compared with their digests, and their states then."""


@dataclass(frozen=True)
class Outputs:
    """Outputs for the images of a store.

    Attributes
    ----------
    features : LazyRows of shape (n, d)
    proba : LazyRows of shape (n, n_classes) or (n, n_labels, 2), or None
        By the adapted network; None before the first fit, or where not asked for.
    """

    features: LazyRows
    proba: LazyRows | None


class FeatureStore(StoredImages):
    """Outputs of networks for a pool's images, kept on the disk in shards.

    Strategies and :class:`~skadma.ActiveLearner` take it where they take images, and
    hold a block of it at a time. :meth:`build` makes one, :meth:`open` opens one.

    Parameters
    ----------
    folder : str or Path
    manifest : Manifest
    images : images, optional
        The store's images in order, where they are not files.
    executor : Executor, callable that makes one, or None, default=None
        Any executor of ``concurrent.futures``, such as dask's
        ``Client.get_executor()``, whose workers see `folder` and the images' files
        under the same path. It runs the network over shards and strategies over
        partitions.
    partitions : int, default=1
        Into how many random partitions UncertaintyHerding and CoreSet divide the pool,
        by the images' keys. With 1 they choose as from an array in memory.
    block_rows : int, default=16384
        Rows held at once; a pool of no more is read whole.
    verbose : bool, default=False
        Show a progress bar while outputs are computed.

    Attributes
    ----------
    skip_unreadable : bool
        Leave out images that cannot be decoded, whatever the classifier does.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        *,
        images: Any = None,
        executor: Executor | Callable[[], Executor] | None = None,
        partitions: int = 1,
        block_rows: int = BLOCK_ROWS,
        verbose: bool = False,
    ) -> None:
        if partitions < 1 or block_rows < 1:
            raise ValueError(
                f"partitions={partitions} and block_rows={block_rows} must be at least "
                "1."
            )
        self.folder = Path(folder).absolute()
        self.executor = executor
        self.partitions = partitions
        self.block_rows = block_rows
        self.verbose = verbose
        self.skip_unreadable = False
        self._manifest = manifest
        self._given = images
        self._rows: np.ndarray | None = None  # those selected; None: all

    # --- build, open, append --------------------------------------------------------

    @classmethod
    def build(
        cls,
        estimator: Any,
        X: Any,
        folder: str | Path,
        *,
        layer: int | str = -2,
        dtype: str = "float16",
        keys: Sequence[str] | None = None,
        shard_rows: int = 4096,
        job: tuple[int, int] = (0, 1),
        compute: bool = True,
        **options: Any,
    ) -> FeatureStore:
        """Compute and keep the networks' outputs for images.

        Called again after a kill it goes on: a shard on the disk is not computed again.

        Parameters
        ----------
        estimator : CNNClassifier
            Fitted or not.
        X : images
        folder : str or Path
        layer : int or str, default=-2
            Whose outputs are kept.
        dtype : {"float16", "float32"}, default="float16"
        keys : sequence of str, optional
            Names of the images, all different. If None, the files' paths without
            symbolic links, or where the images are not files their numbers and digests.
        shard_rows : int, default=4096
            Images of a shard, which is what a kill may lose.
        job : tuple of int, default=(0, 1)
            (i, m): compute shards i, i + m, ... only, for m jobs without a scheduler
            between them.
        compute : bool, default=True
            False: outputs are computed when a strategy asks for them.
        **options
            `executor`, `partitions`, `block_rows`, `verbose`: see the class.

        Returns
        -------
        FeatureStore

        Raises
        ------
        StoreError
            If the folder has a store of other images, or of another network.
        """
        adapter = cnn_adapter(estimator)
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype={dtype!r}; it must be 'float16' or 'float32'.")
        if shard_rows < 1:
            raise ValueError(f"shard_rows={shard_rows} must be at least 1.")
        folder = Path(folder)
        known = read_manifest(folder)
        adapter = (
            adapter.with_range_of(X)
            if known is None
            else adapter.with_value_range(known.value_range)
        )
        names, paths = _name_images(adapter, X, keys)
        manifest = Manifest(
            _network_of(adapter),
            adapter.position(layer),
            dtype,
            shard_rows,
            from_files=paths is not None,
            value_range=adapter.value_range,
        )
        if known is None:
            folder.mkdir(parents=True, exist_ok=True)
            drop_columns(folder, _columns_on_disk(folder))  # of a removed manifest
            manifest = add_images(folder, manifest, names, paths)
        else:
            _check_same(folder, known, manifest, names)
            manifest = known
        store = cls(folder, manifest, images=X, **options)
        if compute:
            store.compute(estimator, job=job)
        return store

    @classmethod
    def open(
        cls, folder: str | Path, *, images: Any = None, **options: Any
    ) -> FeatureStore:
        """Open a store that was built.

        Parameters
        ----------
        folder : str or Path
        images : images, optional
            The store's images, if they are not files and are to be read again; or their
            files, if these are elsewhere by now.
        **options
            As in :meth:`build`.

        Returns
        -------
        FeatureStore
        """
        manifest = read_manifest(Path(folder))
        if manifest is None:
            raise StoreError(
                f"There is no feature store in {str(folder)!r}. FeatureStore.build "
                "makes one."
            )
        if images is not None and n_images(images) != manifest.n_rows:
            raise StoreError(
                f"The store in {str(folder)!r} is of {manifest.n_rows} images, but "
                f"images= has {n_images(images)}."
            )
        return cls(folder, manifest, images=images, **options)

    def append(
        self,
        estimator: Any,
        X: Any,
        keys: Sequence[str] | None = None,
        *,
        compute: bool = True,
    ) -> FeatureStore:
        """Add files behind those that are there, except those whose key is known.

        Parameters
        ----------
        estimator : CNNClassifier
        X : images
        keys : sequence of str, optional
            As in :meth:`build`.
        compute : bool, default=True

        Returns
        -------
        FeatureStore
            Of all of them.
        """
        self._check_whole("append to")
        adapter = self._check_network(estimator)
        names, paths = _name_images(adapter, X, keys)
        if paths is None or not self._manifest.from_files:
            raise StoreError(
                "Only files can be added to a store of files. Build a store of all "
                "images where they are arrays."
            )
        known = set(self.keys)
        new = np.flatnonzero([name not in known for name in names])
        store = copy.copy(self)
        if len(new):
            if self._given is not None:
                store._given = [*self._given, *take(X, new)]
            every = cnn_adapter(estimator).with_range_of([*self.images, *paths])
            manifest = self._manifest
            if not every.fitted:
                manifest = replace(manifest, value_range=every.value_range)
            store._manifest = add_images(
                self.folder, manifest, [names[i] for i in new], [paths[i] for i in new]
            )
        if compute:
            store.compute(estimator)
        return store

    # --- images ---------------------------------------------------------------------

    def __len__(self) -> int:
        return self._manifest.n_rows if self._rows is None else len(self._rows)

    def __getitem__(self, i: int) -> str:
        """Return the key of an image."""
        try:
            i = operator.index(i)
        except TypeError as error:
            raise TypeError(
                f"store[i] is the key of image i, and i an int; got {i!r}. "
                "store.select(indices) are some of the images, "
                "store.outputs(estimator).features[:5] the features of the first five."
            ) from error
        return self.select([i]).keys[0]

    @property
    def exists(self) -> bool:
        """Whether the store is still on the disk."""
        return (self.folder / "store.json").is_file()

    @property
    def keys(self) -> list[str]:
        """Names of the images."""
        return self._texts(0)

    @property
    def images(self) -> Any:
        """The images themselves: paths, or what was given."""
        if self._given is None and self._manifest.from_files:
            return self._texts(1)
        if self._given is None:
            raise StoreError(
                "The images of this store are not files, and have to be read again: "
                "give them to FeatureStore.open(folder, images=...)."
            )
        return self._given if self._rows is None else take(self._given, self._rows)

    @property
    def value_range(self) -> Range | None:
        """What becomes black and white in images of more than 8 bits.

        That of the classifier, or before its first fit the one for all images; None:
        what each file states, else all that its type can hold.
        """
        return self._manifest.value_range

    @property
    def readable(self) -> np.ndarray:
        """Which images could be decoded, shape (n,), bool."""
        return self._content("readable")

    @property
    def sha256(self) -> np.ndarray:
        """Digests of the images' files (or pixels), shape (n, 32), uint8."""
        return self._content("sha256")

    @property
    def hashes(self) -> np.ndarray:
        """Hashes of the keys, shape (n,), uint64."""
        return self._content("hash")

    def select(self, indices: ArrayLike) -> FeatureStore:
        """Return some of the images, by an array of indices or a mask, as a store."""
        indices = np.asarray(indices)
        if indices.dtype.kind == "b":
            indices = np.flatnonzero(indices)
        n, indices = len(self), indices.astype(np.intp)
        wrong = indices[(indices < -n) | (indices >= n)]
        if len(wrong):
            raise IndexError(f"image {wrong[0]} of {n}")
        indices = np.where(indices < 0, indices + n, indices)
        store = copy.copy(self)
        store._rows = indices if self._rows is None else self._rows[indices]
        return store

    # --- outputs --------------------------------------------------------------------

    def outputs(
        self,
        estimator: Any,
        layer: int | str = -2,
        *,
        initial: bool = False,
        proba: bool = True,
    ) -> Outputs:
        """Return outputs of networks; those that are not kept yet are computed.

        Where all layers up to `layer` are frozen, the features are those of the
        pretrained network; if only the last layer is trained, the probabilities of a
        changed network are a product with the stored features.

        Parameters
        ----------
        estimator : CNNClassifier
        layer : int or str, default=-2
        initial : bool, default=False
            Take the features from the pretrained network instead of the adapted one.
        proba : bool, default=True
            Whether probabilities are wanted.

        Returns
        -------
        Outputs

        Raises
        ------
        StoreError
            If the store is of another network.
        """
        adapter = self._check_network(estimator)
        columns, last_layer = self._columns(
            adapter, adapter.position(layer), initial=initial, proba=proba
        )
        self._compute(adapter, columns)
        features = self._rows_of(columns[0].name)
        if last_layer is not None:  # as it is now, also if it is trained before a read
            scores = row_by_row(partial(_scores, copy.deepcopy(last_layer)), features)
        elif len(columns) > 1:
            scores = self._rows_of(columns[1].name)
        else:
            return Outputs(features, None)
        proba_of = partial(_proba, adapter.multilabel)
        return Outputs(features, row_by_row(proba_of, scores))

    def proba(self, estimator: Any) -> LazyRows | None:
        """Class probabilities as strategies take them, NaN for unreadable images."""
        return self.outputs(estimator, self._manifest.layer, initial=True).proba

    def compute(self, estimator: Any, job: tuple[int, int] = (0, 1)) -> None:
        """Compute outputs that are missing, as :meth:`build` and the strategies do.

        A shard whose file is damaged is computed again, with a message in the log. A
        shard with an image that could not be decoded is computed again if the file's
        size or time of change is another one by now.

        Parameters
        ----------
        estimator : CNNClassifier
        job : tuple of int, default=(0, 1)
            See :meth:`build`.
        """
        if not 0 <= job[0] < job[1]:
            raise ValueError(f"job={job} must be (i, m) with 0 <= i < m.")
        adapter = self._check_network(estimator)
        columns, _ = self._columns(
            adapter, self._manifest.layer, initial=True, proba=True
        )
        self._compute(adapter, columns, job)

    # --- checks ---------------------------------------------------------------------

    def verify(self, estimator: Any = None, *, repair: bool = False) -> list[str]:
        """Compare every file with the digest it was written with; return what is wrong.

        Parameters
        ----------
        estimator : CNNClassifier, optional
            Then the images, too, are read and compared with those that were computed.
        repair : bool, default=False
            Remove what is wrong; :meth:`compute` and :meth:`build` compute it anew.

        Returns
        -------
        list of str
        """
        self._check_whole("verify")
        adapter = None
        if estimator is not None:
            adapter = cnn_adapter(estimator).with_value_range(self.value_range)
        found = []
        read_images.cache_clear()
        columns = _columns_on_disk(self.folder)
        for number, size in enumerate(self._manifest.sizes):
            try:
                read_images(self.folder, number)
            except StoreError as error:
                found.append(str(error))
                continue
            wrong = []
            for column in columns:
                path = shard_file(self.folder, column, number)
                problem = check_shard((path, size))
                if problem and (path.exists() or not column.startswith("model-")):
                    found.append(f"{column}/{path.name} {problem}")
                    wrong.append(path)
            if adapter is not None and not wrong:
                shard = self._shard(number)
                images, keys, digests = shard.images, shard.keys, shard.sha256
                dataset = adapter.image_dataset(images)
                for i in range(size):
                    if image_digest(dataset, images, i) != digests[i].tobytes():
                        found.append(f"{keys[i]!r} has changed since it was computed")
                        wrong = [shard_file(self.folder, c, number) for c in columns]
            for path in wrong if repair else ():
                path.unlink(missing_ok=True)
        return found

    def _check_network(self, estimator: Any) -> CNNAdapter:
        adapter = cnn_adapter(estimator)
        if not adapter.fitted and adapter.value_range is None:
            adapter = adapter.with_value_range(self.value_range)
        if _network_of(adapter) != self._manifest.network:
            raise StoreError(
                f"The feature store {str(self.folder)!r} is of another network, or of "
                "another image size, than the classifier's. Build one for it, in "
                "another folder."
            )
        return adapter

    def _check_whole(self, what: str) -> None:
        if self._rows is not None:
            raise StoreError(
                f"This is a selection from a store; {what} the whole one "
                "(FeatureStore.open(folder))."
            )

    # --- shards and columns ---------------------------------------------------------

    def _columns(
        self, adapter: CNNAdapter, layer: int, *, initial: bool, proba: bool
    ) -> tuple[list[Column], nn.Linear | None]:
        """The columns of a layer's outputs and of scores.

        Instead of the latter, the last layer whose inputs the former are.
        """
        proba = proba and adapter.fitted
        is_frozen = not adapter.fitted or layer < adapter.n_frozen
        of_source = initial or is_frozen
        head = adapter.n_layers - 1
        last_layer = adapter.adapted.head if proba else None
        if not (is_frozen and layer == head - 1 and isinstance(last_layer, nn.Linear)):
            last_layer = None
        needs_scores = proba and last_layer is None
        source = model = network_name(SOURCE, adapter.value_range)
        if needs_scores or not of_source:
            model = f"model-{fingerprint(adapter.adapted)}"
            model = network_name(model, adapter.value_range)
        columns = [Column(source if of_source else model, layer, self._manifest.dtype)]
        if needs_scores:
            columns.append(Column(model, head, "float32"))
        return columns, last_layer

    def _compute(
        self,
        adapter: CNNAdapter,
        columns: Sequence[Column],
        job: tuple[int, int] = (0, 1),
    ) -> None:
        """Compute what is missing of the shards that the images are in."""
        self._drop_columns_of_others(columns)
        numbers = self._shard_numbers()
        numbers = numbers[numbers % job[1] == job[0]]
        names = [CONTENT, *(column.name for column in columns)]
        for path, problem in self._damaged(numbers, names).items():
            _log.warning("%s %s; it is computed anew", path, problem)
            path.unlink(missing_ok=True)
        missing: list[tuple[int, list[Column], bool]] = []
        for number in numbers.tolist():
            if self._has_mended_file(number):
                for name in _columns_on_disk(self.folder):
                    shard_file(self.folder, name, number).unlink(missing_ok=True)
            files = {name: shard_file(self.folder, name, number) for name in names}
            absent = [name for name, file in files.items() if not file.exists()]
            if absent:
                own = [column for column in columns if column.name in absent]
                missing.append((number, own, CONTENT in absent))
        if not missing:
            return
        network: CNNAdapter | Path = adapter
        if self.executor is not None:
            network = send_estimator(adapter, self.folder)

        def tasks() -> Iterator[ShardTask]:
            for number, own, content in missing:
                shard = self._shard(number)
                yield ShardTask(
                    self.folder,
                    number,
                    shard.images,
                    shard.keys,
                    own,
                    content,
                    self.value_range,
                    self.skip_unreadable,
                    network,
                )

        n_rows = sum(self._manifest.sizes[number] for number, _, _ in missing)
        with progress_bar(
            total=n_rows, desc="features", disable=not self.verbose, unit=" images"
        ) as bar:
            for _, n in run_tasks(compute_shard, tasks(), self.executor):
                bar.update(n)

    def _drop_columns_of_others(self, columns: Sequence[Column]) -> None:
        """Remove columns of former networks, and of other ranges of values."""
        kept = {column.network for column in columns}
        kept.add(network_name(SOURCE, self.value_range))
        kinds = {network.partition("-")[0] for network in kept}
        former = []
        for name in _columns_on_disk(self.folder)[1:]:
            network = name.rpartition("-")[0]
            if network not in kept and network.partition("-")[0] in kinds:
                former.append(name)
        drop_columns(self.folder, former)

    def _damaged(
        self, numbers: Iterable[int], columns: Sequence[str]
    ) -> dict[Path, str]:
        """Find files that were changed since they were written, and how.

        A process reads a file for this once, while its size and time stay the same.
        """
        shards, states = [], []
        for number, column in product(map(int, numbers), columns):
            path = shard_file(self.folder, column, number)
            state = file_state(path)
            if state is not None and _checked.get(path) != state:
                shards.append((path, self._manifest.sizes[number]))
                states.append(state)
        found = {}
        problems = run_all(check_shard, shards, self.executor)
        for (path, _), state, problem in zip(shards, states, problems, strict=True):
            if problem is None:
                _checked[path] = state
            else:
                found[path] = problem
        return found

    def _has_mended_file(self, number: int) -> bool:
        """Tell whether a shard's file that could not be decoded has changed since."""
        content = shard_file(self.folder, CONTENT, number)
        if not (self._manifest.from_files and content.exists()):
            return False
        unreadable = np.flatnonzero(~map_array(content, "readable"))
        if not len(unreadable):
            return False
        now = file_states(self._shard(number).select(unreadable).images)
        before = map_array(content, "state")[unreadable]
        return bool(((now != before) & (now != 1)).any())

    def _shard_numbers(self) -> np.ndarray:
        """Numbers of the shards that the images are in."""
        if self._rows is None:
            return np.arange(len(self._manifest.sizes))
        shards = self._manifest.by_shard(self._rows)
        return np.array([number for number, *_ in shards], dtype=np.intp)

    def _shard(self, number: int) -> FeatureStore:
        """Return the images of one shard."""
        store = copy.copy(self)
        store._rows = np.arange(*self._manifest.bounds[number : number + 2])
        return store

    def _rows_of(self, column: str, array: str = "rows") -> LazyRows:
        rows = ShardedRows(self.folder, column, array, self._manifest, self.block_rows)
        return rows if self._rows is None else rows.select(self._rows)

    def _content(self, name: str) -> np.ndarray:
        numbers = self._shard_numbers()
        for path, problem in self._damaged(numbers, [CONTENT]).items():
            raise StoreError(
                f"{str(path)!r} {problem}. FeatureStore.compute(estimator) computes it "
                "anew."
            )
        return self._rows_of(CONTENT, name)[:]

    def _texts(self, which: int) -> list[str]:
        """Return the images' keys (0) or paths (1)."""
        rows = np.arange(len(self)) if self._rows is None else self._rows
        found = [""] * len(rows)
        for number, some, inside in self._manifest.by_shard(rows):
            texts = read_images(self.folder, number)[which]
            for i, j in zip(some.tolist(), inside.tolist(), strict=True):
                found[i] = texts[j]
        return found


# --- images' names ------------------------------------------------------------------


def _name_images(
    adapter: CNNAdapter, X: Any, keys: Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """Return the images' keys, and their paths if they are files."""
    if isinstance(X, StoredImages):
        raise TypeError("X is a feature store already; give the images.")
    dataset = adapter.image_dataset(X)
    paths = [str(Path(p).absolute()) for p in X] if dataset.from_files else None
    if keys is not None:
        keys = [str(key) for key in keys]
    elif paths is not None:
        keys = [os.path.realpath(path) for path in paths]
    else:
        keys = numbered_keys(dataset)
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise ValueError(
            f"The key {twice!r} is there twice. Each image needs one of its own: leave "
            "copies out, or give other keys=."
        )
    if len(keys) != len(dataset):
        raise ValueError(f"X has {len(dataset)} images, keys {len(keys)} entries.")
    return keys, paths


def numbered_keys(dataset: ImageDataset) -> list[str]:
    """Name images by their numbers and contents: files by path, size and time."""
    keys = []
    for i in range(len(dataset)):
        try:
            content = dataset.keyed(i)[0]
        except UnreadableImageError:
            content = "unreadable"
        keys.append(f"{i:09d}-{content}")
    return keys


def _check_same(
    folder: Path, known: Manifest, manifest: Manifest, keys: list[str]
) -> None:
    """Raise if a folder has a store of other images, or with other settings."""
    for name in ("network", "layer", "dtype", "from_files"):
        if getattr(known, name) != getattr(manifest, name):
            raise StoreError(
                f"The folder {str(folder)!r} has a feature store with another {name}: "
                f"{getattr(known, name)}, not {getattr(manifest, name)}. Take another "
                "folder."
            )
    start = 0
    for number, size in enumerate(known.sizes):
        if read_images(folder, number)[0] != keys[start : start + size]:
            raise StoreError(
                f"The folder {str(folder)!r} has a feature store of other images than "
                f"X from number {start} on. FeatureStore.open(folder).append(...) adds "
                "images; other images need another folder."
            )
        start += size
    if start != len(keys):
        raise StoreError(
            f"The feature store in {str(folder)!r} is of {start} images, X of "
            f"{len(keys)}. FeatureStore.open(folder).append(...) adds images."
        )


# --- networks -----------------------------------------------------------------------


def _columns_on_disk(folder: Path) -> list[str]:
    return [CONTENT, *(path.name for path in sorted(folder.glob("*-*")))]


def _network_of(adapter: CNNAdapter) -> str:
    """Name the pretrained network and the images' size, whatever their values."""
    return adapter.source.with_value_range(None).namespace


def _scores(last_layer: nn.Module, features: np.ndarray) -> np.ndarray:
    """Class scores (n, C) of the last layer's inputs."""
    weight = next(last_layer.parameters())
    with torch_defaults(), torch.inference_mode():
        return last_layer(torch.from_numpy(features).to(weight)).cpu().numpy()


def _proba(multilabel: bool, scores: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) of class scores, or (n, C, 2) of several labels."""
    scores = scores.astype(np.float64)
    if not multilabel:
        return softmax(scores, axis=1)
    present = expit(scores)
    return np.stack([1 - present, present], axis=2)
