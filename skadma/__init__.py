"""Active adaptation of pretrained CNNs for scikit-learn users."""

from ._utils.versions import show_versions
from .adafilter import AdaFilterClassifier
from .centers import SourceCenters
from .classifier import CNNClassifier
from .labelling.campaign import Campaign
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
