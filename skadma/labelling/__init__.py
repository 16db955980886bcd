"""The labelling application: campaigns, the page, Label Studio, files of predictions."""

from typing import Any

__all__ = ["Predicted", "predict_files"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import predict  # torch takes seconds, and a campaign's status needs none

    return getattr(predict, name)
