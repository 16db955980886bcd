"""SourceCenters: one representative of each source class."""

from ._centers import SourceCenters
from ._shipped import shipped_centers

__all__ = ["SourceCenters", "shipped_centers"]
