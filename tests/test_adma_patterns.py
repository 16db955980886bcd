"""ADMA's distances, patterns and weights."""

import math

import numpy as np
import pytest
import torch

from skadma.strategies.adma import (
    CenterDistances,
    distance_weights,
    distinctiveness,
    predict_weights,
)

from . import reference
from .adma_problem import A1, B, problem, tensor

# --- distances -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_distances_are_exact_to_rounding_far_from_the_origin(dtype, offset):
    rng = np.random.default_rng(4)
    x, centers = (
        torch.from_numpy(offset + rng.standard_normal((n, 20))).to(dtype)
        for n in (9, 5)
    )
    expected = np.stack(
        [reference.squared_distance_vector(row, centers.tolist()) for row in x.tolist()]
    )
    got = CenterDistances(centers)(x)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_the_distance_of_a_centre_to_itself_is_exactly_zero():
    rng = np.random.default_rng(5)
    centers = torch.from_numpy(100 + rng.standard_normal((50, 1000)))
    S_C = CenterDistances(centers)(centers)
    assert (S_C.diagonal() == 0).all()
    assert (S_C[~torch.eye(50, dtype=torch.bool)] > 1000).all()


def test_close_images_keep_a_distance():
    centers = torch.from_numpy(np.random.default_rng(6).standard_normal((4, 1000)))
    moved = centers.clone()
    moved[:, 0] += 1e-3  # about 3e-5 of the distance between two centres
    diagonal = CenterDistances(centers)(moved).diagonal()
    np.testing.assert_allclose(diagonal.numpy(), 1e-6, rtol=1e-4)


def test_one_batch_or_many_give_the_same_distances():
    rng = np.random.default_rng(7)
    x, centers = (torch.from_numpy(rng.standard_normal((n, 16))) for n in (10, 6))
    prepared = CenterDistances(centers)
    parts = torch.cat([prepared(x[:3]), prepared(x[3:]), prepared(x[:0])])
    torch.testing.assert_close(parts, CenterDistances(centers)(x))


def test_nan_features_are_not_hidden():
    x = tensor([[math.nan, 0.0], [1.0, 0.0]])
    S = CenterDistances(tensor([[0.0, 0.0], [2.0, 0.0]]))(x)
    assert S[0].isnan().all()
    assert S[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("x", "centers", "message"),
    [
        ((3, 4), (2, 5), r"x has to be a matrix of 5 columns.*got shape \(3, 4\)"),
        ((4,), (2, 4), r"x has to be a matrix of 4 columns"),
        ((3, 4), (4,), r"centers has to be a matrix.*got shape \(4,\)"),
    ],
)
def test_distances_refuse_wrong_shapes(x, centers, message):
    with pytest.raises(ValueError, match=message):
        CenterDistances(torch.zeros(centers))(torch.zeros(x))


# --- patterns and weights ------------------------------------------------------------


@pytest.mark.parametrize("classes", [[2, 0], torch.tensor([2, 0]), np.array([2, 0])])
def test_predict_weights_take_the_columns_of_the_classes(classes):
    proba = torch.tensor([[0.1, 0.6, 0.3], [0.0, 1.0, 0.0]], dtype=torch.float32)
    weights = predict_weights(proba, classes)
    torch.testing.assert_close(weights, tensor([[0.75, 0.25], [0.5, 0.5]]))
    assert predict_weights(proba).sum(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("proba", "classes", "message"),
    [
        ([[0.5, 0.5]], [0, 2], r"in \[0, 2\); got \[0, 2\]"),
        ([[0.5, 0.5]], [-1, 0], r"got \[-1, 0\]"),
        ([[0.5, 0.5]], [], r"got \[\]"),
        ([0.5, 0.5], None, r"matrix.*got shape \(2,\)"),
    ],
)
def test_predict_weights_refuse(proba, classes, message):
    with pytest.raises(ValueError, match=message):
        predict_weights(tensor(proba), classes)


def test_distance_weights_take_the_root_and_share_among_coinciding_centres():
    S_a = tensor(
        [[1.0, 4.0, 16.0], [0.0, 1.0, 0.0], [1e-320, 1.0, 1.0], [0.0, 0.0, 0.0]]
    )
    expected = tensor(
        [[4 / 7, 2 / 7, 1 / 7], [0.5, 0, 0.5], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]
    )
    torch.testing.assert_close(distance_weights(S_a), expected)


def test_an_image_that_is_a_centre_is_explained_by_it_alone():
    pool, centers, *_ = problem(8, 5, 10)
    S_a, S_b, S_CA, S_CB = (
        CenterDistances(torch.from_numpy(centers[layer]))(torch.from_numpy(x[layer]))
        for x in (pool, centers)
        for layer in (A1, B)
    )
    weights = distance_weights(S_a)
    assert weights[0].tolist() == [float(k == 5) for k in range(10)]
    d = distinctiveness(S_a - S_b, weights @ (S_CA - S_CB))
    assert d[0] == 0
    assert (d[1:] > 0).all()


@pytest.mark.parametrize(
    ("S_a", "message"),
    [
        ([1.0], r"matrix.*got shape \(1,\)"),
        ([[]], "one or more columns"),
    ],
)
def test_distance_weights_refuse(S_a, message):
    with pytest.raises(ValueError, match=message):
        distance_weights(tensor(S_a))
