"""Weights from files, without running anything that a file may hold."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a file of weights.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file, or a ``.pth`` / ``.pt`` file with a state dict,
        which may lie under a key ``"state_dict"`` or ``"model"``.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds anything but tensors by name. Pickled objects are never
        loaded.
    """
    path = Path(path)
    loaded: Any
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            loaded = safetensors.torch.load_file(path)
        else:
            if tarfile.is_tarfile(path):
                # weights_only= does not guard this oldest format before torch 2.6.
                raise ValueError("torch's old tar format, which can run code")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} holds no plain weights ({type(error).__name__}: {error}). "
            "Save them with torch.save(model.state_dict(), path) or safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in loaded.items()
    ):
        raise ValueError(
            f"{str(path)!r} holds {type(loaded).__name__}, not a state dict of tensors "
            "by name. Save one with torch.save(model.state_dict(), path)."
        )
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def load_into(
    module: nn.Module, state_dict: dict[str, torch.Tensor], what: str
) -> None:
    """Load weights into a network, all of them or none.

    Raises
    ------
    ValueError
        If names or shapes differ; the message gives the first of them.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    shapes = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state_dict and state_dict[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"The weights do not fit {what}: {len(missing)} missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shapes)} of another "
            f"shape {shapes[:3]}."
        )
    module.load_state_dict(state_dict)


def fingerprint(module: nn.Module) -> str:
    """Hash a network's weights: equal for equal weights, 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
