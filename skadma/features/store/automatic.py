"""Whether a pool's features fit into memory or go to the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from ...images.selection import StoredImages, n_images
from ..adapter import CNNAdapter, cnn_adapter
from ..estimators import get_adapter

_SHARE = 0.5
"""Share of the available memory that a pool's features may take."""
_COPIES = 3
"""Arrays of the features' size that a strategy may hold at once."""


def available_memory() -> int:
    """Bytes that this process may still take, by the system and its control group."""
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        limits.append(limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no group, or no limit
        pass
    if not limits and hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(min(limits, default=2**34), 0)


def can_be_stored(estimator: Any, X: Any, strategy: Any) -> bool:
    """Tell whether a feature store of `X` helps: a strategy with `layer` reads one."""
    adapter = get_adapter(estimator)
    return (
        isinstance(adapter, CNNAdapter)
        and hasattr(strategy, "layer")
        and not isinstance(X, StoredImages)
        and not adapter.takes_rows(X)
    )


def fits_memory(estimator: Any, X: Any, strategy: Any) -> bool:
    """Tell whether a strategy's features of `X` take at most half the free memory.

    They take 4 bytes a number, up to three times over.
    """
    adapter = cnn_adapter(estimator)
    width = adapter.width(adapter.position(strategy.layer), adapted=False)
    return 4 * _COPIES * n_images(X) * width <= _SHARE * available_memory()


def temporary_folder(owner: Any) -> Path:
    """Make a folder that is removed together with an object, or at the end."""
    folder = tempfile.mkdtemp(prefix="skadma-features-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
