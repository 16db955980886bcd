"""What the parts of speed.py share: a line of the table, a clock, the pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from skadma.bench.demo import load_elpv

SIDE = 128
clock = time.perf_counter
"""speed.py may put time.process_time in its place."""


@dataclass
class Measure:
    """A line of the table."""

    name: str
    value: float
    bar: str
    bound: str
    parts: dict[str, float] = field(default_factory=dict)


def seconds(function: Callable, *args: object, repeat: int = 1) -> float:
    """Return the least of some runs' seconds."""
    found = []
    for _ in range(repeat):
        begin = clock()
        function(*args)
        found.append(clock() - begin)
    return min(found)


def pool_at(side: int) -> np.ndarray:
    """Make the pool's photographs (n, side, side, 3): decoded and resized."""
    X, _ = load_elpv()
    resized = [np.asarray(Image.fromarray(x).resize((side, side))) for x in X]
    return np.stack(resized)[..., None].repeat(3, axis=-1)
