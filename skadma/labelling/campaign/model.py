"""A campaign's models: written and read as every model is."""

from __future__ import annotations

from pathlib import Path

from ...classifier import CNNClassifier
from ...persistence.network_file import read_network
from ...persistence.network_file import write_network as save_model
from ...persistence.params import ModelError
from .event_log import CampaignError

__all__ = ["load_model", "save_model"]


def load_model(estimator: CNNClassifier, path: Path) -> None:
    """Give a classifier the state that ``save_model`` wrote.

    Parameters
    ----------
    estimator : CNNClassifier
        With the parameters that it had then.
    path : Path

    Raises
    ------
    CampaignError
        If the file is none of this classifier.
    """
    try:
        read_network(estimator, path)
    except ModelError as error:
        raise CampaignError(str(error)) from error
