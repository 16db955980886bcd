"""Kendall's tau in batches, by the compiled code and by SciPy."""

import importlib.util
import itertools
import math
import shutil
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from skadma.strategies.adma import distinctiveness, kendall, kendall_tau


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(autouse=True, params=["compiled", "scipy"])
def code(request, monkeypatch):
    """Every test runs with both ways of counting."""
    if request.param == "scipy":
        monkeypatch.setattr(kendall, "_kendall", None)
    elif kendall._kendall is None:
        pytest.skip("skadma was installed without a C compiler")
    return request.param


def vectors(seed, n, K, levels, dtype):
    """Two (n, K) tensors, related; few `levels` give many ties."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, K))
    b = a + rng.standard_normal((n, K))
    if levels:
        a, b = (np.round(x * levels) / levels for x in (a, b))
    return torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(dtype)


def tau_by_pairs(a, b):
    difference = tied_a = tied_b = 0
    pairs = list(itertools.combinations(range(len(a)), 2))
    for i, j in pairs:
        difference += int(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]))
        tied_a += a[i] == a[j]
        tied_b += b[i] == b[j]
    n = len(pairs)
    return difference / math.sqrt((n - tied_a) * (n - tied_b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [None, 5, 1])
@pytest.mark.parametrize("K", [2, 3, 10, 16, 17, 50, 300])
def test_tau_b_is_scipys(dtype, levels, K):
    a, b = vectors(K, 11, K, levels, dtype)
    expected = [
        kendalltau(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    got = kendall_tau(a, b)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("K", [3, 10, 33])
def test_tau_is_a_literal_count_of_pairs(levels, K):
    a, b = vectors(K, 6, K, levels, torch.float64)
    a[0, :2], b[0, :2] = tensor([0.0, -0.0]), tensor([-0.0, 0.0])
    expected = [tau_by_pairs(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    got = kendall_tau(a, b)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("K", [2, 7, 1000])
def test_equal_and_reversed_orders_give_exactly_one_and_minus_one(K):
    a = torch.from_numpy(np.random.default_rng(9).standard_normal((3, K)))
    assert kendall_tau(a, a.exp()).tolist() == [1, 1, 1]
    assert kendall_tau(a, -a).tolist() == [-1, -1, -1]


def test_known_values_of_tau():
    a = tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 3.0]])
    b = tensor([[1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 2.0, 3.0], [2.0, 2.0, 1.0, 3.0]])
    # P - Q: 5 - 1; 3 - 0; 3 - 2. Pairs tied: none; 2 and 1; 1 and 1. Of 6.
    torch.testing.assert_close(
        kendall_tau(a, b), tensor([4 / 6, 3 / math.sqrt(4 * 5), 1 / 5])
    )


def test_constant_rows():
    a, b = tensor([[1.0, 1.0, 1.0]] * 2), tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
    assert math.isnan(kendalltau(a[0].numpy(), b[0].numpy()).statistic)
    assert kendall_tau(a, b).isnan().all()
    assert distinctiveness(a, b).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("K", [2, 63, 64, 65, 1000, 20_000])
@pytest.mark.parametrize(
    "distort",
    [
        lambda x: x,
        lambda x: 1 + x * 1e-12,  # few of the digits differ
        lambda x: x.sign() * (300 * x.abs()).exp().clamp(max=1e300),  # far outliers
        lambda x: x * 1e-310,  # subnormal
        lambda x: torch.where(x > 1, math.inf, torch.where(x < -1, -math.inf, x)),
        lambda x: (x * 3).round() * 0.0,  # zeros of both signs
    ],
)
def test_tau_of_awkward_numbers_is_scipys(distort, K):
    a, b = vectors(K, 3, K, None, torch.float64)
    a = distort(a)
    expected = [
        # By ranks, as SciPy 1.12 answers NaN where there are infinities.
        kendalltau(*(np.unique(v, return_inverse=True)[1] for v in (x, y))).statistic
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    for got in (kendall_tau(a, b), kendall_tau(b, a)):
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-12)


def test_any_strides_and_threads(monkeypatch):
    monkeypatch.setattr(kendall, "_THREAD_SHARE", 50)
    a, b = vectors(3, 60, 41, 4, torch.float32)
    expected = kendall_tau(a, b)
    assert torch.equal(kendall_tau(a.T.contiguous().T, b.T.contiguous().T), expected)
    assert torch.equal(kendall_tau(a.flip(0), b.flip(0)), expected.flip(0))


def test_no_rows_give_no_taus():
    assert kendall_tau(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)


def test_compilers_without_vector_types_count_the_same(code, tmp_path):
    cc = shutil.which("cc")
    source = Path(__file__).parents[1] / "skadma/strategies/adma/_kendall.c"
    if code == "scipy" or cc is None or not source.is_file():
        pytest.skip("needs a C compiler and its source, and the compiled module")
    built = tmp_path / "_kendall.so"
    options = ["-shared", "-fPIC", "-O1", "-DPORTABLE", "-DPy_LIMITED_API=0x030B0000"]
    include = "-I" + sysconfig.get_path("include")
    subprocess.run([cc, *options, include, str(source), "-o", str(built)], check=True)
    loader = ExtensionFileLoader("_kendall", str(built))
    spec = importlib.util.spec_from_loader("_kendall", loader)
    portable = importlib.util.module_from_spec(spec)
    loader.exec_module(portable)
    for K, levels in ((15, None), (1000, None), (1025, 3), (5000, None)):
        a, b = (x.numpy() for x in vectors(K, 4, K, levels, torch.float64))
        counts = np.zeros((2, 4, 4), dtype=np.int64)
        for module, found in zip((kendall._kendall, portable), counts, strict=True):
            module.count_pairs(a, b, K, False, found)
        np.testing.assert_array_equal(*counts)
        assert counts[0, :, 0].all()


def test_inputs_stay_as_they_are():
    a, b = vectors(10, 5, 20, None, torch.float64)
    before = a.clone(), b.clone()
    kendall_tau(a.requires_grad_(), b)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"got \(2, 3\) and \(2, 4\)"),
        (torch.zeros(3), torch.zeros(3), r"got \(3,\) and \(3,\)"),
        (torch.zeros(2, 1), torch.zeros(2, 1), "K >= 2"),
        (torch.full((2, 3), math.nan), torch.zeros(2, 3), "a has NaN"),
        (torch.zeros(1, 2), tensor([[math.nan, 0.0]]), "b has NaN"),
        (torch.linspace(-1, 1, 99).log()[None], torch.zeros(1, 99), "a has NaN"),
        (torch.eye(2, 99), torch.linspace(1, -1, 198).log().view(2, 99), "b has"),
    ],
)
def test_tau_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        kendall_tau(a, b)
