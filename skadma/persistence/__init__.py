"""Save and load a fitted classifier, and export it with a model card and ONNX file."""

from typing import Any

from .params import ModelError

__all__ = ["ModelError", "load_probe"]


def __getattr__(name: str) -> Any:
    if name == "load_probe":
        from .probe import load_probe

        return load_probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
