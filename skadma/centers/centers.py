"""SourceCenters: one representative of each source class."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state

from .._utils.atomic import write_atomically
from ..features.adapter import CNNAdapter, cnn_adapter
from ..features.estimators import NetworkAdapter, need_adapter
from ..features.extractor import concatenated_outputs
from ..images.dataset import content_key
from ..images.selection import take
from ..networks import PretrainedNetwork
from ..networks.heads import get_head
from ._labels import labeled_images
from ._nearest import nearest_to_class_mean
from ._synthesis import N_STEPS, SIDE, resized, synthesize_images

_FORMAT = "skadma-centers-1"


@dataclass(frozen=True, eq=False, repr=False)
class SourceCenters:
    """Representatives c_k of the source classes.

    Make them with :meth:`from_dataset`, :meth:`from_examples` or :meth:`synthesize`,
    or read them with :meth:`load`.

    Parameters
    ----------
    inputs : ndarray
        uint8 images (K, 3, side, side) as the network gets them, or float32 rows (K, d)
        for a network of rows.
    classes : ndarray of int, shape (K,)
        The source class of each centre: an output of the pretrained network.
    network : str
        The backbone that the centres belong to.
    fingerprint : str
        Hash of the pretrained network's weights.
    image_size : int
        Side in pixels of the images that the pretrained network saw.
    class_names : tuple of str or None, default=None
        Name of each centre's class.
    """

    inputs: np.ndarray
    classes: np.ndarray
    network: str
    fingerprint: str
    image_size: int
    class_names: tuple[str, ...] | None = None

    @classmethod
    def from_dataset(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        n_centers: int | None = None,
        verbose: bool = False,
    ) -> SourceCenters:
        """Choose the centres from labelled images of the source task (Eq. 1-2).

        z is the penultimate feature vector (layer -2) of the pretrained network. The
        mean of z over a class is taken in one pass (Eq. 1), the member nearest to it
        in a second (Eq. 2; the first of equals). Memory holds K x d numbers and K
        images.

        Parameters
        ----------
        estimator : CNNClassifier
            Whose pretrained network the centres are for; need not be fitted.
        X : images, str or Path
            Of the source task, in any form that the estimator takes. A single path is
            a folder with one subfolder per class, which are matched with the network's
            classes by name or, if there are K of them, by order.
        y : array-like of shape (n,), optional
            Their source classes: numbers of the network's outputs, or its class names.
            Needed unless `X` is a folder.
        n_centers : int, optional
            Only so many classes, see :meth:`subset`. Images of other classes are not
            read.
        verbose : bool, default=False
            Show progress bars.

        Returns
        -------
        SourceCenters
            Sorted by class.

        Raises
        ------
        ValueError
            If a label is not one of the source classes.
        """
        adapter = cnn_adapter(estimator)
        source = adapter.source
        X, numbers = labeled_images(X, y, source)
        if n_centers is not None:
            wanted = _covering_classes(source, n_centers, np.unique(numbers))
            some = np.isin(numbers, wanted)
            X, numbers = take(X, some), numbers[some]
        chosen = nearest_to_class_mean(adapter, X, numbers, verbose=verbose)
        X, classes = take(X, chosen), numbers[chosen]
        if adapter.takes_rows(X):
            inputs = np.asarray(X, dtype=np.float32)
        else:  # as the network gets them
            dataset = adapter.with_range_of(X).image_dataset(X)
            inputs = np.stack([dataset[i].numpy() for i in range(len(dataset))])
        return cls._of_network(source, inputs, classes)

    @classmethod
    def from_examples(
        cls, estimator: Any, X: Any, y: ArrayLike | None = None
    ) -> SourceCenters:
        """Take one or a few images per source class.

        With one image of a class it is the centre, with more the one nearest to their
        mean. Classes without an image are left out.

        Parameters
        ----------
        estimator : CNNClassifier
        X : mapping, images, str or Path
            A mapping takes a source class (number or name) to an image (path, array or
            PIL image) or a list of them. Otherwise as in :meth:`from_dataset`.
        y : array-like of shape (n,), optional

        Returns
        -------
        SourceCenters

        Raises
        ------
        ValueError
        """
        return cls.from_dataset(estimator, X, y)

    @classmethod
    def synthesize(
        cls,
        estimator: Any,
        *,
        n_centers: int | None = None,
        side: int | None = None,
        n_steps: int = N_STEPS,
        batch_size: int = 50,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> SourceCenters:
        """Make the centres from the pretrained network, without any source data.

        Each image starts as noise and follows the network's gradient towards its
        class, while the statistics of a batch are held to those that the network's
        batch norms keep (DeepInversion [1]_). Images are seen at several sizes, so
        that they are recognised at others too. Networks without batch norm have less
        to go by.

        Parameters
        ----------
        estimator : CNNClassifier
        n_centers : int, optional
            Only so many classes, see :meth:`subset`.
        side : int, optional
            Side in pixels at which the images are made, before they are brought to the
            estimator's `image_size`: time goes with its square. By default that size,
            but at most 128.
        n_steps : int, default=140
        batch_size : int, default=50
            Images made together; their statistics are matched, so take many.
        random_state : int, RandomState instance or None, default=0
        verbose : bool, default=False
            Show a progress bar.

        Returns
        -------
        SourceCenters

        References
        ----------
        .. [1] Yin et al., Dreaming to Distill: Data-Free Knowledge Transfer via
           DeepInversion, CVPR 2020, arXiv 1912.08795.
        """
        adapter = cnn_adapter(estimator)
        source = adapter.source
        source.check_source_classes("SourceCenters.synthesize")
        classes = np.arange(source.n_classes)
        if n_centers is not None:
            classes = _covering_classes(source, n_centers, classes)
        size = source.preprocessing.image_size
        images = synthesize_images(
            source,
            classes,
            side=min(size, SIDE) if side is None else side,
            n_steps=n_steps,
            batch_size=batch_size,
            seed=int(check_random_state(random_state).randint(2**31)),
            device=adapter.device,
            progress=verbose,
        )
        return cls._of_network(source, resized(images, size), classes)

    @classmethod
    def _of_network(
        cls, source: PretrainedNetwork, inputs: np.ndarray, classes: np.ndarray
    ) -> SourceCenters:
        names = source.class_names
        return cls(
            inputs=inputs,
            classes=classes,
            network=source.name,
            fingerprint=source.fingerprint,
            image_size=source.preprocessing.image_size,
            class_names=tuple(names[k] for k in classes) if names else None,
        )

    def __deepcopy__(self, memo: dict[str, Any]) -> SourceCenters:
        # Never changed, so clones of a strategy share them.
        return self

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        kind = "images" if self.inputs.ndim == 4 else "rows"
        return (
            f"<SourceCenters: {len(self)} classes of {self.network}, {kind} "
            f"{self.inputs.shape[1:]}>"
        )

    def subset(self, estimator: Any, n_centers: int) -> SourceCenters:
        """Keep the centres of classes that cover the source classes.

        The rows of the pretrained network's last layer stand for the classes. They
        are put into `n_centers` clusters by k-means, and the class nearest to each
        mean is kept.

        Parameters
        ----------
        estimator : CNNClassifier
            Whose pretrained network the centres belong to.
        n_centers : int

        Returns
        -------
        SourceCenters

        Raises
        ------
        ValueError
            If there are fewer, or they belong to another network.
        """
        adapter = cnn_adapter(estimator)
        self._check_network(adapter)
        wanted = _covering_classes(adapter.source, n_centers, self.classes)
        kept = np.flatnonzero(np.isin(self.classes, wanted))
        names = self.class_names
        return replace(
            self,
            inputs=self.inputs[kept],
            classes=self.classes[kept],
            class_names=tuple(names[i] for i in kept) if names else None,
        )

    def source_accuracy(self, estimator: Any) -> float:
        """Compute the share of centres that the pretrained network classes right."""
        adapter = need_adapter(estimator)
        adapter.check_source_classes("source_accuracy")
        head = adapter.n_layers - 1
        scores = self.outputs(estimator, [head], initial=True)[head]
        return float((scores.argmax(1).cpu().numpy() == self.classes).mean())

    def outputs(
        self, estimator: Any, layers: list[int], *, initial: bool
    ) -> dict[int, torch.Tensor]:
        """Compute outputs of layers for every centre.

        Those of the pretrained network are kept in the estimator's `memory`.

        Parameters
        ----------
        estimator : CNNClassifier
        layers : list of int
            Positions.
        initial : bool
            By the pretrained network instead of the adapted one.

        Returns
        -------
        dict of int to torch.Tensor of shape (K, d), float32
            On the estimator's device.

        Raises
        ------
        ValueError
            If the centres do not match the estimator, see :meth:`check_fits`.
        """
        self.check_fits(estimator)
        adapter = need_adapter(estimator)
        batches = adapter.iter_outputs_prepared(
            self.inputs,
            [] if initial else layers,
            layers if initial else [],
            derived=concatenated_outputs(layers) if initial else None,
        )
        found: dict[int, list[torch.Tensor]] = {p: [] for p in layers}
        widths = [adapter.width(p, adapted=False) for p in layers]
        for batch in batches:
            outputs = batch.source if initial else batch.adapted
            if initial and batch.derived is not None:
                columns = batch.derived.split(widths, dim=1)
                outputs = dict(zip(layers, columns, strict=True))
            for p in layers:
                found[p].append(outputs[p])
        return {p: torch.cat(rows) for p, rows in found.items()}

    @cached_property
    def digest(self) -> str:
        """Hash of the centres, by which caches name what is computed from them."""
        parts = (self.network, self.fingerprint, self.image_size)
        return content_key(self.inputs) + content_key(self.classes) + repr(parts)

    def check_fits(self, estimator: Any) -> None:
        """Raise ValueError if :meth:`outputs` cannot be computed with an estimator."""
        adapter = need_adapter(estimator)
        self._check_network(adapter)
        if self.image_size != adapter.image_size:
            raise ValueError(
                f"These centres were made at {self.image_size} x {self.image_size} "
                f"pixels, the estimator works at {adapter.image_size}. "
                f"Set image_size={self.image_size} or make the centres again."
            )
        if isinstance(adapter, CNNAdapter):
            takes, got = tuple(adapter.source.example.shape[1:]), self.inputs.shape[1:]
            if takes != got:
                raise ValueError(
                    f"{self.network} takes inputs of shape {takes}, the centres are "
                    f"of shape {got}. Make them again."
                )

    def _check_network(self, adapter: NetworkAdapter) -> None:
        own = adapter.source_name, adapter.source_fingerprint
        if (self.network, self.fingerprint) != own:
            raise ValueError(
                f"These centres were made with {self.network} (weights "
                f"{self.fingerprint}), the estimator has {own[0]} (weights "
                f"{own[1]}). Make centres with the estimator itself: "
                "SourceCenters.from_dataset(estimator, X_source, y_source)."
            )

    def save(self, path: str | Path) -> None:
        """Write the centres to a ``.safetensors`` file."""
        metadata = {
            "format": _FORMAT,
            "network": self.network,
            "fingerprint": self.fingerprint,
            "image_size": str(self.image_size),
            "class_names": json.dumps(self.class_names),
        }
        tensors = {
            "inputs": np.ascontiguousarray(self.inputs),
            "classes": np.ascontiguousarray(self.classes, dtype=np.int64),
        }
        write_atomically(
            Path(path),
            lambda tmp_path: safetensors.numpy.save_file(tensors, tmp_path, metadata),
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
                    class_names=tuple(names) if names else None,
                )
            centers._check_loaded()
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

    def _check_loaded(self) -> None:
        """Raise on content that :meth:`save` does not write."""
        inputs, classes, side = self.inputs, self.classes, self.image_size
        images = inputs.dtype == np.uint8 and inputs.shape[1:] == (3, side, side)
        rows = inputs.dtype == np.float32 and inputs.ndim == 2
        if not (images or rows) or inputs.size == 0:
            raise ValueError(
                f"its centres are {inputs.dtype} of shape {inputs.shape}, for images "
                f"of {side} x {side} pixels"
            )
        if classes.dtype != np.int64 or classes.shape != inputs.shape[:1]:
            raise ValueError(
                f"its classes are {classes.dtype} of shape {classes.shape}"
            )
        if classes.min() < 0 or not np.isfinite(inputs).all():
            raise ValueError("it has negative classes, or values that are not finite")
        names = self.class_names
        if names is not None and (
            len(names) != len(inputs) or not all(isinstance(n, str) for n in names)
        ):
            raise ValueError("it has other names than classes")


def _covering_classes(
    source: PretrainedNetwork, n_centers: int, among: np.ndarray
) -> np.ndarray:
    """Choose `n_centers` of the classes `among`, see :meth:`SourceCenters.subset`."""
    if not 2 <= n_centers <= len(among):
        raise ValueError(
            f"n_centers={n_centers} of {len(among)} source classes: it must be from 2 "
            "to their number."
        )
    if n_centers == len(among):
        return among
    source.check_source_classes(f"the choice of n_centers={n_centers}")
    head = get_head(source.module, source.graph.layers[-1].name)
    vectors = normalize(head.weight.detach().cpu().flatten(1).double().numpy()[among])
    clusters = KMeans(n_centers, n_init=1, random_state=0).fit(vectors)
    distances = clusters.transform(vectors)
    distances[clusters.labels_[:, None] != np.arange(n_centers)] = np.inf
    return np.sort(among[distances.argmin(axis=0)])
