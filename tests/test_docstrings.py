"""Public docstrings say what the signatures say."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc
from numpydoc.validate import validate

import skadma
import skadma.bench
import skadma.evaluation
import skadma.features.store
import skadma.plotting
import skadma.stopping
import skadma.strategies
import skadma.strategies.adma
from skadma import ActiveLearner, AdaFilterClassifier, SourceCenters
from skadma.strategies import MarginSampling

from .conftest import TinyCNN, tiny_classifier

MODULES = (
    skadma,
    skadma.strategies,
    skadma.strategies.adma,
    skadma.bench,
    skadma.plotting,
    skadma.stopping,
    skadma.evaluation,
    skadma.features.store,
)
PUBLIC = [
    getattr(module, name)
    for module in MODULES
    for name in module.__all__
    if callable(getattr(module, name))
]
METHODS = [
    (cls, name)
    for cls in PUBLIC
    if inspect.isclass(cls)
    for name, member in inspect.getmembers(cls, inspect.isroutine)
    if not name.startswith("_")
    and (getattr(member, "__module__", None) or "").startswith("skadma")
]
# What numpydoc wants and this project does not: GL01, GL02 (where the text begins),
# SS06 (one line), ES01 (extended summary), SA01 (See Also), EX01 (Examples),
# GL08 (methods inherited), RT02-RT05 and PR06-PR09 (wording of types).
ERRORS = ("GL03", "GL05", "GL06", "GL07", "SS01", "SS02", "SS03", "PR01", "PR02",
          "PR03", "PR10", "RT01", "YD01")  # fmt: skip


def signature_names(function):
    return [
        name if p.kind is not p.VAR_KEYWORD else f"**{name}"
        for name, p in inspect.signature(function).parameters.items()
        if name not in ("self", "cls")
    ]


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.__name__)
def test_parameters_of_classes_and_functions(item):
    doc = (ClassDoc if inspect.isclass(item) else FunctionDoc)(item)
    documented = [n for p in doc["Parameters"] for n in p.name.split(", ")]
    attributes = [n for p in doc["Attributes"] for n in p.name.split(", ")]
    names = signature_names(item)
    # Results such as Scores are made by skadma: they describe attributes only.
    assert documented == names or (not documented and set(names) == set(attributes))


@pytest.mark.parametrize(("cls", "name"), METHODS)
def test_methods_are_documented(cls, name):
    path = f"{cls.__module__}.{cls.__qualname__}.{name}"
    found = [error for error in validate(path)["errors"] if error[0] in ERRORS]
    short = not FunctionDoc(getattr(cls, name))["Parameters"]
    # A one-line docstring may leave the parameters to what it delegates to.
    found = [error for error in found if not (short and error[0] in ("PR01", "RT01"))]
    assert not found


@pytest.mark.parametrize("which", ["classifier", "adafilter", "learner"])
def test_fitted_attributes_are_documented(which, pictures):
    X, y = pictures
    estimator = tiny_classifier(max_epochs=1)
    if which == "adafilter":
        estimator = AdaFilterClassifier(
            TinyCNN, n_frozen_layers=1, image_size=32, max_epochs=1
        )
    if which == "learner":
        estimator = ActiveLearner(estimator, MarginSampling(), n_rounds=1)
    estimator.fit(X, y)
    attributes = ClassDoc(type(estimator))["Attributes"]
    documented = {name for p in attributes for name in p.name.split(", ")}
    fitted = {n for n in vars(estimator) if n.endswith("_") and not n.startswith("_")}
    assert fitted <= documented


def test_centres_are_documented():
    documented = {p.name for p in ClassDoc(SourceCenters)["Parameters"]}
    assert documented == set(SourceCenters.__dataclass_fields__)


def test_the_lists_of_strategies_are_of_today():
    docs = Path(__file__).parents[1] / "docs"
    spec = importlib.util.spec_from_file_location("make", docs / "make_strategies.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    again = "run python docs/make_strategies.py"
    assert make.table() == (docs / "strategies.md").read_text("utf-8"), again
    assert make.api() == (docs / "api.rst").read_text("utf-8"), again
