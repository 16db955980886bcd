"""Features of pools that do not fit into memory, kept on the disk."""

from ..._utils.lazy_rows import LazyRows, MappedRows
from .automatic import can_be_stored as can_be_stored
from .automatic import fits_memory as fits_memory
from .automatic import temporary_folder as temporary_folder
from .feature_store import FeatureStore, Outputs
from .feature_store import numbered_keys as numbered_keys
from .shards import StoreError as StoreError

__all__ = ["FeatureStore", "MappedRows", "Outputs", "LazyRows"]
