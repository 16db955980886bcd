"""AIFT: uncertainty and diversity among patches of one image."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..features.estimators import find_adapter, in_blocks
from ..images.selection import n_images
from .base import Scores, ScoringStrategy


class AIFT(ScoringStrategy):
    r"""Active, Incremental Fine-Tuning [1]_.

    The score of an image is high if the predictions for its patches are uncertain or
    differ from each other. It is the sum of the matrix

    .. math:: R(j, l) = \begin{cases} e_j = -\sum_k p_{jk} \log p_{jk} & j = l \\
              d(j, l) = \sum_k (p_{jk} - p_{lk}) \log (p_{jk} / p_{lk}) & j \ne l
              \end{cases}

    (Eq. 3-5, :math:`\lambda_1 = \lambda_2 = 1`) over the share
    `alpha` of the patches with the highest probability of the class that is the most
    probable on average (majority selection, Sec. 3.4). Before the first fit all images
    have the same score.

    Patches are cut out of the frozen layers' output maps, which are computed once for
    an image. (The paper cuts candidates out of the image, where a detector found them.)
    Where no frozen layer has a map for `n_patches` different windows, they are cut out
    of an earlier map, or out of the image itself.

    Parameters
    ----------
    n_patches : int, default=16
        Patches of an image: windows half as high and wide as the map, the same for all
        images. Where the map has fewer of these, also those a row or column larger.
    alpha : float, default=0.25
        Share of patches that count, rounded up.
    random_state : int, RandomState instance or None, default=None
        Draws the patches, and breaks ties.

    References
    ----------
    .. [1] Zhou, Shin, Zhang, Gurudu, Gotway & Liang, Fine-Tuning Convolutional Neural
       Networks for Biomedical Image Analysis: Actively and Incrementally, CVPR 2017.
    """

    needs: ClassVar[str] = "probabilities of patches"
    cost: ClassVar[str] = "1 pass, and n_patches / 4 of the trainable layers"
    memory: ClassVar[str] = "a batch"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_patches": [Interval(Integral, 1, 10**4, closed="both")],
        "alpha": [Interval(Real, 0, 1, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_patches: int = 16,
        alpha: float = 0.25,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.n_patches = n_patches
        self.alpha = alpha

    def score(self, estimator: Any, X_pool: Any, *, iteration: float = 0) -> Scores:
        """Score by patches; see :meth:`ScoringStrategy.score`."""
        self._validate_params()
        n = n_images(X_pool)
        adapter, X = find_adapter(estimator, X_pool)
        if not adapter.fitted:
            return Scores(np.ones(n))
        total = np.full(n, np.nan)
        for start, block in in_blocks(X):
            rng = np.random.default_rng(self._seed())  # same patches in all blocks
            batches = adapter.iter_patch_outputs(block, self.n_patches, rng)
            for indices, scores in batches:
                proba = torch.softmax(scores.double(), dim=2).cpu().numpy()
                total[start + indices] = patch_score(proba, self.alpha)
        return Scores(total)


def patch_score(proba: np.ndarray, alpha: float) -> np.ndarray:
    """AIFT's score from patches' probabilities (n, n_patches, n_classes) (Eq. 3-5)."""
    n, n_patches, _ = proba.shape
    dominant = proba.mean(axis=1).argmax(axis=1)
    dominant_proba = proba[np.arange(n), :, dominant]
    n_counted = math.ceil(alpha * n_patches)
    order = np.argsort(-dominant_proba, axis=1, kind="stable")[:, :n_counted]
    p = np.take_along_axis(proba, order[..., None], axis=1)
    log = np.log(np.maximum(p, np.finfo(p.dtype).tiny))
    entropy = -(p * log).sum(axis=(1, 2))
    # The sum over j, l of sum_k (p_j - p_l)(log p_j - log p_l), multiplied out.
    own = n_counted * (p * log).sum(axis=(1, 2))
    mixed = (p.sum(axis=1) * log.sum(axis=1)).sum(axis=1)
    return entropy + 2 * (own - mixed)
