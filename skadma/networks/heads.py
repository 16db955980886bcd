"""Last layers that know of what parts their input consists."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import normalize


class PartsLinear(nn.Linear):
    """A Linear whose input consists of parts, one behind the other.

    Parameters
    ----------
    parts : sequence of int
        Their widths.
    n_classes : int
    """

    def __init__(self, parts: Sequence[int], n_classes: int) -> None:
        super().__init__(sum(parts), n_classes)
        self.parts = list(parts)

    def resized(self, n_classes: int) -> PartsLinear:
        """Make one like it with other outputs, of random weights."""
        return PartsLinear(self.parts, n_classes)


class ProbeHead(PartsLinear):
    """A Linear on parts that are centred and brought to set lengths.

    With x_i the parts, c_i the centres and m the number of parts it gets
    w_i (x_i - c_i) / |x_i - c_i|, a vector of length 1: the first part, which is what
    the network's own last layer got, counts twice, w_1^2 = 2 / (m + 1) and
    w_i^2 = 1 / (m + 1); with one part w_1 = 1.

    Parameters
    ----------
    parts, n_classes
        See :class:`PartsLinear`.
    """

    centre: torch.Tensor

    def __init__(self, parts: Sequence[int], n_classes: int) -> None:
        super().__init__(parts, n_classes)
        self.register_buffer("centre", torch.zeros(sum(parts)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of a batch."""
        return super().forward(self.prepare(x))

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Centre the parts and bring them to their lengths."""
        first, *more = torch.split(x - self.centre, self.parts, dim=1)
        shared = 1 / (len(self.parts) + 1) ** 0.5
        lengths = [2**0.5 * shared if more else 1.0, *(shared for _ in more)]
        found = [
            normalize(part) * length
            for part, length in zip([first, *more], lengths, strict=True)
        ]
        return torch.cat(found, dim=1)

    def resized(self, n_classes: int) -> ProbeHead:
        """Make one like it with other outputs, of random weights."""
        head = ProbeHead(self.parts, n_classes)
        head.centre.copy_(self.centre)
        return head


def get_head(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return the last weighted layer of a network."""
    head = network.get_submodule(name)
    assert isinstance(head, (nn.Conv2d, nn.Linear))
    return head
