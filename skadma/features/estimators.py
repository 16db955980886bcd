"""What strategies and evaluation ask of a classifier, bare or inside a wrapper.

Wrappers are a Pipeline that ends in the classifier, and modAL's learner around it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from .._utils.lazy_rows import AnyRows, LazyRows, row_by_row
from ..images.selection import is_stored, n_images, rows_of_file, take

if TYPE_CHECKING:
    import torch

    from .extractor import DerivedOutput, OutputBatch


class NetworkAdapter(ABC):
    """Give strategies and centres the layer outputs of an estimator's network.

    An estimator of any package takes part by a method ``__skadma_adapter__()`` that
    returns one of these for its network as it is at that moment. The abstract methods
    suffice for strategies that choose by features and probabilities. Methods that
    raise TypeError here are needed by the strategies that their docstrings name.

    Layers are numbered from 0 in the order in which they run. The last one's outputs
    are class scores.
    """

    skips_unreadable: bool = False
    # Whether images that cannot be decoded are left out instead of raising.
    source_name: str | None = None
    # Name of the pretrained network, as SourceCenters store it; for ADMA.
    source_fingerprint: str | None = None
    # Hash of the pretrained network's weights; for ADMA.
    image_size: int | None = None
    # Side in pixels of the images that the pretrained network gets; for ADMA.

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether there is an adapted network beside the pretrained one."""

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Number of layers."""

    @abstractmethod
    def position(self, layer: int | str) -> int:
        """Position from 0 of a layer given by name or by (negative) position.

        ValueError if there is no such layer.
        """

    @abstractmethod
    def iter_outputs(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        derived: DerivedOutput | None = None,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Pass over images once and yield layer outputs of both networks, in order.

        `layers` are the adapted network's (the pretrained one's before ``fit``), -1 is
        the scores; `source_layers` the pretrained network's. `derived` is computed from
        them: an adapter that has it in a cache need not compute `source_layers`, one
        without a cache may ignore it. `progress` is the label of a progress bar. Images
        that cannot be decoded are missing.
        """

    def check_source_classes(self, wanted: str) -> None:  # noqa: B027
        """Raise ValueError if `wanted` needs source classes and there are none."""

    @property
    def multilabel(self) -> bool:
        """Whether an image has any number of labels instead of one."""
        return bool(getattr(self.estimator, "multilabel_", False))

    @property
    def n_frozen(self) -> int:
        """Number of layers that both networks share; for ADMA with kept centres."""
        return 0

    def proba_of(self, scores: np.ndarray) -> np.ndarray:
        """Class probabilities (n, n_classes), float64, of the last layer's outputs."""
        scores = scores.astype(np.float64)
        return expit(scores) if self.multilabel else softmax(scores, axis=1)

    def collect(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Whole arrays (n, d) of both networks' layer outputs, float32, by position.

        NaN for images that cannot be decoded. See :meth:`iter_outputs`.
        """
        found: tuple[dict[int, np.ndarray], dict[int, np.ndarray]] = {}, {}
        n = n_images(X)
        for batch in self.iter_outputs(X, layers, source_layers, progress="network"):
            for into, outputs in zip(found, (batch.adapted, batch.source), strict=True):
                for layer, values in outputs.items():
                    rows = values.cpu().numpy()
                    if layer not in into:
                        into[layer] = np.full((n, rows.shape[1]), np.nan, rows.dtype)
                    into[layer][batch.indices] = rows
        if not any(found):  # not one could be decoded
            for into, asked in zip(found, (layers, source_layers), strict=True):
                for position in map(self.position, asked):
                    width = self.width(position, adapted=into is found[0])
                    into[position] = np.full((n, width), np.nan, np.float32)
        return found

    def width(self, position: int, *, adapted: bool) -> int:
        """Columns of a layer's outputs, where no image could be decoded to tell."""
        return 1

    def readable(self, X: Any) -> np.ndarray:
        """Which images can be decoded, bool (n,); all if a bad one raises anyway."""
        return np.ones(n_images(X), dtype=bool)

    def iter_outputs_prepared(
        self,
        inputs: np.ndarray,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        derived: DerivedOutput | None = None,
    ) -> Iterator[OutputBatch]:
        """Yield layer outputs of inputs that need no preparation; for ADMA.

        `inputs` are uint8 images (n, 3, side, side) of the network's size, or rows of
        a table for a network that takes them. See :meth:`iter_outputs`.
        """
        raise self._cannot("iter_outputs_prepared")

    def iter_patch_outputs(
        self, X: Any, n_windows: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield the adapted network's scores for patches of images; for AIFT.

        The patches are `n_windows` random rectangles half as high and wide as an
        image, the same of every image. Yields positions (b,) in X and scores
        (b, n_windows, n_classes).
        """
        raise self._cannot("iter_patch_outputs")

    def predict_features(self, features: np.ndarray, layer: int | str) -> np.ndarray:
        """Class probabilities, float64, of changed layer outputs (n, d).

        For DropQuery and BALD.
        """
        raise self._cannot("predict_features")

    def with_range_of(self, X: Any) -> NetworkAdapter:
        """Return an adapter that takes the range of values of `X`, unless it has one.

        So several passes before the first fit read their images alike.
        """
        return self

    def _cannot(self, method: str) -> TypeError:
        return TypeError(
            f"This strategy needs {method!r} of the estimator's adapter, which that of "
            f"{type(self.estimator).__name__} does not have. Take another strategy, "
            "such as MarginSampling, CoreSet or UncertaintyHerding, or CNNClassifier."
        )


def get_adapter(estimator: Any) -> NetworkAdapter | None:
    """Return the adapter of an estimator (not a Pipeline), or None if it has none."""
    make = getattr(type(estimator), "__skadma_adapter__", None)
    return None if make is None else make(estimator)


def need_adapter(estimator: Any) -> NetworkAdapter:
    """Return the adapter of an estimator; raise TypeError if it has none."""
    adapter = get_adapter(estimator)
    if adapter is None:
        raise TypeError(
            "This uses the layers of a network, so it needs a CNNClassifier (also at "
            f"the end of a Pipeline or inside modAL's learner); got {estimator!r}. "
            "Give its class a method __skadma_adapter__, or take MarginSampling, "
            "EntropySampling or LeastConfident."
        )
    return adapter


def innermost(estimator: Any) -> Any:
    """Find the classifier inside wrappers."""
    while (inside := _inside(estimator)) is not estimator:
        estimator = inside
    return estimator


def _inside(estimator: Any) -> Any:
    """Open one wrapper; the estimator itself where it is none."""
    if isinstance(estimator, Pipeline):
        return estimator.steps[-1][1]
    if hasattr(estimator, "X_training") and hasattr(estimator, "estimator"):
        return estimator.estimator  # modAL's learners
    return estimator


def unwrap(estimator: Any, X: Any, X_labeled: Any = None) -> tuple[Any, Any, Any]:
    """Find the classifier inside wrappers, and transform images as the steps before do.

    Steps that are not fitted yet (round 0) are fitted to `X` as copies.
    """
    X = rows_of_file(X)
    while (inside := _inside(estimator)) is not estimator:
        for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else ():
            if step is None or step == "passthrough":
                continue
            if is_stored(X):
                raise TypeError(
                    f"A feature store is of images as the network gets them, but "
                    f"{step!r} would change them before. Give the images, or the "
                    "classifier without steps before it."
                )
            try:
                X_new = row_by_row(step.transform, X)
            except (NotFittedError, AttributeError):  # old PCAs raise the latter
                step = clone(step).fit(X)
                X_new = row_by_row(step.transform, X)
            if X_labeled is not None:
                X_labeled = step.transform(X_labeled)
            X = X_new
        estimator = inside
    return estimator, X, X_labeled


def find_adapter(estimator: Any, X: Any) -> tuple[NetworkAdapter, Any]:
    """Return the adapter of an estimator inside wrappers, and transformed images."""
    inner, X, _ = unwrap(estimator, X)
    return need_adapter(inner), X


def labels_fitted_with(estimator: Any) -> int:
    """Number of labels an estimator was fitted with, 0 if unfitted or unknown."""
    if hasattr(estimator, "X_training"):
        seen = estimator.X_training
        return 0 if seen is None else n_images(seen)
    return getattr(innermost(estimator), "n_labels_", 0)


def is_multilabel(estimator: Any) -> bool:
    """Tell whether a classifier was fitted with several labels per image."""
    inner = innermost(estimator)
    classes = getattr(inner, "classes_", None)
    return (
        bool(getattr(inner, "multilabel_", False))  # CNNClassifier, OneVsRestClassifier
        # Forests, neighbours, MultiOutputClassifier: each output's classes.
        or (isinstance(classes, list) and all(np.ndim(c) == 1 for c in classes))
        # MLPClassifier
        or (
            getattr(inner, "out_activation_", None) == "logistic"
            and inner.n_outputs_ > 1
        )
    )


def target_proba(estimator: Any, X: Any) -> AnyRows | None:
    """Class probabilities, or None where the classifier is not fitted yet.

    Shape (n, n_classes); with several labels per image (n, n_labels, 2). Those of a
    feature store or of LazyRows are computed when they are read.
    """
    estimator, X, _ = unwrap(estimator, X)
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{estimator!r} has no predict_proba, which this strategy needs. Take a "
            "classifier with probabilities, or RandomSampling."
        )
    try:
        if is_stored(X):
            return X.proba(estimator)
        if isinstance(X, LazyRows):
            return row_by_row(partial(_target_proba, estimator), X)
        return _target_proba(estimator, X)
    except NotFittedError:
        return None


def _target_proba(estimator: Any, X: Any) -> np.ndarray:
    proba = estimator.predict_proba(X)
    if isinstance(proba, list):  # an array per label
        present = np.zeros((len(proba[0]), len(proba)))
        for k, (rows, values) in enumerate(zip(proba, estimator.classes_, strict=True)):
            for column in np.flatnonzero(np.asarray(values) == 1):
                present[:, k] = rows[:, column]
        proba = present
    return per_label(proba) if is_multilabel(estimator) else proba


def proba_of_scores(adapter: NetworkAdapter, scores: torch.Tensor) -> np.ndarray:
    """Class probabilities of a network's scores, in the shapes of `target_proba`."""
    import torch

    scores = scores.double()
    if adapter.multilabel:
        return per_label(torch.sigmoid(scores).cpu().numpy())
    return torch.softmax(scores, dim=1).cpu().numpy()


def per_label(proba: np.ndarray) -> np.ndarray:
    """Make pairs (absent, present) of labels' probabilities: (n, L) to (n, L, 2)."""
    return np.stack([1 - proba, proba], axis=2)


def in_blocks(X: Any) -> Iterator[tuple[int, Any]]:
    """Yield blocks of a pool on the disk with their starts; any other pool whole."""
    X = rows_of_file(X)
    if not (is_stored(X) or isinstance(X, LazyRows)):
        yield 0, X
        return
    block = X.block_rows if is_stored(X) else X.block
    for start in range(0, len(X), block):
        yield start, take(X, np.arange(start, min(start + block, len(X))))


def check_finite(finite: np.ndarray, estimator: Any, X: Any) -> None:
    """Raise if the scores or features of readable images are not finite.

    `finite` is a bool for each image of `X`. Images that cannot be decoded may be NaN.
    """
    wrong = np.flatnonzero(~finite)
    if not len(wrong):
        return
    inner, X_inner, _ = unwrap(estimator, X)
    adapter = get_adapter(inner)
    params = inner.get_params() if hasattr(inner, "get_params") else {}
    if adapter is not None:
        wrong = wrong[adapter.readable(take(X_inner, wrong))]
    elif any(v == "skip" for k, v in params.items() if k.endswith("on_bad_image")):
        return  # a committee whose members may skip unreadable images
    if len(wrong):
        some = take(X, wrong[:3])
        named = [
            repr(str(item)) if isinstance(item, (str, os.PathLike)) else f"X[{i}]"
            for i, item in zip(wrong[:3], some, strict=False)
        ]
        raise ValueError(
            f"The scores of {len(wrong)} image(s) are NaN or infinite, the first: "
            f"{', '.join(named)}. Training has diverged, or the image's values are not "
            "finite: fit with a lower learning rate (lr, head_lr), or check the image."
        )
