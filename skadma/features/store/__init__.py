"""Features of pools that do not fit into memory, kept on the disk; PEP 562."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..._utils.lazy_rows import LazyRows, MappedRows

if TYPE_CHECKING:
    from .automatic import can_be_stored as can_be_stored
    from .automatic import fits_memory as fits_memory
    from .automatic import temporary_folder as temporary_folder
    from .feature_store import FeatureStore, Outputs
    from .feature_store import numbered_keys as numbered_keys
    from .shards import StoreError as StoreError

__all__ = ["FeatureStore", "MappedRows", "Outputs", "LazyRows"]


def __getattr__(name: str) -> Any:
    for file in ("shards", "automatic", "feature_store"):
        if hasattr(module := import_module(f"{__name__}.{file}"), name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
