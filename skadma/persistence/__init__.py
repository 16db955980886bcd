"""Save and load a fitted classifier, and export it with a model card and ONNX file."""

from .params import ModelError
from .probe import load_probe

__all__ = ["ModelError", "load_probe"]
