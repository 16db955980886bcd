"""FeatureStore: what networks say of a pool's images, on the disk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from tqdm.auto import tqdm

from ..blocks import BLOCK_ROWS, LazyRows
from ..classifier import CNNClassifier
from ..images import StoredImages, n_images, take
from .building import (
    check_estimator,
    check_same,
    join_images,
    name_images,
    write_planned,
)
from .care import find_damage
from .columns import StoredRows, StoreError, drop_columns
from .executing import run_tasks
from .heads import Proba, linear_head
from .plan import Plan, read_images, read_plan
from .scanning import CONTENT, Column, network_key, scan_shard, send
from .tasks import ShardTasks


@dataclass(frozen=True)
class Outputs:
    """What is known of the images of a store.

    Attributes
    ----------
    features : LazyRows of shape (n, d)
    proba : LazyRows of shape (n, n_classes) or (n, n_labels, 2), or None
        Of the present network; None before the first fit, or where not asked for.
    """

    features: LazyRows
    proba: LazyRows | None


class FeatureStore(StoredImages):
    """What networks say of a pool's images, kept on the disk in shards.

    Strategies and :class:`~skadma.ActiveLearner` take it where they take images, and
    hold a block of it at a time. Make one with :meth:`build`; go on with :meth:`open`.

    Parameters
    ----------
    folder : str or Path
    plan : Plan
    images : images, optional
        Those it is of, in order, where they are no files.
    executor : Executor, callable that makes one, or None, default=None
        Where images are scanned and parts of the pool chosen from: any executor of
        ``concurrent.futures``, such as dask's ``Client.get_executor()``, of whose
        workers each sees `folder` (and the images' files) under the same path. None:
        here.
    partitions : int, default=1
        In how many parts UncertaintyHerding, CoreSet and BADGE divide the pool. With
        1 they choose as from an array in memory; else see docs/scale.md. The parts
        depend on the images' keys, so that the choice does on neither the executor
        nor the shards.
    block_rows : int, default=16384
        LazyRows held at once; a pool of no more is read whole.
    verbose : bool, default=False
        Show a progress bar over images that are scanned.

    Attributes
    ----------
    folder : Path
    shape : tuple of int
        (n, d).
    """

    def __init__(
        self,
        folder: str | Path,
        plan: Plan,
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
        self._plan = plan
        self._given = images
        self._rows: np.ndarray | None = None

    # --- made and found -------------------------------------------------------------

    @classmethod
    def build(
        cls,
        estimator: CNNClassifier,
        X: Any,
        folder: str | Path,
        *,
        layer: int | str = -2,
        dtype: str = "float16",
        keys: Sequence[str] | None = None,
        shard_rows: int = 4096,
        part: tuple[int, int] = (0, 1),
        executor: Executor | Callable[[], Executor] | None = None,
        **options: Any,
    ) -> FeatureStore:
        """Scan images and keep what M0 (and the present network) says of them.

        Called again after a kill it goes on: a shard that is on the disk is not
        scanned again.

        Parameters
        ----------
        estimator : CNNClassifier
            Fitted or not.
        X : images
        folder : str or Path
            Made if missing.
        layer : int or str, default=-2
            Whose outputs are kept.
        dtype : {"float16", "float32"}, default="float16"
            As what.
        keys : sequence of str, optional
            Names of the images, all different. If None the paths, or where the images
            are no files their numbers.
        shard_rows : int, default=4096
            Images of a shard, which is what a kill may lose.
        part : tuple of int, default=(0, 1)
            (i, m): scan only the i-th of every m shards, for jobs without a scheduler
            between them. The store is complete once all have been.
        executor : Executor, callable that makes one, or None, default=None
            See the class.
        **options
            `partitions`, `block_rows`, `verbose`: see the class.

        Returns
        -------
        FeatureStore

        Raises
        ------
        StoreError
            If the folder has a store of other images, or of another network.
        UnreadableImageError
            If an image cannot be decoded and the classifier does not skip such ones.
        """
        store = cls.begin(
            estimator,
            X,
            folder,
            layer=layer,
            dtype=dtype,
            keys=keys,
            shard_rows=shard_rows,
            executor=executor,
            **options,
        )
        store.scan(estimator, part=part)
        return store

    @classmethod
    def begin(
        cls,
        estimator: CNNClassifier,
        X: Any,
        folder: str | Path,
        *,
        layer: int | str = -2,
        dtype: str = "float16",
        keys: Sequence[str] | None = None,
        shard_rows: int = 4096,
        **options: Any,
    ) -> FeatureStore:
        """Make a store, or find it, and leave the scan to who asks for something.

        Parameters
        ----------
        estimator, X, folder, layer, dtype, keys, shard_rows
            See :meth:`build`.
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
        check_estimator(estimator)
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype={dtype!r}; it must be 'float16' or 'float32'.")
        if shard_rows < 1:
            raise ValueError(f"shard_rows={shard_rows} must be at least 1.")
        folder = Path(folder)
        source = estimator.source_network()
        names, paths = name_images(estimator, X, keys)
        plan = Plan(
            source.space,
            source.graph.position(layer),
            dtype,
            shard_rows,
            from_files=paths is not None,
        )
        known = read_plan(folder)
        if known is None:
            folder.mkdir(parents=True, exist_ok=True)
            plan = write_planned(folder, plan, names, paths)
        else:
            check_same(folder, known, plan, names)
            plan = known
        return cls(folder, plan, images=X, **options)

    @classmethod
    def open(
        cls, folder: str | Path, *, images: Any = None, **options: Any
    ) -> FeatureStore:
        """Go on with a store.

        Parameters
        ----------
        folder : str or Path
        images : images, optional
            Those it is of, where they are no files and will be looked at again; or
            the files, where they are elsewhere by now.
        **options
            `executor`, `partitions`, `block_rows`, `verbose`: see the class.

        Returns
        -------
        FeatureStore

        Raises
        ------
        StoreError
            If there is none, or it is damaged.
        """
        plan = read_plan(Path(folder))
        if plan is None:
            raise StoreError(
                f"There is no feature store in {str(folder)!r}. FeatureStore.build "
                "makes one."
            )
        if images is not None and n_images(images) != plan.n_rows:
            raise StoreError(
                f"The store in {str(folder)!r} is of {plan.n_rows} images, but images= "
                f"has {n_images(images)}."
            )
        return cls(folder, plan, images=images, **options)

    def append(
        self, estimator: CNNClassifier, X: Any, keys: Sequence[str] | None = None
    ) -> FeatureStore:
        """Add images behind those that are there.

        Images whose key is known are left out, so that it may be called again after a
        kill.

        Parameters
        ----------
        estimator : CNNClassifier
        X : images
        keys : sequence of str, optional
            As in :meth:`build`; images that are no files need them here.

        Returns
        -------
        FeatureStore
            Of all of them.

        Raises
        ------
        StoreError
            If X is of another form than the images that are there.
        """
        self._check_whole("append to")
        self._check_network(estimator)
        if keys is None and not self._plan.from_files:
            raise ValueError(
                "Images that are no files need keys= when they are added: their "
                "numbers are taken."
            )
        names, paths = name_images(estimator, X, keys)
        if (paths is not None) != self._plan.from_files:
            raise StoreError(
                "A store is of files or of arrays; X is not of the form of the images "
                "that are there."
            )
        known = set(self.keys) if len(self) else set()
        new = np.flatnonzero([name not in known for name in names])
        plan, given = self._plan, self._given
        if len(new):
            if given is not None:
                given = join_images(given, take(X, new))
            elif not self._plan.from_files:
                raise StoreError(
                    "The images of the store are no files: give all of them to "
                    "FeatureStore.open(folder, images=...) before adding others."
                )
            some = [names[i] for i in new]
            where = None if paths is None else [paths[i] for i in new]
            plan = write_planned(self.folder, plan, some, where)
        store = copy.copy(self)
        store._plan, store._given = plan, given
        store.scan(estimator)
        return store

    # --- as images ------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Images, and numbers kept of each."""
        width = self._column(self._features_column(self._plan.layer)).shape[1]
        return len(self), width

    def __len__(self) -> int:
        return self._plan.n_rows if self._rows is None else len(self._rows)

    @property
    def whole(self) -> FeatureStore:
        """The store that this is, or is a part of."""
        store = copy.copy(self)
        store._rows = None
        return store

    def select(self, indices: ArrayLike) -> FeatureStore:
        """Return some of the images, in the order of the indices.

        Parameters
        ----------
        indices : array-like of int
        """
        indices = np.asarray(indices, dtype=np.intp)
        part = copy.copy(self)
        part._rows = indices if self._rows is None else self._rows[indices]
        return part

    def __getitem__(self, i: int) -> str:
        """The key of an image."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return self.select([i % len(self)]).keys[0]

    @property
    def keys(self) -> list[str]:
        """Names of the images."""
        return self._texts(0)

    @property
    def images(self) -> Any:
        """The images themselves: paths, or what was given."""
        if self._given is None and self._plan.from_files:
            return self._texts(1)
        if self._given is None:
            raise StoreError(
                "The images of this store are no files, and have to be looked at: give "
                "them to FeatureStore.open(folder, images=...)."
            )
        return self._given if self._rows is None else take(self._given, self._rows)

    @property
    def readable(self) -> np.ndarray:
        """Which images could be decoded, shape (n,), bool."""
        return self._content("readable")

    @property
    def sha256(self) -> np.ndarray:
        """Digests of the images' files (pixels), shape (n, 32), uint8."""
        return self._content("sha256")

    @property
    def hashes(self) -> np.ndarray:
        """Hashes of the keys, shape (n,), uint64."""
        return self._content("hash")

    # --- what networks say ----------------------------------------------------------

    def source_proba(self) -> LazyRows:
        """Probabilities of the source classes by M0, shape (n, K).

        Returns
        -------
        LazyRows
        """
        columns = sorted(self.folder.glob("source-*"), key=lambda p: int(p.name[7:]))
        return self._column(columns[-1].name).map(_softmax)

    def outputs(
        self,
        estimator: CNNClassifier,
        layer: int | str = -2,
        *,
        initial: bool = False,
        proba: bool = True,
    ) -> Outputs:
        """What networks say of the images; scanned where it is not kept yet.

        Where all layers up to `layer` are frozen, the features are M0's; and if only
        the last layer is trained, a changed network takes one product with the stored
        features instead of a scan.

        Parameters
        ----------
        estimator : CNNClassifier
        layer : int or str, default=-2
        initial : bool, default=False
            Take the features from M0 instead of the present network.
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
        self._check_network(estimator)
        graph = estimator.source_network().graph
        position, head = graph.position(layer), len(graph.layers) - 1
        fitted = hasattr(estimator, "net_")
        frozen = not fitted or position < estimator.n_frozen
        of_source = initial or frozen
        name = self._features_column(position)
        if not of_source:
            name = f"{self._model(estimator)}-{position:03d}"
        wanted = [Column(name, of_source, position, self._plan.dtype)]
        linear = None
        scores = ""
        if proba and fitted:
            if position < estimator.n_frozen and position == head - 1:
                linear = linear_head(estimator)
            if linear is None:
                scores = f"{self._model(estimator)}-{head:03d}"
                wanted.append(Column(scores, False, head, "float32"))
        self._ensure(estimator, wanted)
        features = self._column(name)
        if not (proba and fitted):
            return Outputs(features, None)
        if linear is not None:
            return Outputs(features, features.map(linear))
        of_scores = self._column(scores).map(Proba(estimator.multilabel_))
        return Outputs(features, of_scores)

    def proba(self, estimator: CNNClassifier) -> LazyRows | None:
        """Probabilities by the present network, as strategies take them.

        Parameters
        ----------
        estimator : CNNClassifier

        Returns
        -------
        LazyRows or None
            NaN for images that could not be decoded. None before the first fit.
        """
        return self.outputs(estimator, self._plan.layer, initial=True).proba

    def scan(self, estimator: CNNClassifier, part: tuple[int, int] = (0, 1)) -> None:
        """Scan what is missing; :meth:`build` and the strategies do it by themselves.

        Parameters
        ----------
        estimator : CNNClassifier
        part : tuple of int, default=(0, 1)
            See :meth:`build`.
        """
        if not 0 <= part[0] < part[1]:
            raise ValueError(f"part={part} must be (i, m) with 0 <= i < m.")
        self._check_network(estimator)
        source = estimator.source_network()
        head, dtype = len(source.graph.layers) - 1, self._plan.dtype
        columns = [
            Column(self._features_column(position), True, position, dtype)
            for position in sorted({self._plan.layer, head})
        ]
        if hasattr(estimator, "net_"):
            name = f"{self._model(estimator)}-{head:03d}"
            columns.append(Column(name, False, head, "float32"))
        self._ensure(estimator, columns, part=part)

    def _ensure(
        self,
        estimator: CNNClassifier,
        columns: Iterable[Column],
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Scan the shards of which something is missing."""
        columns = list(columns)
        if any(not column.source for column in columns):
            drop_columns(self.folder, "model-", self._model(estimator))
        tasks = ShardTasks(self, self._plan.sizes, columns, self._touched(), part)
        if not len(tasks):
            return
        if self.executor is not None:
            tasks.network = send(estimator, self.folder)
            done = run_tasks(scan_shard, tasks, self.executor)
        else:
            done = run_tasks(lambda task: scan_shard(task, estimator), tasks, None)
        with tqdm(
            total=tasks.n_rows, desc="scan", disable=not self.verbose, unit=" images"
        ) as bar:
            for _, n in done:
                bar.update(n)

    # --- care -----------------------------------------------------------------------

    def verify(
        self, estimator: CNNClassifier | None = None, *, repair: bool = False
    ) -> list[str]:
        """Compare every file with the digest it was written with.

        Parameters
        ----------
        estimator : CNNClassifier, optional
            Then the images, too, are read and compared with what was scanned.
        repair : bool, default=False
            Remove what is wrong; :meth:`scan` and :meth:`build` scan it anew.

        Returns
        -------
        list of str
            What is wrong.
        """
        self._check_whole("verify")
        return find_damage(self, self._plan, estimator, repair=repair)

    # --- inside ---------------------------------------------------------------------

    def _features_column(self, position: int) -> str:
        return f"source-{position:03d}"

    def _model(self, estimator: CNNClassifier) -> str:
        return f"model-{network_key(estimator)}"

    def _column(self, name: str, array: str = "rows", *, raw: bool = False) -> LazyRows:
        rows = StoredRows(
            self.folder, name, array, self._plan.sizes, self.block_rows, raw=raw
        )
        return rows if self._rows is None else rows.select(self._rows)

    def _content(self, name: str) -> np.ndarray:
        return self._column(CONTENT, name, raw=True)[:]

    def _touched(self) -> np.ndarray:
        """Numbers of the shards that the images are in."""
        if self._rows is None:
            return np.arange(len(self._plan.sizes))
        ends = np.cumsum(self._plan.sizes)
        return np.unique(np.searchsorted(ends, self._rows, side="right"))

    def _texts(self, which: int) -> list[str]:
        """Keys (0) or paths (1)."""
        if self._rows is None:
            shards = range(len(self._plan.sizes))
            return [t for n in shards for t in read_images(self.folder, n)[which]]
        ends = np.cumsum(self._plan.sizes)
        numbers = np.searchsorted(ends, self._rows, side="right")
        starts = ends - self._plan.sizes
        found: list[str] = [""] * len(self._rows)
        for i in np.argsort(numbers, kind="stable"):
            number = int(numbers[i])
            inside = int(self._rows[i] - starts[number])
            found[i] = read_images(self.folder, number)[which][inside]
        return found

    def _check_network(self, estimator: CNNClassifier) -> None:
        check_estimator(estimator)
        if estimator.source_network().space != self._plan.network:
            raise StoreError(
                f"The feature store {str(self.folder)!r} is of another network, or of "
                "another image size, than the classifier's. Build one for it, in "
                "another folder."
            )

    def _check_whole(self, what: str) -> None:
        if self._rows is not None:
            raise StoreError(
                f"This is a part of a store; {what} the whole one "
                "(FeatureStore.open(folder))."
            )


def _softmax(scores: np.ndarray) -> np.ndarray:
    return softmax(scores.astype(np.float64), axis=1)
