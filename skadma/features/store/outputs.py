"""What networks say of the images of a store, scanned when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from tqdm.auto import tqdm

from ..._utils.lazy_rows import LazyRows
from ...classifier import CNNClassifier
from .building import check_estimator
from .columns import StoreError, drop_columns
from .executing import run_tasks
from .heads import Proba, linear_head
from .plan import Plan
from .scanning import Column, network_key, scan_shard, send
from .stored_images import ImagesOfStore
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


class OutputsOfStore(ImagesOfStore):
    """Images of a store, and what networks say of them.

    Parameters
    ----------
    folder : str or Path
    plan : Plan
    images : images or None
    block_rows : int
    executor : Executor, callable that makes one, or None
    verbose : bool
    """

    def __init__(
        self,
        folder: str | Path,
        plan: Plan,
        images: Any,
        block_rows: int,
        executor: Executor | Callable[[], Executor] | None,
        verbose: bool,
    ) -> None:
        super().__init__(folder, plan, images, block_rows)
        self.executor = executor
        self.verbose = verbose

    @property
    def shape(self) -> tuple[int, int]:
        """Images, and numbers kept of each."""
        return len(self), self._plan.width

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
            drop_columns(self.folder, "model-", keep=self._model(estimator))
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

    def _features_column(self, position: int) -> str:
        return f"source-{position:03d}"

    def _model(self, estimator: CNNClassifier) -> str:
        return f"model-{network_key(estimator)}"

    def _check_network(self, estimator: CNNClassifier) -> None:
        check_estimator(estimator)
        if estimator.source_network().namespace != self._plan.network:
            raise StoreError(
                f"The feature store {str(self.folder)!r} is of another network, or of "
                "another image size, than the classifier's. Build one for it, in "
                "another folder."
            )


def _softmax(scores: np.ndarray) -> np.ndarray:
    return softmax(scores.astype(np.float64), axis=1)
