"""When a pool's features go to the disk by themselves."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from ...classifier import CNNClassifier
from ...images.dataset import StoredImages, n_images
from ..adapter import cnn_adapter

SHARE = 0.5
"""Share of the available memory that a pool's features may take."""
_COPIES = 3
"""Arrays of the features' size that a strategy may hold at once."""


def available_memory() -> int:
    """Bytes that this process may still take, as far as the system says.

    Returns
    -------
    int
    """
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text())
        limits.append(most - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no group, or no limit
        pass
    if not limits and hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(min(limits, default=2**34), 0)


def can_be_stored(estimator: Any, X: Any, strategy: Any) -> bool:
    """Tell whether a feature store is of use to a strategy.

    Parameters
    ----------
    estimator : object
    X : images
    strategy : object
        One without `layer` holds no features.

    Returns
    -------
    bool
    """
    return (
        isinstance(estimator, CNNClassifier)
        and hasattr(strategy, "layer")
        and not isinstance(X, StoredImages)
        and not cnn_adapter(estimator).takes_rows(X)
    )


def fits_memory(estimator: CNNClassifier, X: Any, strategy: Any) -> bool:
    """Tell whether the features that a strategy looks at can be held at once.

    They take 4 bytes a number, up to three times over, of at most half the memory
    that is available.

    Parameters
    ----------
    estimator : CNNClassifier
    X : images
    strategy : object
        See :func:`can_be_stored`.

    Returns
    -------
    bool
    """
    source = estimator.source_network()
    width = math.prod(source.output_shapes[source.graph.position(strategy.layer)])
    return 4 * _COPIES * n_images(X) * width <= SHARE * available_memory()


def temporary_folder(owner: Any) -> Path:
    """Make a folder that is removed together with an object, or at the end.

    Parameters
    ----------
    owner : object

    Returns
    -------
    Path
    """
    folder = tempfile.mkdtemp(prefix="skadma-features-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
