"""ADMA's functions: the whole score, distinctiveness and uncertainty."""

import math

import numpy as np
import pytest
import torch

from skadma.strategies.adma import (
    UNCERTAINTIES,
    CenterDistances,
    combined_score,
    distance_weights,
    distinctiveness,
    pairwise_distinctiveness,
    predict_weights,
    uncertainty,
)

from . import reference
from .adma_problem import A1, A2, B, problem, tensor


def package_parts(
    pool, centers, proba, source_proba, classes, *, layers_a, weights, kind
):
    """The same as reference.adma_parts, with the package's functions."""
    distances = {k: CenterDistances(torch.from_numpy(c)) for k, c in centers.items()}
    S = {k: distances[k](torch.from_numpy(x)) for k, x in pool.items()}
    S_C = {k: distances[k](torch.from_numpy(c)) for k, c in centers.items()}
    patterns, approximations = [], []
    for a in layers_a:
        patterns.append(S[a] - S[B])
        alpha = (
            predict_weights(torch.from_numpy(source_proba), classes)
            if weights == "predict"
            else distance_weights(S[a])
        )
        approximations.append(alpha @ (S_C[a] - S_C[B]))
    d = (
        distinctiveness(patterns[0], approximations[0])
        if len(patterns) == 1
        else pairwise_distinctiveness(patterns)
    )
    return d.numpy(), uncertainty(proba, kind)


# --- the whole, against the reference ------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K", [3, 10, 50])
@pytest.mark.parametrize("layers_a", [(A1,), (A1, A2)])
@pytest.mark.parametrize("weights", ["predict", "distance"])
def test_agrees_with_the_reference(dtype, K, layers_a, weights):
    data = problem(K, 7, K, dtype)
    kind = UNCERTAINTIES[K % len(UNCERTAINTIES)]
    expected = reference.adma_parts(
        *data,
        layers_a=layers_a,
        layer_b=B,
        weights=weights,
        uncertainty_kind=kind,
        trade_off=0.1,
        iteration=3,
    )
    d, u = package_parts(*data, layers_a=layers_a, weights=weights, kind=kind)
    np.testing.assert_allclose(d, expected["distinctiveness"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(u, expected["uncertainty"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        combined_score(d, u, 0.1, 3), expected["total"], rtol=0, atol=1e-9
    )
    assert len(np.unique(expected["distinctiveness"])) > 1


@pytest.mark.parametrize("weights", ["predict", "distance"])
def test_rows_are_independent_and_their_order_does_not_matter(weights):
    data = problem(2, 30, 10)
    options = {"layers_a": (A1, A2), "weights": weights, "kind": "margin"}
    order = np.random.default_rng(0).permutation(30)[:11]
    pool = {layer: x[order] for layer, x in data[0].items()}
    d, u = package_parts(*data, **options)
    d_part, u_part = package_parts(
        pool,
        data[1],
        data[2][order],
        data[3][order],
        data[4],
        **options,
    )
    np.testing.assert_allclose(d_part, d[order], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(u_part, u[order])
    assert len(np.unique(d)) > 10


@pytest.mark.parametrize("weights", ["predict", "distance"])
def test_the_order_of_the_centres_does_not_matter(weights):
    pool, centers, proba, source_proba, classes = problem(3, 20, 10)
    order = np.random.default_rng(1).permutation(10)
    options = {"layers_a": (A1, A2), "weights": weights, "kind": "gini"}
    d, _ = package_parts(pool, centers, proba, source_proba, classes, **options)
    d_permuted, _ = package_parts(
        pool,
        {layer: c[order] for layer, c in centers.items()},
        proba,
        source_proba,
        [classes[k] for k in order],
        **options,
    )
    np.testing.assert_allclose(d_permuted, d, rtol=0, atol=1e-12)


def test_two_classes_worked_by_hand():
    # One feature per layer. At A the centres are 0 and 2, at B 0 and 1:
    # S_C^A = [[0, 4], [4, 0]], S_C^B = [[0, 1], [1, 0]], patterns (0, 3) and (3, 0).
    centers_a, centers_b = tensor([[0.0], [2.0]]), tensor([[0.0], [1.0]])
    at_a, at_b = CenterDistances(centers_a), CenterDistances(centers_b)
    of_centers = at_a.between_centers() - at_b.between_centers()
    assert of_centers.tolist() == [[0, 3], [3, 0]]

    S_a = at_a(tensor([[0.5], [1.5], [1.0]]))
    S_b = at_b(tensor([[2.0], [1.0], [1.0]]))
    pattern = S_a - S_b
    assert pattern.tolist() == [[-3.75, 1.25], [1.25, 0.25], [0, 1]]

    predict = predict_weights(tensor([[0.75, 0.25]] * 3))
    approximated = predict @ of_centers
    assert approximated.tolist() == [[0.75, 2.25]] * 3
    assert distinctiveness(pattern, approximated).tolist() == [0, 1, 0]

    # Distances (0.5, 1.5), (1.5, 0.5), (1, 1); the last approximation is constant.
    distance = distance_weights(S_a)
    torch.testing.assert_close(
        distance, tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    )
    approximated = distance @ of_centers
    assert distinctiveness(pattern, approximated).tolist() == [0, 0, 0.5]


# --- distinctiveness -----------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 1])
def test_distinctiveness_is_in_range_and_symmetric(levels):
    rng = np.random.default_rng(12)
    a, b = torch.from_numpy(rng.standard_normal((2, 50, 10)))
    if levels:
        a, b = (a * levels).round(), (b * levels).round()
    d = distinctiveness(a, b)
    assert (d >= 0).all()
    assert (d <= 1).all()
    assert torch.equal(d, distinctiveness(b, a))
    torch.testing.assert_close(distinctiveness(a, -b), 1 - d)


def test_probabilities_of_nan_are_refused():
    """They do not pass for equal ones."""
    weights = predict_weights(tensor([[0.0, 0.0], [float("nan"), 0.5]]))
    assert weights[0].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="b has NaN"):
        distinctiveness(tensor([[1.0, 2.0], [1.0, 2.0]]), weights)


def test_pairwise_is_the_mean_over_pairs():
    up, down = tensor([[1.0, 2.0, 3.0]]), tensor([[3.0, 2.0, 1.0]])
    assert pairwise_distinctiveness([up, up]).tolist() == [0]
    assert pairwise_distinctiveness([up, down]).tolist() == [1]
    assert pairwise_distinctiveness([up, up, down]).item() == pytest.approx(2 / 3)
    # one of three pairs of numbers changes places: tau = 1/3
    other = tensor([[1.0, 3.0, 2.0]])
    assert pairwise_distinctiveness([up, other]).item() == pytest.approx(1 / 3)


# --- uncertainty and score -----------------------------------------------------------


@pytest.mark.parametrize("kind", UNCERTAINTIES)
@pytest.mark.parametrize("n_classes", [1, 2, 7])
def test_uncertainty_agrees_with_the_reference(kind, n_classes):
    proba = np.random.default_rng(13).dirichlet(np.full(n_classes, 0.5), size=20)
    proba[0] = np.eye(n_classes)[0]
    got = uncertainty(proba.astype(np.float32).tolist(), kind)
    expected = [reference.uncertainty(p, kind) for p in proba]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert got.dtype == np.float64


@pytest.mark.parametrize("kind", UNCERTAINTIES)
@pytest.mark.parametrize("n_classes", [1, 3])
def test_uncertainty_of_nan_is_nan(kind, n_classes):
    proba = np.full((3, n_classes), 1 / n_classes)
    expected = uncertainty(proba, kind)
    proba[1] = math.nan
    expected[1] = math.nan
    np.testing.assert_array_equal(uncertainty(proba, kind), expected)


@pytest.mark.parametrize(
    ("kind", "even"),
    [
        ("gini", 0.75),
        ("entropy", math.log(4)),
        ("margin", 1.0),
        ("least_confident", 0.75),
    ],
)
def test_uncertainty_rises_from_certain_to_even(kind, even):
    proba = [[1.0, 0, 0, 0], [0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.25] * 4]
    values = uncertainty(proba, kind)
    assert values[0] == 0
    assert values[-1] == pytest.approx(even)
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize(
    ("proba", "kind", "message"),
    [
        ([[0.5, 0.5]], "variance", r"one of \('gini', .*got 'variance'"),
        ([0.5, 0.5], "gini", r"shape \(n, C\).*got \(2,\)"),
        (np.zeros((2, 0)), "gini", r"got \(2, 0\)"),
        ([[2.0, -1.0]], "gini", "got values from -1.0 to 2.0"),
    ],
)
def test_uncertainty_refuses(proba, kind, message):
    with pytest.raises(ValueError, match=message):
        uncertainty(proba, kind)


@pytest.mark.parametrize(
    ("trade_off", "iteration", "expected"),
    [
        (0.1, 0, [0.2, 0.8]),
        (0.1, 5, [0.4, 0.4]),
        (0.1, 10, [0.6, 0.0]),
        (0.1, 50, [0.6, 0.0]),
        (0.0, 50, [0.2, 0.8]),
        (-0.1, 5, [0.2, 0.8]),
    ],
)
def test_the_score_moves_from_distinctiveness_to_uncertainty(
    trade_off, iteration, expected
):
    got = combined_score([0.2, 0.8], [0.6, 0.0], trade_off, iteration)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_the_score_refuses_arrays_of_different_lengths():
    with pytest.raises(ValueError, match=r"\(2,\) \(3,\)"):
        combined_score(np.zeros(2), np.zeros(3), 0.1, 1)


# --- the reference itself ------------------------------------------------------------


def test_reference_takes_the_member_nearest_to_the_mean_the_first_of_equals():
    z = np.array([[0.0], [9.0], [1.0], [5.0], [7.0], [2.0], [100.0]])
    y = np.array(["b", "a", "b", "a", "a", "b", "c"])
    assert reference.center_indices(z, y).tolist() == [4, 2, 6]
    equals = np.array([[1.0], [-1.0]])
    assert reference.center_indices(equals, [0, 0]).tolist() == [0]
