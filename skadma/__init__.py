"""Active adaptation of pretrained CNNs for scikit-learn users."""

from ._report import show_versions
from ._version import __version__ as __version__
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
