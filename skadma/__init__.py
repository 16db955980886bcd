"""Active adaptation of pretrained CNNs for scikit-learn users.

Public names and submodules are imported on first use (PEP 562), so ``import skadma``
takes no time. ``__init__.pyi`` declares them for type checkers.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ._utils.lazy import lazy_getattr

__all__ = [
    "ActiveLearner",
    "AdaFilterClassifier",
    "CNNClassifier",
    "Campaign",
    "ProbeClassifier",
    "SourceCenters",
    "show_versions",
]
__version__ = "0.1.0"

_HOMES = {
    "ActiveLearner": "learner",
    "AdaFilterClassifier": "adafilter",
    "CNNClassifier": "classifier",
    "Campaign": "labelling.campaign",
    "ProbeClassifier": "training.probe_classifier",
    "SourceCenters": "centers",
    "show_versions": "_utils.versions",
}
"""The submodule that defines each public name."""

_SUBMODULES = {name for _, name, _ in iter_modules(__path__) if name[0] != "_"}


def __getattr__(name: str) -> Any:
    """Import a public name or a submodule."""
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    return lazy_getattr(__name__, _HOMES)(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBMODULES})
