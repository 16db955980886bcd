"""The labelling application: campaigns, page, Label Studio, predictions of files."""

from .._utils.lazy import lazy_getattr

# Torch takes seconds, and a campaign's status needs none.
_HOMES = {"Predicted": "predict", "predict_files": "predict"}
__all__ = sorted(_HOMES)  # noqa: PLE0605
__getattr__ = lazy_getattr(__name__, _HOMES)
