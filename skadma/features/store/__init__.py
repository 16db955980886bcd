"""Pools that fit no memory: features on the disk, read a block at a time."""

from ..._utils.lazy_rows import LazyRows, MappedRows
from .columns import StoreError as StoreError
from .feature_store import FeatureStore
from .outputs import Outputs

__all__ = ["FeatureStore", "MappedRows", "Outputs", "LazyRows"]
