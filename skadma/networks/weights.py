"""Weights from files, without running anything that a file may hold."""

from __future__ import annotations

import hashlib
import inspect
import re
import tarfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


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

    As torchvision's own loading does, this takes weights that are older than the
    network's code: DenseNet's names with one dot more, no counters of batches, and
    auxiliary heads, which are not built here.

    Raises
    ------
    ValueError
        If names or shapes differ; the message gives the first of them.
    """
    own = module.state_dict()
    state_dict = _as_named_today(state_dict, own)
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


def _as_named_today(
    state_dict: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    counters = {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")}
    renamed = {
        name if name in own else _DENSENET.sub(r"\1\2", name): value
        for name, value in state_dict.items()
        if name in own or not name.startswith(_AUXILIARY)
    }
    return {**counters, **renamed}


def fingerprint(module: nn.Module) -> str:
    """Hash a network's weights: equal for equal weights, 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_modules(network: nn.Module) -> str:
    """Write down what a network's modules are and how they are set.

    A trace names modules only; of two networks with the same names and weights one
    may have ReLUs where the other has something else.
    """
    return "\n".join(
        f"{name}: {_code(type(module))} {sorted(_settings(module).items())}"
        for name, module in network.named_modules()
    )


def _settings(module: nn.Module) -> dict[str, str]:
    plain = (bool, int, float, str, tuple, type(None))
    every_module_s = vars(nn.Module())
    return {
        name: repr(value) if isinstance(value, plain) else _code(value)
        for name, value in vars(module).items()
        if name not in every_module_s and (isinstance(value, plain) or callable(value))
    }


def _code(kind: Any) -> str:
    """Name of a class or function, with its text where it is no library's."""
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
    if name.startswith(("torch.", "torchvision.", "timm.")):
        return name
    try:
        return f"{name} {inspect.getsource(kind)}"
    except (OSError, TypeError):  # typed in by hand, or written in C
        return name
