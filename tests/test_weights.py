"""Sample weights, class weights and their ways through scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from skorch.dataset import ValidSplit
from torch import nn

from skadma import AdaFilterClassifier, CNNClassifier

from .conftest import tiny_classifier


class Plain(nn.Sequential):
    """A network without dropout: its loss is the same in training."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5),
        )  # fmt: skip


def plain_classifier(**params):
    defaults = {
        "image_size": 32, "n_frozen_layers": 1, "lr": 0.1, "head_lr": 0.1,
        "max_epochs": 1, "random_state": 0, "optimizer": torch.optim.SGD,
        "batch_size": 1000,
    }  # fmt: skip
    return CNNClassifier(Plain, **{**defaults, **params})


@pytest.fixture
def weights():
    return np.random.default_rng(0).integers(0, 4, 24).astype(float)


def parameters(clf):
    return np.concatenate(
        [p.detach().numpy().ravel() for p in clf.net_.module_.parameters()]
    )


def test_gradient_is_that_of_rows_as_often_as_they_weigh(pictures, weights):
    """One step on all images at once: the change is the gradient."""
    X, y = pictures
    times = weights.astype(int)
    start = parameters(plain_classifier(max_epochs=0).fit(X, y))
    weighted = parameters(plain_classifier().fit(X, y, sample_weight=weights)) - start
    repeated = parameters(plain_classifier().fit(X.repeat(times, 0), y.repeat(times)))
    np.testing.assert_allclose(weighted, repeated - start, atol=2e-7)
    unweighted = parameters(plain_classifier().fit(X, y)) - start
    assert np.abs(weighted - unweighted).max() > 1e-3


def test_training_is_that_on_rows_as_often_as_they_weigh(pictures, weights):
    """scikit-learn's check of equivalence, as far as float32 goes."""
    X, y = pictures
    times = weights.astype(int)
    clf = plain_classifier(max_epochs=20)
    weighted = clf.fit(X, y, sample_weight=weights).decision_function(X)
    repeated = clf.fit(X.repeat(times, 0), y.repeat(times)).decision_function(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_loss_is_the_weighted_mean_whatever_the_batches(pictures, weights, batch_size):
    X, y = pictures
    clf = plain_classifier(lr=0, head_lr=0, batch_size=batch_size)
    clf.fit(X, y, sample_weight=weights)
    expected = log_loss(y, clf.predict_proba(X), sample_weight=weights)
    assert clf.net_.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-5)
    assert log_loss(y, clf.predict_proba(X)) != pytest.approx(expected, rel=1e-3)


def test_validation_loss_is_weighted_too(pictures):
    X, y = pictures
    weights = np.where(y == 0, 5.0, 1.0)
    clf = plain_classifier(lr=0, head_lr=0, train_split=ValidSplit(4))
    clf.fit(X, y, sample_weight=weights)
    _, valid = ValidSplit(4)(torch.arange(24), y)
    rows = np.array(valid.indices)
    loss = -np.log(clf.predict_proba(X)[rows, y[rows]])
    expected = (loss * weights[rows]).mean() / weights.mean()
    assert clf.net_.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-5)
    assert clf.net_.history[-1, "valid_acc"] == pytest.approx(
        accuracy_score(y[rows], clf.predict(X[rows]))
    )


@pytest.mark.parametrize("partial", [False, True])
def test_weight_zero_is_absent_to_the_bit(pictures, weights, partial):
    X, y = pictures
    there = weights > 0
    fits = []
    for rows, weight in ((slice(None), weights), (there, weights[there])):
        clf = tiny_classifier(batch_size=4)
        fit = clf.partial_fit if partial else clf.fit
        fits.append(fit(X[rows], y[rows], sample_weight=weight))
    np.testing.assert_array_equal(*(clf.predict_proba(X) for clf in fits))
    assert fits[0].n_labels_ == there.sum()


def test_equal_weights_are_none_to_the_bit(pictures):
    X, y = pictures
    np.testing.assert_array_equal(
        tiny_classifier().fit(X, y, sample_weight=[3] * 24).predict_proba(X),
        tiny_classifier().fit(X, y).predict_proba(X),
    )


def test_class_weights_are_weights_of_images(pictures, weights):
    X, y = pictures
    X, y, weights = X[3:], np.array(["a", "b", "c"])[y[3:]], weights[3:]
    balanced = tiny_classifier(class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(
        balanced.predict_proba(X),
        tiny_classifier()
        .fit(X, y, sample_weight=compute_sample_weight("balanced", y))
        .predict_proba(X),
        atol=1e-6,
    )
    of_class = {"a": 2.0, "c": 0.5}
    both = tiny_classifier(class_weight=of_class).fit(X, y, sample_weight=weights)
    joint = weights * [of_class.get(label, 1.0) for label in y]
    np.testing.assert_allclose(
        both.predict_proba(X),
        tiny_classifier().fit(X, y, sample_weight=joint).predict_proba(X),
        atol=1e-6,
    )


def test_balanced_counts_weights_and_forgets_classes_without_labels(pictures, weights):
    X, y = pictures
    some = y != 1
    given = compute_class_weight(
        "balanced",
        classes=np.array([0, 2]),
        y=y[some].repeat(weights[some].astype(int)),
    )
    joint = weights[some] * given[y[some] // 2]
    np.testing.assert_allclose(
        tiny_classifier(class_weight="balanced", classes=[0, 1, 2])
        .fit(X[some], y[some], sample_weight=weights[some])
        .predict_proba(X),
        tiny_classifier(classes=[0, 1, 2])
        .fit(X[some], y[some], sample_weight=joint)
        .predict_proba(X),
        atol=1e-6,
    )


def test_adafilter_takes_them_too(pictures, weights):
    X, y = pictures
    there = weights > 0
    clf = AdaFilterClassifier("resnet18", weights=None, image_size=32, max_epochs=1,
                              class_weight={0: 2.0}, random_state=0)  # fmt: skip
    with_zeros = clf.fit(X, y, sample_weight=weights).predict_proba(X)
    without = clf.fit(X[there], y[there], sample_weight=weights[there])
    np.testing.assert_array_equal(with_zeros, without.predict_proba(X))


@pytest.mark.parametrize(
    ("params", "sample_weight", "message"),
    [
        ({}, np.ones(23), "inconsistent|shape"),
        ({}, np.ones((24, 2)), "1D"),
        ({}, [-1] + [1] * 23, "[Nn]egative"),
        ({}, [np.nan] + [1] * 23, "NaN"),
        ({}, np.zeros(24), "weight.*zero|zero.*weight"),
        ({"class_weight": {0: -1}}, None, "numbers from 0"),
        ({"class_weight": {0: 2, 7: 1}}, None, "not in class_weight"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, None, "zero for every class"),
        ({"class_weight": "equal"}, None, "class_weight"),
    ],
)
def test_wrong_weights_lose_nothing(pictures, params, sample_weight, message):
    X, y = pictures
    clf = tiny_classifier(warm_start=True).fit(X, y)
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        clf.set_params(**params).fit(X, y, sample_weight=sample_weight)
    np.testing.assert_array_equal(clf.predict_proba(X), before)


def test_balanced_is_not_for_partial_fit(pictures):
    with pytest.raises(ValueError, match="compute_class_weight"):
        tiny_classifier(class_weight="balanced").partial_fit(*pictures)


class Whole(nn.Module):
    def forward(self, scores, target):
        return nn.functional.cross_entropy(scores, target)


class Stubborn(Whole):
    reduction = "mean"


@pytest.mark.parametrize(
    ("criterion", "message"), [(Whole, "reduction='mean'"), (Stubborn, "one each")]
)
def test_a_criterion_that_cannot_weigh(pictures, criterion, message):
    X, y = pictures
    clf = tiny_classifier(criterion=criterion).fit(X, y)
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(X, y, sample_weight=np.arange(24))
    np.testing.assert_array_equal(clf.predict_proba(X), before)


def test_sums_stay_sums(pictures, weights):
    X, y = pictures
    params = {"lr": 0.004, "head_lr": 0.004}
    summed = plain_classifier(net_params={"criterion__reduction": "sum"}, **params)
    summed.fit(X, y, sample_weight=weights)
    n = np.count_nonzero(weights)
    scaled = plain_classifier(lr=0.004 * n, head_lr=0.004 * n)
    scaled.fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(parameters(summed), parameters(scaled), atol=1e-6)


def test_weights_stay_with_their_images_where_some_cannot_be_decoded(
    pictures, weights, tmp_path
):
    X, y = pictures
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    bad = [2, 3, 17]
    for i in bad:
        (tmp_path / f"{i:02}.png").write_bytes(b"no image")
    paths = np.array(sorted(map(str, tmp_path.iterdir())))
    good = np.setdiff1d(np.arange(24), bad)
    clf = tiny_classifier(on_bad_image="skip")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ unreadable")
        skipped = clf.fit(paths, y, sample_weight=weights).predict_proba(X)
    clf.fit(paths[good], y[good], sample_weight=weights[good])
    np.testing.assert_array_equal(skipped, clf.predict_proba(X))


# --- scikit-learn's ways ---------------------------------------------------------


def test_score_is_weighted(pictures, weights):
    X, y = pictures
    clf = tiny_classifier().fit(X, y)
    assert clf.score(X, y, sample_weight=weights) == pytest.approx(
        accuracy_score(y, clf.predict(X), sample_weight=weights)
    )


def test_routed_through_a_search_and_a_pipeline(pictures, weights):
    X, y = pictures
    expected = tiny_classifier().fit(X, y, sample_weight=weights).predict_proba(X)
    with config_context(enable_metadata_routing=True):
        clf = tiny_classifier().set_fit_request(sample_weight=True)
        clf.set_score_request(sample_weight=True)
        clf.set_partial_fit_request(sample_weight=True, classes=True)
        pipe = Pipeline([("same", FunctionTransformer()), ("clf", clf)])
        pipe.set_score_request(sample_weight=True)  # scikit-learn 1.7 wants it said
        search = GridSearchCV(pipe, {"clf__max_epochs": [1, 2]}, cv=2)
        search.fit(X, y, sample_weight=weights)
        pipe.set_params(**search.best_params_).fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(search.predict_proba(X), pipe.predict_proba(X))
        pipe.set_params(clf__max_epochs=2).fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(pipe.predict_proba(X), expected)
        cross_validate(clf, X, y, params={"sample_weight": weights}, cv=2,
                       error_score="raise")  # fmt: skip
    pipe.fit(X, y, clf__sample_weight=weights)
    np.testing.assert_array_equal(pipe.predict_proba(X), expected)


# --- decision_function -----------------------------------------------------------


def test_decision_function_is_what_the_probabilities_are_made_of(pictures):
    X, y = pictures
    clf = tiny_classifier().fit(X, y)
    scores = clf.decision_function(X)
    assert scores.shape == (24, 3)
    exp = np.exp(scores.astype(float))
    np.testing.assert_allclose(
        exp / exp.sum(axis=1, keepdims=True), clf.predict_proba(X), rtol=1e-6
    )
    np.testing.assert_array_equal(clf.classes_[scores.argmax(axis=1)], clf.predict(X))


def test_decision_function_of_two_classes_is_one_number(pictures):
    X, y = pictures
    clf = tiny_classifier().fit(X, np.where(y == 0, "no", "yes"))
    scores = clf.decision_function(X)
    assert scores.shape == (24,)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-scores.astype(float))), clf.predict_proba(X)[:, 1], rtol=1e-5
    )
    np.testing.assert_array_equal(np.where(scores > 0, "yes", "no"), clf.predict(X))
