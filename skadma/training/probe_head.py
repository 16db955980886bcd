"""The linear probe as the last layer of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..features.cache import open_cache
from ..features.extractor import NONE_READABLE, FeatureExtractor
from ..images.dataset import ImageDataset, Rows
from ..networks import PretrainedNetwork
from ..networks.heads import ProbeHead
from .probe import fit_probe


def probe_inputs(
    source: PretrainedNetwork,
    dataset: ImageDataset | Rows,
    device: torch.device,
    memory: Any,
    batch_size: int,
    skip_unreadable: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (m,) of images that can be decoded; the last layer's inputs (m, d)."""
    last = len(source.graph.layers) - 1
    extractor = FeatureExtractor(
        source,
        None,
        [],
        [last - 1],
        n_frozen=last,
        device=device,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        cache=open_cache(memory),
    )
    batches = list(extractor.iter_outputs(dataset))
    if not batches:
        raise ValueError(NONE_READABLE)
    indices = np.concatenate([batch.indices for batch in batches])
    features = [batch.source[last - 1].cpu().numpy() for batch in batches]
    return indices, np.concatenate(features)


def fit_head(
    head: ProbeHead,
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
) -> None:
    """Centre a head on features (n, d) and fit it to targets.

    Targets are class numbers (n,), or 0 and 1 (n, n_classes): then a probe for each
    label. `weights` (n,) are of mean 1.
    """
    with torch.no_grad():
        mean = np.average(features, axis=0, weights=weights).astype(np.float32)
        head.centre.copy_(torch.from_numpy(mean))
        rows = head.prepare(torch.from_numpy(features).to(head.centre.device))
        coef, intercept, *_ = fit_probe(
            rows.cpu().numpy().astype(np.float64), targets, head.out_features, weights
        )
        head.weight.copy_(torch.from_numpy(coef))
        head.bias.copy_(torch.from_numpy(intercept))
