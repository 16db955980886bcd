"""Networks: the registry, their weights, their layers and where to cut them."""

from .adapted import AdaptedNetwork, Normalize
from .heads import get_head
from .pretrained import PretrainedNetwork, count_frozen_layers, load_pretrained
from .registry import available_backbones, paper_frozen_layers

__all__ = [
    "AdaptedNetwork",
    "Normalize",
    "PretrainedNetwork",
    "available_backbones",
    "count_frozen_layers",
    "get_head",
    "load_pretrained",
    "paper_frozen_layers",
]
