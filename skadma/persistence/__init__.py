"""Save, load and export models."""

from .errors import ModelError

__all__ = ["ModelError"]
