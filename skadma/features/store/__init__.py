"""Pools that fit no memory: features on the disk, read a block at a time."""

from ..._utils.lazy_rows import LazyRows, MappedRows
from .automatic import can_be_stored as can_be_stored
from .automatic import fits_memory as fits_memory
from .automatic import temporary_folder as temporary_folder
from .building import numbered_keys as numbered_keys
from .columns import StoreError as StoreError
from .feature_store import FeatureStore
from .outputs import Outputs

__all__ = ["FeatureStore", "MappedRows", "Outputs", "LazyRows"]
