"""SourceCenters: one representative of each source class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ..classifier import CNNClassifier
from ..features.cnn_adapter import CNNAdapter
from ..features.passes import OutputBatch
from ..images.dataset import take
from ..networks import PretrainedNetwork
from ._cover import covering_classes
from ._kept import KeptCenters
from ._labels import labeled_images
from ._nearest import nearest_by_prediction, nearest_to_class_mean
from ._sheet import resized
from ._synthesis import N_STEPS, SIDE, synthesize_images


@dataclass(frozen=True, eq=False, repr=False)
class SourceCenters(KeptCenters):
    """Representatives c_k of the source classes, as images or as layer outputs.

    Make them with :meth:`from_dataset`, :meth:`from_examples`, :meth:`from_pool` or
    :meth:`synthesize`, or read them with :meth:`load`.

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
    origin : {"dataset", "examples", "pool", "synthesized"}, default="dataset"
        What they were made from.
    """

    @classmethod
    def from_dataset(
        cls,
        estimator: CNNClassifier,
        X: Any,
        y: ArrayLike | None = None,
        *,
        layer: int | str | None = None,
        n_centers: int | None = None,
        checkpoint: str | Path | None = None,
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
        X : images, str, Path or Dataset
            Of the source task, in any form that the estimator takes. A single path is
            a folder with one subfolder per class.
        y : array-like of shape (n,), optional
            Their source classes: numbers of M0's outputs, or its class names. May be
            left out for a folder or a Dataset of (image, label), such as
            torchvision's: its classes are matched with M0's by name or, if there are
            K of them, by order.
        layer : int or str, optional
            Keep the outputs of this layer (float16) instead of images: a smaller
            file, and the images stay where they are, but only later layers can be
            computed from it, and fine-tuning must not change the layer or what lies
            before it unless ``ADMA(features="initial")`` is used. It must be one
            whose output is all that the rest of the network gets, such as the last
            of a block.
        n_centers : int, optional
            Only so many classes, see :meth:`subset`. Images of others are not looked
            at.
        checkpoint : str or Path, optional
            A file to which the means so far are written twice a minute. A call that
            finds it goes on from there; it is deleted at the end.
        verbose : bool, default=False
            Show progress bars.

        Returns
        -------
        SourceCenters
            Sorted by class.

        Raises
        ------
        ValueError
            If a label is not one of M0's classes, `layer` is not as said above, or
            `checkpoint` belongs to other data.
        """
        source = estimator.source_network()
        position = None if layer is None else _separating_layer(source, layer)
        X, numbers = labeled_images(X, y, source)
        if n_centers is not None:
            wanted = covering_classes(source, n_centers, np.unique(numbers))
            some = np.isin(numbers, wanted)
            X, numbers = take(X, some), numbers[some]
        chosen = nearest_to_class_mean(
            estimator, X, numbers, checkpoint=checkpoint, verbose=verbose
        )
        return cls._of(estimator, take(X, chosen), numbers[chosen], "dataset", position)

    @classmethod
    def from_examples(
        cls,
        estimator: CNNClassifier,
        X: Any,
        y: ArrayLike | None = None,
        *,
        layer: int | str | None = None,
        n_centers: int | None = None,
    ) -> SourceCenters:
        """Take one or a few images per source class.

        With one image of a class it is the centre, with more the one nearest to their
        mean. Classes without an image are left out.

        Parameters
        ----------
        estimator : CNNClassifier
        X : mapping, images, str, Path or Dataset
            A mapping takes a source class (number or name) to an image (path, array or
            PIL image) or a list of them. Otherwise as in :meth:`from_dataset`.
        y : array-like of shape (n,), optional
        layer, n_centers
            See :meth:`from_dataset`.

        Returns
        -------
        SourceCenters

        Raises
        ------
        ValueError
        """
        made = cls.from_dataset(estimator, X, y, layer=layer, n_centers=n_centers)
        return replace(made, origin="examples")

    @classmethod
    def from_pool(
        cls,
        estimator: CNNClassifier,
        X_pool: Any,
        *,
        n_centers: int | None = None,
        verbose: bool = False,
    ) -> SourceCenters:
        """Take pool images in place of source images: pseudo-centres.

        M0 assigns each image to its most probable class. Of each class, the mean of z
        is taken over its images, weighted by M0's confidence, and the nearest of them
        is the centre. Two passes. Classes that no image is assigned to are left out,
        so a pool of few kinds gives few centres.

        Parameters
        ----------
        estimator : CNNClassifier
        X_pool : images
        n_centers : int, optional
            At most so many, see :meth:`subset`.
        verbose : bool, default=False
            Show progress bars.

        Returns
        -------
        SourceCenters
        """
        nearest = nearest_by_prediction(estimator, X_pool, verbose=verbose)
        classes = np.flatnonzero(nearest >= 0)
        if n_centers is not None:
            source = estimator.source_network()
            classes = covering_classes(source, min(n_centers, len(classes)), classes)
        return cls._of(estimator, take(X_pool, nearest[classes]), classes, "pool")

    @classmethod
    def synthesize(
        cls,
        estimator: CNNClassifier,
        *,
        n_centers: int | None = None,
        side: int | None = None,
        n_steps: int = N_STEPS,
        batch_size: int = 50,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> SourceCenters:
        """Make the centres from M0 itself, without any source data.

        Each image starts as noise and follows M0's gradient towards its class, while
        the statistics of a batch are held to those that M0's batch norms keep
        (DeepInversion [1]_). Images are seen at several sizes, so that they are
        recognised at others too. Networks without batch norm have less to go by.

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
        source = estimator.source_network()
        classes = np.arange(source.n_classes)
        if n_centers is not None:
            classes = covering_classes(source, n_centers, classes)
        size = source.preprocessing.image_size
        images = synthesize_images(
            source,
            classes,
            side=min(size, SIDE) if side is None else side,
            n_steps=n_steps,
            batch_size=batch_size,
            seed=int(check_random_state(random_state).randint(2**31)),
            device=estimator.torch_device(),
            progress=verbose,
        )
        return cls._with(source, resized(images, size), classes, "synthesized")

    @classmethod
    def _of(
        cls,
        estimator: CNNClassifier,
        X: Any,
        classes: np.ndarray,
        origin: str,
        position: int | None = None,
    ) -> SourceCenters:
        """Keep images, or a layer's outputs for them."""
        source = estimator.source_network()
        if position is not None:
            inputs = _raw_outputs(estimator, X, position)
        elif CNNAdapter(estimator).takes_rows(X):
            inputs = np.asarray(X, dtype=np.float32)
        else:
            dataset = CNNAdapter(estimator).image_dataset(X)
            inputs = np.stack([dataset[i].numpy() for i in range(len(dataset))])
        return cls._with(source, inputs, classes, origin, position)

    @classmethod
    def _with(
        cls,
        source: PretrainedNetwork,
        inputs: np.ndarray,
        classes: np.ndarray,
        origin: str,
        position: int | None = None,
    ) -> SourceCenters:
        names = source.class_names
        return cls(
            inputs=inputs,
            classes=classes,
            network=source.name,
            fingerprint=source.fingerprint,
            image_size=source.preprocessing.image_size,
            layer=position,
            class_names=tuple(names[k] for k in classes) if names else None,
            origin=origin,
        )


def _separating_layer(source: PretrainedNetwork, layer: int | str) -> int:
    """Position of a layer whose output is all that the rest of the network gets."""
    position = source.graph.position(layer)
    output = source.graph.layers[position].output
    if source.graph.cut_before(position) is not output:
        raise ValueError(
            f"The output of layer {layer!r} is not all that later layers get: "
            "a shortcut or a parallel way passes it by. Take the last layer of "
            "a block, or keep images (layer=None)."
        )
    return position


def _raw_outputs(estimator: CNNClassifier, X: Any, position: int) -> np.ndarray:
    batches: Iterator[OutputBatch] = CNNAdapter(estimator).iter_outputs(
        X, source_layers=[position]
    )
    rows = np.concatenate([b.source[position].cpu().numpy() for b in batches])
    shape = estimator.source_network().output_shapes[position]
    return rows.astype(np.float16).reshape(-1, *shape)
