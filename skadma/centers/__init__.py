"""Source centres: a representative of each class of the source task."""

from ._shipped import shipped_centers
from .centers import SourceCenters

__all__ = ["SourceCenters", "shipped_centers"]
