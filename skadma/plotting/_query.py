"""QueryDisplay: which images were queried, among the others and beside centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.manifold import TSNE
from sklearn.utils import check_random_state

from ..centers import SourceCenters, shipped_centers
from ..features.adapter import CNNAdapter
from ..features.estimators import find_cnn
from ..images.dataset import n_images, take
from ..learner import ActiveLearner
from ..strategies import ADMA
from ..strategies.adma import CenterDistances
from ._matplotlib import new_axes


@dataclass(frozen=True)
class QueryExample:
    """An image of the learner's X, and the source centre nearest to it.

    Images are uint8 (side, side, 3).
    """

    index: int
    queried: bool
    image: np.ndarray
    center_name: str
    center_image: np.ndarray


class QueryDisplay:
    """The queried images of a pool: Fig. 6 of the ADMA paper [1]_.

    Make one with :meth:`from_learner`.

    Parameters
    ----------
    indices : ndarray of int, shape (n,)
        Images of the pool.
    embedding : ndarray of shape (n, 2)
        Where t-SNE puts them, by their features.
    rounds : ndarray of int, shape (n,)
        In which round each was queried; -1 for those that were not.
    drawn : ndarray of bool, shape (n,), optional
        As many images as were queried, drawn at random from the pool.
    examples : list of QueryExample, optional
        Images beside their nearest centres.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    References
    ----------
    .. [1] Huang, Zhao & Liu, Cost-Effective Training of Deep CNNs with Active Model
       Adaptation, KDD 2018, doi 10.1145/3219819.3220026.
    """

    def __init__(
        self,
        *,
        indices: np.ndarray,
        embedding: np.ndarray,
        rounds: np.ndarray,
        drawn: np.ndarray | None = None,
        examples: list[QueryExample] | None = None,
    ) -> None:
        self.indices = indices
        self.embedding = embedding
        self.rounds = rounds
        self.drawn = drawn
        self.examples = examples

    @classmethod
    def from_learner(
        cls,
        learner: ActiveLearner,
        X: Any = None,
        *,
        layer: int | str = -2,
        centers: SourceCenters | None = None,
        n_examples: int = 6,
        max_images: int = 2000,
        random_state: int | np.random.RandomState | None = None,
        kind: str = "embedding",
        ax: Any = None,
    ) -> QueryDisplay:
        """Draw a learner's queries in the features of its present network.

        Parameters
        ----------
        learner : ActiveLearner
            Fitted, around a CNNClassifier.
        X : images, optional
            Those of ``fit``, in the same order; the learner's own if None.
        layer : int or str, default=-2
            Layer B, whose outputs are the features.
        centers : SourceCenters, optional
            To find the nearest one of; the strategy's if None and if it has them.
        n_examples : int, default=6
            How many queried images, the first ones, and as many others, drawn at
            random, are shown beside their centres.
        max_images : int, default=2000
            With more, t-SNE gets all queried ones and a random sample of the others.
        random_state : int, RandomState instance or None, default=None
            Seeds t-SNE and the drawing.
        kind : {"embedding", "random", "examples"}, default="embedding"
            See :meth:`plot`.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        QueryDisplay

        Raises
        ------
        ValueError
            If nothing was queried yet.
        TypeError
            If the learner has no CNNClassifier.
        """
        queried = np.concatenate([*learner.queried_indices_, np.empty(0, int)])
        if not len(queried):
            raise ValueError("The learner has queried nothing yet.")
        X = learner.X_ if X is None else X
        if n_images(X) != n_images(learner.X_):
            raise ValueError(
                f"X has {n_images(X)} images, but the learner was fitted with "
                f"{n_images(learner.X_)}."
            )
        adapter, X = find_cnn(learner.estimator_, X, cls.__name__)
        if not isinstance(adapter, CNNAdapter):
            raise TypeError(
                f"{cls.__name__} shows the images that a CNNClassifier reads, got "
                f"{type(adapter.estimator).__name__}."
            )
        clf = adapter.estimator
        rng = check_random_state(random_state)
        rounds = np.full(n_images(X), -1)
        for t, chosen in enumerate(learner.queried_indices_):
            rounds[chosen] = t
        n_queried = len(np.unique(queried))
        drawn = rng.choice(len(rounds), n_queried, replace=False)
        others = rng.permutation(np.flatnonzero(rounds < 0))
        # Those drawn come first, so that thinning keeps them.
        others = others[np.argsort(~np.isin(others, drawn), kind="stable")]
        n_others = max(max_images - n_queried, 0)
        indices = np.sort(np.concatenate([np.unique(queried), others[:n_others]]))
        features = clf.embed(take(X, indices), layer)[layer]
        usable = np.isfinite(features).all(axis=1)
        indices, features = indices[usable], features[usable]
        if len(features) < 3:
            raise ValueError(f"t-SNE needs at least 3 images, got {len(features)}.")
        if centers is None:
            centers = getattr(learner.strategy_, "centers", None)
            if centers is None and isinstance(learner.strategy_, ADMA):
                centers = shipped_centers(clf)
        examples = None
        if centers is not None:
            first = list(dict.fromkeys(queried.tolist()))[:n_examples]
            beside = rng.permutation(others[np.isin(others, indices)])[:n_examples]
            shown = np.concatenate([first, beside]).astype(int)
            examples = _examples(adapter, X, shown, rounds >= 0, centers, layer)
        # The usual 30 neighbours, or as many as few images allow.
        tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=rng)
        display = cls(
            indices=indices,
            embedding=tsne.fit_transform(features),
            rounds=rounds[indices],
            drawn=np.isin(indices, drawn),
            examples=examples,
        )
        return display.plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "embedding", ax: Any = None) -> QueryDisplay:
        """Draw the embedding or the examples.

        Parameters
        ----------
        kind : {"embedding", "random", "examples"}, default="embedding"
            "embedding": the pool by t-SNE, the queried images marked by their round
            (Fig. 6 a). "random": the same map with as many images marked that were
            drawn at random from the pool (Fig. 6 b). "examples": images, queried ones
            left and others right, over the source centres nearest to them (Fig. 6 c,
            d).
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If what `kind` shows is missing.
        """
        if kind not in ("embedding", "random", "examples"):
            raise ValueError(
                f"kind={kind!r} must be 'embedding', 'random' or 'examples'."
            )
        if kind == "random" and self.drawn is None:
            raise ValueError("No images were drawn at random: give drawn=.")
        if kind == "examples" and not self.examples:
            raise ValueError(
                "The examples are shown beside source centres, and the learner's "
                "strategy has none: give centers= to from_learner."
            )
        ax = new_axes(ax, type(self).__name__)
        if kind == "examples":
            self._plot_examples(ax)
        elif kind == "random":
            self._mark(ax, self.drawn, "drawn at random", color="tab:orange")
        else:
            asked = self.rounds >= 0
            points = self._mark(ax, asked, "queried", c=self.rounds[asked])
            last = self.rounds.max()
            ticks = np.unique(np.linspace(0, last, min(last + 1, 10)).astype(int))
            ax.figure.colorbar(points, ax=ax, label="round", ticks=ticks)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _mark(self, ax: Any, marked: Any, label: str, **color: Any) -> Any:
        """Draw the map with some images as stars."""
        ax.scatter(*self.embedding[~marked].T, s=8, color="0.75", label=f"not {label}")
        points = ax.scatter(
            *self.embedding[marked].T,
            s=45,
            marker="*",
            edgecolors="k",
            linewidths=0.3,
            label=label,
            **color,
        )
        ax.set(xticks=[], yticks=[])
        ax.legend()
        return points

    def _plot_examples(self, ax: Any) -> None:
        assert self.examples
        groups = [[e for e in self.examples if e.queried is q] for q in (True, False)]
        side = self.examples[0].image.shape[0]
        gap = side // 2
        left = 0
        for label, group in zip(("queried", "not queried"), groups, strict=True):
            for i, example in enumerate(group):
                x = left + i * side
                ax.imshow(example.image, extent=(x, x + side, side, 0))
                extent = (x, x + side, 2 * side, side)
                ax.imshow(example.center_image, extent=extent)
                ax.text(x + side / 2, 2.05 * side, example.center_name, rotation=90,
                        ha="center", va="top", fontsize="small")  # fmt: skip
            if group:
                middle = left + len(group) * side / 2
                ax.text(middle, -0.05 * side, label, ha="center", va="bottom")
            left += len(group) * side + gap
        ax.text(-gap / 4, side / 2, "image", ha="right", va="center")
        ax.text(-gap / 4, 1.5 * side, "nearest\ncentre", ha="right", va="center")
        ax.set(xlim=(-3 * gap, left), ylim=(4 * side, -gap), aspect="equal")
        ax.set_axis_off()


def _examples(
    adapter: CNNAdapter,
    X: Any,
    indices: np.ndarray,
    queried: np.ndarray,
    centers: SourceCenters,
    layer: int | str,
) -> list[QueryExample]:
    """Find the centre nearest to each image at layer B of the present network."""
    clf, position = adapter.estimator, adapter.position(layer)
    outputs = centers.outputs(clf, [position], initial=False)[position]
    features = torch.from_numpy(clf.embed(take(X, indices), layer)[layer])
    nearest = CenterDistances(outputs)(features.to(outputs.device)).argmin(dim=1)
    names: ArrayLike = centers.class_names or [str(k) for k in centers.classes]
    dataset = adapter.image_dataset(take(X, indices))
    return [
        QueryExample(
            index=int(index),
            queried=bool(queried[index]),
            image=dataset[i].permute(1, 2, 0).numpy(),
            center_name=str(np.asarray(names)[k]),
            center_image=centers.inputs[k].transpose(1, 2, 0),
        )
        for i, (index, k) in enumerate(zip(indices, nearest.tolist(), strict=True))
    ]
