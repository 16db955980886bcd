"""Synthesise images of the source classes from the pretrained network alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.lr_scheduler import CosineAnnealingLR

from .._utils.processes import progress_bar
from ..networks import PretrainedNetwork
from ..networks.adapted import Normalize
from ..networks.graph import fold_batch_norms, foldable_batch_norms
from ..networks.torch_state import NETWORK_LOCK, torch_defaults

N_STEPS = 140
SIDE = 128
_STEP_SIZE = 0.02  # of pixels in [0, 1]; larger ones find images for this network only
_STATISTICS = 3.0  # beside the cross-entropy
_STATISTICS_EVERY = 3  # steps, as they cost more than the rest


@torch_defaults(training=True)
def synthesize_images(
    source: PretrainedNetwork,
    classes: np.ndarray,
    *,
    side: int,
    n_steps: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    progress: bool,
) -> np.ndarray:
    """Make an image of each class: uint8, shape (k, 3, side, side).

    A quarter of the gradient steps are taken at half the size. `batch_size` images are
    made together.
    """
    if source.example.ndim != 4:
        raise ValueError(
            f"{source.name} takes rows of shape {tuple(source.example.shape[1:])}, and "
            "only images can be synthesised. Make centres with from_dataset."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(classes), generator=generator)  # kinds mixed in batches
    found = torch.empty((len(classes), 3, side, side), dtype=torch.uint8)
    total = n_steps * len(classes)
    with progress_bar(total=total, desc="synthesis", disable=not progress) as bar:
        descent = _Descent(source, side, generator, device, bar.update)
        coarse = side // 2 if side // 2 in descent.sizes else side
        for rows in order.split(batch_size):
            labels = torch.from_numpy(np.asarray(classes))[rows].to(device)
            noise = torch.randn((len(rows), 3, coarse, coarse), generator=generator)
            images = (0.5 + 0.1 * noise).to(device)
            images = descent(images, labels, n_steps // 4, [coarse])
            images = F.interpolate(images, (side, side), mode="bilinear")
            images = descent(images, labels, n_steps - n_steps // 4, descent.sizes[1:])
            found[rows] = (255 * images).round().to(torch.uint8).cpu()
    return found.numpy()


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Resize square images (k, 3, old, old) of uint8 to (k, 3, side, side)."""
    if images.shape[-1] == side:
        return images
    out = np.empty((len(images), 3, side, side), dtype=np.uint8)
    for new, image in zip(out, images, strict=True):
        pixels = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        new[:] = np.asarray(
            pixels.resize((side, side), Image.Resampling.BICUBIC)
        ).transpose(2, 0, 1)
    return out


class _Descent:
    """Follows the network's gradient from images in [0, 1] towards their classes.

    `sizes` are half of the side, three quarters of it, all of it and five quarters,
    those that the network accepts. Images seen at several sizes are recognised at
    others, too. `report` is called with the number of images after each step.
    """

    def __init__(
        self,
        source: PretrainedNetwork,
        side: int,
        generator: torch.Generator,
        device: torch.device,
        report: Callable[[int], object],
    ) -> None:
        self.generator = generator
        self.report = report
        self.statistics: list[torch.Tensor] = []
        self._watched = False
        self.normalize = Normalize(source.preprocessing).to(device)
        self.network = self._prepare(source).to(device)
        asked = [side // 2, side * 3 // 4, side, side * 5 // 4]
        self.sizes = [n for n in asked if self._takes(n, device)]
        if side not in self.sizes:
            raise ValueError(
                f"{source.name} does not take images of {side} x {side} pixels. It is "
                f"set to {source.preprocessing.image_size}: give side= that."
            )
        if self.sizes[0] == side:
            self.sizes.insert(0, side)

    def _prepare(self, source: PretrainedNetwork) -> fx.GraphModule:
        """Fold batch norms, which saves a third of the time, and hook their places."""
        whole = source.graph.extract(source.module, [source.graph.layers[-1].output])
        norms = [
            (conv, norm) for _, conv, norm in foldable_batch_norms(whole) if norm.affine
        ]
        network = copy.deepcopy(fold_batch_norms(whole))
        for module in network.modules():
            if getattr(module, "inplace", False):
                # Statistics are taken of what it would change.
                module.inplace = False  # type: ignore[assignment]
        for conv, norm in norms:
            network.get_submodule(conv).register_forward_hook(self._watcher(norm))
        return network

    def _watcher(self, norm: nn.BatchNorm2d) -> Callable[..., Any]:
        """Compare the output of a folded batch norm with the statistics it keeps."""
        mean = norm.bias.detach().clone()
        std = norm.weight.detach().abs() + 1e-3

        def watch(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            if not self._watched:
                return
            got_variance, got_mean = torch.var_mean(output, (0, 2, 3), correction=0)
            shifted = (got_mean - mean.to(output.device)) / std.to(output.device)
            scaled = (got_variance + 1e-8).sqrt() / std.to(output.device)
            self.statistics.append(
                shifted.square().mean() + (scaled - 1).square().mean()
            )

        return watch

    def _takes(self, size: int, device: torch.device) -> bool:
        try:
            with torch.no_grad():
                self._scores(torch.zeros(1, 3, size, size, device=device))
        except (RuntimeError, AssertionError, ValueError):
            return False
        return True

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        inputs = 255 * images * self.normalize.scale + self.normalize.shift
        with NETWORK_LOCK:
            (scores,) = self.network(inputs)
        return scores

    def _draw(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self.generator))

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, n_steps: int, sizes: list[int]
    ) -> torch.Tensor:
        """Take steps, with the images shifted, mirrored and resized at random."""
        images = images.detach().requires_grad_()
        side = images.shape[-1]
        optimizer = torch.optim.Adam([images], _STEP_SIZE, betas=(0.5, 0.9))
        schedule = CosineAnnealingLR(optimizer, max(n_steps, 1), _STEP_SIZE / 10)
        reach = side // 16
        for step in range(n_steps):
            shift = self._draw(-reach, reach + 1), self._draw(-reach, reach + 1)
            seen = images.roll(shift, (2, 3))
            if self._draw(0, 2):
                seen = seen.flip(3)
            size = sizes[self._draw(0, len(sizes))]
            if size != side:
                seen = F.interpolate(seen, (size, size), mode="bilinear")
            self._watched = step % _STATISTICS_EVERY == 0
            self.statistics.clear()
            # Of each image its own, whatever the size of the batch.
            loss = F.cross_entropy(self._scores(seen), labels, reduction="sum")
            if self.statistics:
                weight = _STATISTICS * _STATISTICS_EVERY * len(images)
                loss = loss + weight * torch.stack(self.statistics).mean()
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                images.clamp_(0, 1)
            self.report(len(images))
        return images.detach()
