"""A model that is handed on: saved, loaded, asked, exported."""

from ..labelling.predict import Predicted, predict_files
from .errors import ModelError

__all__ = ["ModelError", "Predicted", "predict_files"]
