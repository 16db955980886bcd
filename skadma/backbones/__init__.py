"""Networks: the registry, their weights, their layers and where to cut them."""

from .heads import get_head
from .network import AdaptedNetwork, Normalize
from .registry import available_backbones, paper_frozen_layers
from .source import SourceNetwork, load_source

__all__ = [
    "AdaptedNetwork",
    "Normalize",
    "SourceNetwork",
    "available_backbones",
    "get_head",
    "load_source",
    "paper_frozen_layers",
]
