"""Labels in every form that they come in, and what stands for none."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from skadma import ActiveLearner, CNNClassifier
from skadma.centers._labels import _class_numbers
from skadma.evaluation import audit_sample, estimate, out_of_fold_proba, suspects
from skadma.strategies import RandomSampling
from skadma.targets.groups import Groups
from skadma.targets.labels import as_labels, check_labels, known_classes, partial_labels

X = np.random.default_rng(0).normal(size=(8, 3))


def learner(**params):
    return ActiveLearner(
        DecisionTreeClassifier(random_state=0),
        RandomSampling(),
        **{"n_instances": 2, "n_rounds": 1} | params,
    )


class PolarsLike:
    """What NumPy makes floats of, as polars' Series and pyarrow's arrays."""

    def __init__(self, values, method):
        self.values = values
        setattr(self, method, lambda: list(values))

    def __array__(self, dtype=None, copy=None):
        return np.array([np.nan if v is None else v for v in self.values], dtype)


class TableLike:
    """A table of one column, with the names where pyarrow has them."""

    def __init__(self, values):
        self.column_names, self.columns = ["label"], [values]

    def __getitem__(self, name):
        assert name == "label"
        return PolarsLike(self.columns[0], "to_pylist")


FORMS = {
    "list": lambda v: v,
    "tuple": tuple,
    "NA": lambda v: [pd.NA if e is None else e for e in v],
    "NaT": lambda v: [pd.NaT if e is None else e for e in v],
    "object": lambda v: np.array(v, dtype=object),
    "column": lambda v: pd.DataFrame({"label": v}),
    "column of NA": lambda v: pd.DataFrame({"label": v}).convert_dtypes(),
    "Series": pd.Series,
    "object Series": lambda v: pd.Series(v, dtype=object),
    "Categorical": pd.Categorical,
    "Series of categories": lambda v: pd.Series(v, dtype="category"),
    "nullable": lambda v: pd.Series(v).convert_dtypes(),
    "nullable array": lambda v: pd.Series(v).convert_dtypes().array,
    "Index": pd.Index,
    "masked": lambda v: np.ma.masked_array(
        [v[0] if e is None else e for e in v], [e is None for e in v]
    ),
    "polars": lambda v: PolarsLike(v, "to_list") if v[0] == 0 else pd.Series(v),
    "pyarrow": lambda v: PolarsLike(v, "to_pylist") if v[0] == 0 else pd.Series(v),
    "table": lambda v: TableLike(v) if v[0] == 0 else pd.Series(v),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "values", [[0, 1, None, 1, 0, None, None, None], ["b", "a", None, "a"] + [None] * 4]
)
def test_gaps(form, values):
    y, missing, classes = partial_labels(FORMS[form](values), None, None)
    assert missing.tolist() == [v is None for v in values]
    assert classes.tolist() == sorted({v for v in values if v is not None})
    fitted = learner().fit(X, FORMS[form](values))
    assert fitted.labeled_.tolist() == (~missing).tolist()
    gap = np.flatnonzero(missing)[0]
    with pytest.raises(ValueError, match="none|None|NaN|length"):
        fitted.teach(
            [gap], FORMS[form](values)[gap : gap + 1] if form == "list" else [None]
        )
    with pytest.raises(ValueError, match="None or NaN|NaN or infinity"):
        check_labels(FORMS[form](values), None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("values", [[0, 1] * 4, ["b", "a"] * 4])
def test_every_label(form, values):
    y = FORMS[form](values)
    assert check_labels(y, None).tolist() == values
    assert learner(random_state=0).fit(X, y).labeled_.sum() == 2
    proba = out_of_fold_proba(DummyClassifier(), X, y, n_folds=2)
    assert proba.shape == (8, 2)
    assert len(suspects(y, proba).indices) == 8
    audit = audit_sample(np.eye(2)[[0, 1] * 4], 8, method="random", random_state=0)
    found = estimate(audit, FORMS[form](values), y)
    assert found.value == pytest.approx(1)


@pytest.mark.parametrize("form", FORMS)
def test_gaps_in_an_estimate(form):
    values = [0, 1, 0, 1, 0, 1, None, None]
    audit = audit_sample(np.eye(2)[[0, 1] * 4], 8, method="random", random_state=0)
    assert estimate(audit, [0, 1] * 4, FORMS[form](values)).n_labels == 6
    with pytest.raises(ValueError, match="Leave these"):
        suspects(FORMS[form](values), np.full((8, 2), 0.5))


def test_a_table_of_several_labels():
    y = pd.DataFrame({"a": [0, 1, pd.NA], "b": [1, 1, pd.NA]}).convert_dtypes()
    matrix, missing, _ = partial_labels(y, None, None)
    assert missing.tolist() == [False, False, True]
    assert matrix.tolist() == [[0, 1], [1, 1], [-1, -1]]


def test_other_lists_of_names():
    names = pd.Series(["a", "b", "a"], dtype="category")
    assert Groups(names, 3).codes.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="groups contains None"):
        Groups(pd.Series([1, pd.NA, 2], dtype="Int64"), 3)
    with pytest.raises(ValueError, match="groups contains None"):
        Groups(["a", pd.NA], 2)
    source = type("Source", (), {"class_names": ("a", "b"), "n_classes": 2})
    assert _class_numbers(pd.DataFrame({"y": ["b", "a"]}), source).tolist() == [1, 0]


def test_kinds_are_kept():
    for values in ([True, False], np.array([1, 2], np.int8), np.array([1.0, np.nan])):
        assert as_labels(values).dtype == np.asarray(values).dtype
    if hasattr(np.dtypes, "StringDType"):  # from NumPy 2.0 on
        assert as_labels(np.array(["a"], np.dtypes.StringDType())).tolist() == ["a"]


@pytest.mark.parametrize("kind", [int, float, object])
@pytest.mark.parametrize("gap", [-1, None])
@pytest.mark.parametrize("positive", [(1,), (0,), (2,), (0, 1), (1, 2)])
def test_minus_one(kind, gap, positive):
    """Which labels are known does not decide what -1 means."""
    if gap is None and kind is not object:
        pytest.skip("no such array")
    y = np.array([*positive, *positive] + [gap] * (8 - 2 * len(positive)), dtype=kind)
    if positive == (1,) and gap == -1:
        with pytest.raises(ValueError, match=r"classes=\[-1, 1\]"):
            learner().fit(X, y)
    else:
        assert (~learner().fit(X, y).labeled_).sum() == 8 - 2 * len(positive)
    named = learner(classes=[0, 1, 2]).fit(X, y)
    assert (~named.labeled_).sum() == 8 - 2 * len(positive)


def test_minus_one_as_a_class():
    y = np.array([-1, 1] * 4)
    fitted = learner(classes=[-1, 1]).fit(X, y)
    assert set(fitted.classes_) == {-1, 1}
    assert fitted.labeled_.sum() == 2  # a simulation
    gaps = [-1, 1, None, np.nan, None, None, None, None]
    assert learner(classes=[-1, 1]).fit(X, gaps).labeled_.sum() == 2
    with pytest.raises(ValueError, match="classes=\\[-1, 1\\]"):
        learner().fit(X, gaps)
    assert not learner().fit(X, np.full(8, -1)).labeled_.any()
    with pytest.raises(ValueError, match="classes="):
        learner().fit(X, [None] * 8).teach([0, 1], [-1, 1])


@pytest.mark.parametrize("gap", ["", "nan", "NaN", "-1", "-1.0", "None", "<NA>"])
@pytest.mark.parametrize("form", ["list", "object", "nullable", "Categorical"])
def test_gaps_among_strings(gap, form):
    y = FORMS[form](["a", "b", "a", "b", gap, gap, gap, gap])
    with pytest.raises(ValueError, match="look like missing"):
        learner().fit(X, y)
    with pytest.raises(ValueError, match="look like missing"):
        check_labels(y, None)
    with pytest.raises(ValueError, match="look like missing"):
        learner(classes=["a", "b"]).fit(X, y)
    with pytest.raises(ValueError, match="look like missing"):
        out_of_fold_proba(DummyClassifier(), X, y)
    assert gap in learner(classes=["a", "b", gap]).fit(X, y).classes_
    by_hand = learner().fit(X, ["a", "b"] + [None] * 6)
    with pytest.raises(ValueError, match="look like missing"):
        by_hand.teach([3], [gap])


@pytest.mark.parametrize("gap", [" ", "n/a", " nan", "-1 "])
def test_written_gaps_with_spaces(gap):
    with pytest.raises(ValueError, match="look like missing"):
        learner().fit(X, ["a", "b"] * 2 + [gap] * 4)
    classes = ["a", "b", gap]
    assert gap in learner(classes=classes).fit(X, ["a", "b"] * 2 + [gap] * 4).classes_


def test_integers_with_gaps_stay_integers():
    y = pd.array([0, 1] * 2 + [None] * 4, dtype="Int64")
    for form in (y, pd.Series(y)):
        fitted = learner().fit(X, form)
        assert fitted.classes_.dtype.kind == "i"
        assert fitted.labeled_.sum() == 4


def test_a_network_is_not_trained_on_written_gaps():
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="look like missing"):
        CNNClassifier().fit(images, ["a", "b", "nan", "nan"])


@pytest.mark.parametrize("classes", [None, ["caf\u00e9", "tea"]])
def test_accents(classes):
    """The same word in two Unicode forms is not two classes."""
    y = np.array(["caf\u00e9", "cafe\u0301", "tea"])
    with pytest.raises(ValueError, match="two Unicode forms"):
        known_classes(y, classes)
    with pytest.raises(ValueError, match="two Unicode forms"):
        known_classes(y[1:], classes, y[:1])
    assert len(known_classes(y[1:], None)) == 2


def test_many_classes_of_few_labels():
    y = np.arange(40) % 30
    rows = np.random.default_rng(0).normal(size=(40, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_labels(y, None)
        check_labels(y.astype(str), None)
        partial_labels([*y.tolist(), None], None, None)
        by_hand = learner().fit(rows, np.where(np.arange(40) < 36, y, -1))
        by_hand.teach([36, 37], y[[36, 37]])
        learner(n_instances=30).fit(rows, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        check_labels(np.linspace(0, 1, 40), None)
