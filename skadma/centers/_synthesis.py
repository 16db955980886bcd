"""Images of the source classes, made from M0 itself: no source data needed."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from tqdm.auto import tqdm

from ..backbones import Normalize, SourceNetwork

N_STEPS = 200
# How much the priors count beside the cross-entropy. DeepInversion's weights, with the
# batch statistics divided by the number of norms, so that depth does not change it.
STATISTICS = 1.0
VARIATION = 0.1
STEP_SIZE = 0.05


def synthesize_images(
    source: SourceNetwork,
    classes: np.ndarray,
    *,
    n_steps: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    progress: bool,
) -> np.ndarray:
    """Make an image of each class that M0 takes for one.

    Parameters
    ----------
    source : SourceNetwork
        M0.
    classes : ndarray of int, shape (k,)
    n_steps : int
        Gradient steps, half of them at half the size.
    batch_size : int
        Images made together. Their statistics are matched, so take many.
    seed : int
    device : torch.device
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray of uint8, shape (k, 3, side, side)
        side is M0's image size.
    """
    side = source.preprocessing.image_size
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(classes), generator=generator)  # kinds mixed in batches
    targets = torch.from_numpy(np.asarray(classes, dtype=np.int64))[order]
    module = copy.deepcopy(source.module).to(device).eval()
    normalize = Normalize(source.preprocessing).to(device)
    found = torch.empty((len(classes), 3, side, side), dtype=torch.uint8)
    with (
        tqdm(
            total=n_steps * len(classes), desc="synthesis", disable=not progress
        ) as bar,
        _statistics(module) as statistics,
    ):
        for rows in order.split(batch_size):
            labels = targets[: len(rows)].to(device)
            targets = targets[len(rows) :]
            images = torch.randn(
                (len(rows), 3, max(side // 2, 32), max(side // 2, 32)),
                generator=generator,
            )
            images = (0.5 + 0.1 * images).to(device)
            for size, steps in (
                (images.shape[-1], n_steps // 2),
                (side, n_steps - n_steps // 2),
            ):
                images = F.interpolate(images, (size, size), mode="bilinear")
                images = _descend(
                    module, normalize, statistics, images, labels, steps, generator, bar
                )
            found[rows] = (255 * images).round().to(torch.uint8).cpu()
    return found.numpy()


def synthesis_seconds(
    source: SourceNetwork, n_images: int, n_steps: int, device: torch.device
) -> float:
    """Estimate how long :func:`synthesize_images` takes, by trying a few images.

    Parameters
    ----------
    source, n_steps, device
        See :func:`synthesize_images`.
    n_images : int

    Returns
    -------
    float
        Seconds.
    """
    few = np.arange(8) % source.n_classes
    spent = []
    for steps in (2, 4):
        begin = time.perf_counter()
        synthesize_images(
            source,
            few,
            n_steps=steps,
            batch_size=8,
            seed=0,
            device=device,
            progress=False,
        )
        spent.append(time.perf_counter() - begin)
    return (spent[1] - spent[0]) / 2 / 8 * n_images * n_steps


def _descend(
    module: nn.Module,
    normalize: Normalize,
    statistics: list[torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    n_steps: int,
    generator: torch.Generator,
    bar: tqdm,
) -> torch.Tensor:
    """Go down the gradient from images in [0, 1]."""
    images = images.detach().requires_grad_()
    optimizer = torch.optim.Adam([images], STEP_SIZE, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, n_steps, STEP_SIZE / 10
    )
    reach = images.shape[-1] // 8
    for _ in range(n_steps):
        statistics.clear()
        shift = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        seen = images.roll(shift, (2, 3))
        if torch.rand((), generator=generator) < 0.5:
            seen = seen.flip(3)
        pixels = 255 * seen
        scores = module(pixels * normalize.scale + normalize.shift)
        loss = F.cross_entropy(scores, labels)
        if statistics:
            loss = loss + STATISTICS * torch.stack(statistics).mean()
        loss = loss + VARIATION * _variation(images)
        (gradient,) = torch.autograd.grad(loss, images)
        images.grad = gradient
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
        bar.update(len(images))
    return images.detach()


def _variation(images: torch.Tensor) -> torch.Tensor:
    """Total variation: mean squared difference of neighbouring pixels."""
    return (images.diff(dim=2)).square().mean() + images.diff(dim=3).square().mean()


@contextmanager
def _statistics(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect how far each batch norm's input is from the statistics it keeps."""
    found: list[torch.Tensor] = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.running_var + norm.eps
        found.append(
            ((mean - norm.running_mean).square() / scale).mean()
            + (variance / scale).sqrt().sub(1).square().mean()
        )

    hooks = [
        norm.register_forward_pre_hook(compare)
        for norm in module.modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
