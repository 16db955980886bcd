"""Pools that fit no memory: features on the disk, read a block at a time."""

from ..blocks import LazyRows, MappedRows
from .columns import StoreError as StoreError
from .outputs import Outputs
from .store import FeatureStore

__all__ = ["FeatureStore", "MappedRows", "Outputs", "LazyRows"]
