"""Save and load a fitted classifier, and export it with a model card and ONNX file."""

from .._utils.lazy import lazy_getattr
from .params import ModelError

__all__ = ["ModelError", "load_probe"]
__getattr__ = lazy_getattr(__name__, {"load_probe": "probe"})
