"""A model that is handed on: saved, loaded, asked, exported."""

from .errors import ModelError

__all__ = ["ModelError"]
