"""SourceCenters: one representative of each source class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d
from tqdm.auto import tqdm

from .backbones import SourceNetwork
from .classifier import CNNClassifier
from .images import content_key, n_images, take
from .scan import ScanBatch

_FORMAT = "skadma-centers-1"


@dataclass(frozen=True, eq=False)
class SourceCenters:
    """Representatives c_k of the source classes, as images or as layer outputs.

    Make them with :meth:`from_dataset` or read them with :meth:`load`.

    Parameters
    ----------
    inputs : ndarray
        uint8 images (K, 3, side, side) as the network gets them, float32 rows (K, d)
        for a network of rows or, where `layer` is set, float16 or float32 outputs of
        that layer, (K, ...).
    classes : ndarray of int, shape (K,)
        The source class of each centre: the output of M0 that stands for it.
    network : str
        The backbone that the centres belong to.
    fingerprint : str
        Hash of M0's weights.
    image_size : int
        Side in pixels of the images that M0 saw.
    layer : int or None, default=None
        Position (from 0) of the layer whose outputs are kept. Only what lies behind
        it can be computed from them.
    class_names : tuple of str or None, default=None
        Name of each centre's class.
    """

    inputs: np.ndarray
    classes: np.ndarray
    network: str
    fingerprint: str
    image_size: int
    layer: int | None = None
    class_names: tuple[str, ...] | None = None

    def __deepcopy__(self, memo: dict) -> SourceCenters:
        # Never changed, so clones of a strategy share them.
        return self

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        kind = "images" if self.layer is None else f"outputs of layer {self.layer}"
        return (
            f"<SourceCenters: {len(self)} classes of {self.network}, {kind} "
            f"{self.inputs.shape[1:]}>"
        )

    @classmethod
    def from_dataset(
        cls,
        estimator: CNNClassifier,
        X: Any,
        y: ArrayLike,
        *,
        layer: int | str | None = None,
        verbose: bool = False,
    ) -> SourceCenters:
        """Choose the centres from labelled images of the source task (Eq. 1-2).

        z is the penultimate feature vector (layer -2) of M0. The mean of z over a
        class is taken in one pass (Eq. 1), the member nearest to it in a second
        (Eq. 2; the first of equals). Memory holds K x d numbers and K images.

        Parameters
        ----------
        estimator : CNNClassifier
            Whose M0 the centres are for; need not be fitted.
        X : images
            Of the source task, in any form that the estimator takes.
        y : array-like of shape (n,)
            Their source classes: numbers of M0's outputs, or its class names.
        layer : int or str, optional
            Keep the outputs of this layer (float16) instead of images: a smaller
            file, and the images stay where they are, but only later layers can be
            computed from it, and fine-tuning must not change the layer or what lies
            before it unless ``ADMA(features="initial")`` is used. It must be one
            whose output is all that the rest of the network gets, such as the last
            of a block.
        verbose : bool, default=False
            Show progress bars.

        Returns
        -------
        SourceCenters
            Sorted by class.

        Raises
        ------
        ValueError
            If a label is not one of M0's classes or `layer` is not as said above.
        """
        source = estimator.source_network()
        numbers = _class_numbers(y, source)
        check_consistent_length(range(n_images(X)), numbers)
        position = None
        if layer is not None:
            position = source.graph.position(layer)
            if source.graph.cut_before(position) is not _output(source, position):
                raise ValueError(
                    f"The output of layer {layer!r} is not all that later layers get: "
                    "a shortcut or a parallel way passes it by. Take the last layer of "
                    "a block, or keep images (layer=None)."
                )
        chosen = _nearest_to_mean(estimator, X, numbers, verbose)
        kept = take(X, chosen)
        if position is None and estimator.takes_rows(kept):
            inputs = np.asarray(kept, dtype=np.float32)
        elif position is None:
            dataset = estimator.image_dataset(kept)
            inputs = np.stack([dataset[i].numpy() for i in range(len(dataset))])
        else:
            inputs = _raw_outputs(estimator, kept, position)
        classes = numbers[chosen]
        names = source.class_names
        return cls(
            inputs=inputs,
            classes=classes,
            network=source.name,
            fingerprint=source.fingerprint,
            image_size=source.preprocessing.image_size,
            layer=position,
            class_names=tuple(names[k] for k in classes) if names else None,
        )

    def outputs(
        self, estimator: CNNClassifier, layers: list[int], *, initial: bool
    ) -> dict[int, torch.Tensor]:
        """Outputs of layers for every centre, by the present network or by M0.

        Parameters
        ----------
        estimator : CNNClassifier
        layers : list of int
            Positions.
        initial : bool
            By M0 instead of the present network.

        Returns
        -------
        dict of int to torch.Tensor of shape (K, d), float32
            On the estimator's device.

        Raises
        ------
        ValueError
            If the centres belong to another network, or cannot tell these outputs.
        """
        self.check_fits(estimator, layers, initial=initial)
        batches = estimator.scan_prepared(
            self.inputs,
            [] if initial else layers,
            layers if initial else [],
            start=self.layer,
        )
        found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        for batch in batches:
            for layer, values in (batch.source if initial else batch.adapted).items():
                found[layer].append(values)
        return {layer: torch.cat(values) for layer, values in found.items()}

    @cached_property
    def digest(self) -> str:
        """Hash of what the centres are, for naming what is computed from them."""
        parts = (self.network, self.fingerprint, self.image_size, self.layer)
        return content_key(self.inputs) + content_key(self.classes) + repr(parts)

    def check_fits(
        self, estimator: CNNClassifier, layers: list[int], *, initial: bool
    ) -> None:
        """Refuse an estimator whose outputs these centres cannot tell.

        Parameters
        ----------
        estimator, layers, initial
            See :meth:`outputs`.

        Raises
        ------
        ValueError
        """
        source = estimator.source_network()
        if (self.network, self.fingerprint) != (source.name, source.fingerprint):
            raise ValueError(
                f"These centres were made with {self.network} (weights "
                f"{self.fingerprint}), the estimator has {source.name} (weights "
                f"{source.fingerprint}). Make centres with the estimator itself: "
                "SourceCenters.from_dataset(estimator, X_source, y_source)."
            )
        if self.image_size != source.preprocessing.image_size:
            raise ValueError(
                f"These centres were made at {self.image_size} x {self.image_size} "
                f"pixels, the estimator works at {source.preprocessing.image_size}. "
                f"Set image_size={self.image_size} or make the centres again."
            )
        if self.layer is None:
            return
        if min(layers) < self.layer:
            raise ValueError(
                f"These centres keep outputs of layer {self.layer}, so layer "
                f"{min(layers)} before it is unknown. Choose later layers, or make "
                "centres that keep images: from_dataset(..., layer=None)."
            )
        n_frozen = estimator.n_frozen
        if not initial and self.layer >= n_frozen:
            raise ValueError(
                f"These centres keep outputs of layer {self.layer}, which fine-tuning "
                f"changes: only the first {n_frozen} layers are frozen. Set "
                f"n_frozen_layers={self.layer + 1} or more, take "
                "ADMA(features='initial'), or make centres that keep images."
            )

    def save(self, path: str | Path) -> None:
        """Write the centres to a ``.safetensors`` file.

        Parameters
        ----------
        path : str or Path
        """
        metadata = {
            "format": _FORMAT,
            "network": self.network,
            "fingerprint": self.fingerprint,
            "image_size": str(self.image_size),
            "layer": json.dumps(self.layer),
            "class_names": json.dumps(self.class_names),
        }
        safetensors.numpy.save_file(
            {
                "inputs": np.ascontiguousarray(self.inputs),
                "classes": np.ascontiguousarray(self.classes, dtype=np.int64),
            },
            path,
            metadata=metadata,
        )

    @classmethod
    def load(cls, path: str | Path) -> SourceCenters:
        """Read centres that :meth:`save` wrote.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        SourceCenters

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not one of centres.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file of centres {str(path)!r}.")
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')!r}")
                names = json.loads(metadata["class_names"])
                centers = cls(
                    inputs=file.get_tensor("inputs"),
                    classes=file.get_tensor("classes"),
                    network=metadata["network"],
                    fingerprint=metadata["fingerprint"],
                    image_size=int(metadata["image_size"]),
                    layer=json.loads(metadata["layer"]),
                    class_names=tuple(names) if names else None,
                )
            centers._check()
            return centers
        except (
            safetensors.SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:
            raise ValueError(
                f"{str(path)!r} is not a file of centres ({error}). SourceCenters.save "
                f"writes one, of format {_FORMAT!r}."
            ) from error

    def _check(self) -> None:
        """Refuse what :meth:`save` does not write."""
        inputs, classes = self.inputs, self.classes
        kinds = {np.dtype(np.uint8), np.dtype(np.float16), np.dtype(np.float32)}
        if inputs.dtype not in kinds or inputs.ndim < 2 or 0 in inputs.shape:
            raise ValueError(f"its centres are {inputs.dtype} of shape {inputs.shape}")
        if classes.dtype != np.int64 or classes.shape != inputs.shape[:1]:
            raise ValueError(
                f"its classes are {classes.dtype} of shape {classes.shape}"
            )
        if classes.min() < 0 or not np.isfinite(inputs).all():
            raise ValueError("it has negative classes, or values that are not finite")
        if self.layer is not None and (type(self.layer) is not int or self.layer < 0):
            raise ValueError(f"its layer is {self.layer!r}")
        names = self.class_names
        if names is not None and (
            len(names) != len(inputs) or not all(isinstance(n, str) for n in names)
        ):
            raise ValueError("it has other names than classes")


def _class_numbers(y: ArrayLike, source: SourceNetwork) -> np.ndarray:
    """Labels of the source task as numbers of M0's outputs."""
    labels = column_or_1d(y)
    if labels.dtype.kind in "iu":
        wrong = np.unique(labels[(labels < 0) | (labels >= source.n_classes)])
        if len(wrong):
            raise ValueError(
                f"y has the source classes {wrong[:5].tolist()}, but {source.name} has "
                f"the classes 0 to {source.n_classes - 1}."
            )
        return labels.astype(np.int64)
    if source.class_names is None:
        raise ValueError(
            f"y must hold the numbers of M0's outputs, 0 to {source.n_classes - 1}: "
            f"the class names of {source.name} are not known. Got dtype {labels.dtype}."
        )
    numbers = {name: k for k, name in enumerate(source.class_names)}
    unknown = [k for k in np.unique(labels.astype(str)).tolist() if k not in numbers]
    if unknown:
        raise ValueError(
            f"y has source classes that {source.name} does not know: {unknown[:5]}. It "
            f"knows {list(source.class_names[:3])}, ...; the numbers 0 to "
            f"{source.n_classes - 1} are taken as well."
        )
    return np.array([numbers[str(label)] for label in labels], dtype=np.int64)


def _nearest_to_mean(
    estimator: CNNClassifier, X: Any, numbers: np.ndarray, verbose: bool
) -> np.ndarray:
    """Eq. 1-2: index of the member nearest to its class's mean, per class."""
    classes, members, counts = np.unique(
        numbers, return_inverse=True, return_counts=True
    )
    if (counts == 1).all():
        return np.argsort(numbers)
    sums: torch.Tensor | None = None
    seen = torch.zeros(len(classes), 1, dtype=torch.float64)
    for rows, z in _penultimate(estimator, X, "means" if verbose else None):
        if sums is None:
            sums = torch.zeros(len(classes), z.shape[1], dtype=torch.float64)
        where = torch.from_numpy(members[rows])
        sums.index_add_(0, where, z)
        seen.index_add_(0, where, torch.ones(len(z), 1, dtype=torch.float64))
    if sums is None or not seen.all():
        raise ValueError("A source class has no image that can be decoded.")
    means = sums / seen
    nearest = np.full(len(classes), -1)
    smallest = np.full(len(classes), np.inf)
    for rows, z in _penultimate(estimator, X, "nearest" if verbose else None):
        distances = (z - means[members[rows]]).square().sum(1).numpy()
        for row, distance in zip(rows, distances, strict=True):
            if distance < smallest[members[row]]:
                smallest[members[row]] = distance
                nearest[members[row]] = row
    return nearest


def _penultimate(
    estimator: CNNClassifier, X: Any, progress: str | None
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Indices and z, batch by batch."""
    with tqdm(total=n_images(X), desc=progress, disable=progress is None) as bar:
        for batch in estimator.scan(X, source_layers=[-2]):
            (z,) = batch.source.values()
            bar.update(len(batch.indices))
            yield batch.indices, z.double().cpu()


def _raw_outputs(estimator: CNNClassifier, X: Any, position: int) -> np.ndarray:
    batches: Iterator[ScanBatch] = estimator.scan(X, source_layers=[position])
    rows = np.concatenate([b.source[position].cpu().numpy() for b in batches])
    shape = estimator.source_network().output_shapes[position]
    return rows.astype(np.float16).reshape(-1, *shape)


def _output(source: SourceNetwork, position: int) -> Any:
    return source.graph.layers[position].output
