"""FeatureStore: what networks say of a pool's images, on the disk."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from ..._utils.lazy_rows import BLOCK_ROWS
from ...classifier import CNNClassifier
from ...images.dataset import n_images, take
from .building import (
    check_estimator,
    check_same,
    join_images,
    name_images,
    write_planned,
)
from .care import find_damage
from .columns import StoreError, drop_columns
from .outputs import OutputsOfStore
from .plan import Plan, read_plan
from .scanning import CONTENT


class FeatureStore(OutputsOfStore):
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
        Rows held at once; a pool of no more is read whole.
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
        super().__init__(folder, plan, images, block_rows, executor, verbose)
        self.partitions = partitions

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
        compute: bool = True,
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
            are no files their numbers and digests.
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
        if compute:
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
        position = source.graph.position(layer)
        plan = Plan(
            source.namespace,
            position,
            math.prod(source.output_shapes[position]),
            dtype,
            shard_rows,
            from_files=paths is not None,
        )
        known = read_plan(folder)
        if known is None:
            folder.mkdir(parents=True, exist_ok=True)
            drop_columns(folder, CONTENT, "source-", "model-")  # of no plan any more
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
        self,
        estimator: CNNClassifier,
        X: Any,
        keys: Sequence[str] | None = None,
        *,
        compute: bool = True,
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
        store = self.extend(estimator, X, keys)
        if compute:
            store.scan(estimator)
        return store

    def extend(
        self, estimator: CNNClassifier, X: Any, keys: Sequence[str] | None = None
    ) -> FeatureStore:
        """Add images as :meth:`append` does, and leave the scan to who asks.

        Parameters
        ----------
        estimator, X, keys
            See :meth:`append`.

        Returns
        -------
        FeatureStore
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
        return store

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
