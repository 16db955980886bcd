"""What centres are, whoever made them: kept, read, written, and asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors
import safetensors.numpy
import torch

from .._utils.atomic import write_atomically
from ..classifier import CNNClassifier
from ..features.adapter import NetworkAdapter, need_view
from ..features.extractor import derived_outputs
from ..features.passes import OutputBatch
from ..images.dataset import content_key
from ._cover import covering_classes

_FORMAT = "skadma-centers-1"
_Centers = TypeVar("_Centers", bound="KeptCenters")


@dataclass(frozen=True, eq=False)
class KeptCenters:
    """The part of :class:`~skadma.SourceCenters` that does not make them.

    Its fields are described there.
    """

    inputs: np.ndarray
    classes: np.ndarray
    network: str
    fingerprint: str
    image_size: int
    layer: int | None = None
    class_names: tuple[str, ...] | None = None
    origin: str = "dataset"

    def __deepcopy__(self: _Centers, memo: dict) -> _Centers:
        # Never changed, so clones of a strategy share them.
        return self

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        kind = "images" if self.layer is None else f"outputs of layer {self.layer}"
        return (
            f"<SourceCenters: {len(self)} classes of {self.network}, {kind} "
            f"{self.inputs.shape[1:]} ({self.origin})>"
        )

    def subset(self: _Centers, estimator: CNNClassifier, n_centers: int) -> _Centers:
        """Keep the centres of classes that cover the source space.

        The rows of M0's last layer stand for the classes. They are put into
        `n_centers` clusters by k-means, and the class nearest to each mean is kept.

        Parameters
        ----------
        estimator : CNNClassifier
            Whose M0 the centres belong to.
        n_centers : int

        Returns
        -------
        SourceCenters

        Raises
        ------
        ValueError
            If there are fewer, or they belong to another network.
        """
        self._check_network(need_view(estimator))
        wanted = covering_classes(estimator.source_network(), n_centers, self.classes)
        kept = np.flatnonzero(np.isin(self.classes, wanted))
        names = self.class_names
        return replace(
            self,
            inputs=self.inputs[kept],
            classes=self.classes[kept],
            class_names=tuple(names[i] for i in kept) if names else None,
        )

    def source_accuracy(self, estimator: CNNClassifier) -> float:
        """Tell how many of the centres M0 takes for their own class.

        Parameters
        ----------
        estimator : CNNClassifier

        Returns
        -------
        float
            Share of the centres, top-1.
        """
        head = need_view(estimator).n_layers - 1
        scores = self.outputs(estimator, [head], initial=True)[head]
        return float((scores.argmax(1).cpu().numpy() == self.classes).mean())

    def outputs(
        self, estimator: CNNClassifier, layers: list[int], *, initial: bool
    ) -> dict[int, torch.Tensor]:
        """Outputs of layers for every centre, by the present network or by M0.

        M0's are kept where the estimator keeps what is frozen (its `memory`).

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
        view = need_view(estimator)
        batches = view.iter_outputs_prepared(
            self.inputs,
            [] if initial else layers,
            layers if initial else [],
            start=self.layer,
            summary=derived_outputs(layers) if initial else None,
        )

        def of_batch(batch: OutputBatch) -> dict[int, torch.Tensor]:
            if not initial:
                return batch.adapted
            if batch.summary is None:
                return batch.source
            widths = [view.width(p, adapted=False) for p in layers]
            return dict(zip(layers, batch.summary.split(widths, dim=1), strict=True))

        parts = [of_batch(batch) for batch in batches]
        return {p: torch.cat([part[p] for part in parts]) for p in layers}

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
        view = need_view(estimator)
        self._check_network(view)
        if self.image_size != view.image_size:
            raise ValueError(
                f"These centres were made at {self.image_size} x {self.image_size} "
                f"pixels, the estimator works at {view.image_size}. "
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
        n_frozen = view.n_frozen
        if not initial and self.layer >= n_frozen:
            raise ValueError(
                f"These centres keep outputs of layer {self.layer}, which fine-tuning "
                f"changes: only the first {n_frozen} layers are frozen. Set "
                f"n_frozen_layers={self.layer + 1} or more, take "
                "ADMA(features='published'), or make centres that keep images."
            )

    def _check_network(self, view: NetworkAdapter) -> None:
        own = view.source_name, view.source_fingerprint
        if (self.network, self.fingerprint) != own:
            raise ValueError(
                f"These centres were made with {self.network} (weights "
                f"{self.fingerprint}), the estimator has {own[0]} (weights "
                f"{own[1]}). Make centres with the estimator itself: "
                "SourceCenters.from_dataset(estimator, X_source, y_source)."
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
            "origin": self.origin,
        }
        tensors = {
            "inputs": np.ascontiguousarray(self.inputs),
            "classes": np.ascontiguousarray(self.classes, dtype=np.int64),
        }
        write_atomically(
            Path(path),
            lambda part: safetensors.numpy.save_file(tensors, part, metadata),
        )

    @classmethod
    def load(cls: type[_Centers], path: str | Path) -> _Centers:
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
                    origin=metadata.get("origin", "dataset"),
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
