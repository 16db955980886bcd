"""The labelling application: campaigns, page, Label Studio, predictions of files."""

from typing import Any

__all__ = ["Predicted", "predict_files"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import predict  # torch takes seconds, and a campaign's status needs none

    return getattr(predict, name)
