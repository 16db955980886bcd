"""Networks: the registry, their weights, their layers and where to cut them."""

from .adapted import AdaptedNetwork, Normalize
from .heads import get_head
from .pretrained import PretrainedNetwork, load_pretrained
from .registry import available_backbones

__all__ = [
    "AdaptedNetwork",
    "Normalize",
    "PretrainedNetwork",
    "available_backbones",
    "get_head",
    "load_pretrained",
]
