"""A part of a torch Dataset."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Subset


class TakenDataset(Subset[Any]):
    """Items of a Dataset, with their numbers in the one of the user."""

    def __init__(self, X: Any, indices: list[int], numbers: list[int]) -> None:
        super().__init__(X, indices)
        self.numbers = numbers
