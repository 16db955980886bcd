"""Active adaptation of pretrained CNNs for scikit-learn users."""

from ._report import show_versions
from .adafilter import AdaFilterClassifier
from .campaign import Campaign
from .centers import SourceCenters
from .classifier import CNNClassifier
from .learner import ActiveLearner

__all__ = [
    "ActiveLearner",
    "AdaFilterClassifier",
    "CNNClassifier",
    "Campaign",
    "SourceCenters",
    "show_versions",
]
__version__ = "0.1.0"
