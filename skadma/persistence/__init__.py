"""Save and load a fitted classifier, and export it with a model card and ONNX file."""

from .params import ModelError

__all__ = ["ModelError"]
