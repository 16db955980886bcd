"""Networks: the registry, their weights, their layers and where to cut them."""

from .pretrained import PretrainedNetwork
from .registry import available_backbones

__all__ = ["PretrainedNetwork", "available_backbones"]
