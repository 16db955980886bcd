"""A model that is handed on: saved, loaded, asked, exported."""

from .errors import ModelError
from .predict import Predicted, predict_files

__all__ = ["ModelError", "Predicted", "predict_files"]
