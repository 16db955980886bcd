from . import adafilter as adafilter
from . import bench as bench
from . import centers as centers
from . import cli as cli
from . import evaluation as evaluation
from . import features as features
from . import images as images
from . import labelling as labelling
from . import networks as networks
from . import persistence as persistence
from . import plotting as plotting
from . import stopping as stopping
from . import strategies as strategies
from . import targets as targets
from . import training as training
from ._utils.versions import show_versions
from .adafilter import AdaFilterClassifier
from .centers import SourceCenters
from .classifier import CNNClassifier
from .labelling.campaign import Campaign
from .learner import ActiveLearner
from .training.probe_classifier import ProbeClassifier

__all__ = [
    "ActiveLearner",
    "AdaFilterClassifier",
    "CNNClassifier",
    "Campaign",
    "ProbeClassifier",
    "SourceCenters",
    "show_versions",
]
__version__: str
