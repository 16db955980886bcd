"""Benchmarks: the tables that are made of results, by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from skadma.bench import area_under_curve, compare, labels_to_reach, write_report
from skadma.bench.cells import measure


def table(rows):
    """Results of curves: (network, strategy, seed, n_labels, accuracy)."""
    columns = ["network", "strategy", "seed", "n_labels", "accuracy"]
    results = pd.DataFrame(rows, columns=columns)
    classes = {"random": "RandomSampling", "full": "FullyTrained"}
    return results.assign(
        dataset="d",
        auc=results["accuracy"] / 2,
        strategy_class=[classes.get(s, "ADMA") for s in results["strategy"]],
    )


def curve(strategy, seed, values, network="n", labels=(10, 20, 40)):
    return [
        (network, strategy, seed, n, v) for n, v in zip(labels, values, strict=True)
    ]


SMALL = table(
    [
        *curve("random", 0, [0.5, 0.6, 0.8]),
        *curve("random", 1, [0.3, 0.6, 0.6]),
        *curve("ADMA", 0, [0.4, 0.8, 1.0]),
        *curve("ADMA", 1, [0.4, 0.4, 0.9]),
        *curve("flat", 0, [0.5, 0.5, 0.5]),
        *curve("full", 0, [0.95], labels=(100,)),
    ]
)


def test_learning_table_by_hand(tmp_path):
    SMALL.to_csv(tmp_path / "results.csv", index=False)
    lines = write_report(tmp_path).read_text("utf-8").splitlines()
    assert lines.count("| labels | 10 | 20 | 40 | 100 |") == 2
    assert "| random | 0.400 ± 0.141 | 0.600 ± 0.000 | 0.700 ± 0.141 |  |" in lines
    assert "| random | 0.200 ± 0.071 | 0.300 ± 0.000 | 0.350 ± 0.071 |  |" in lines
    assert "| flat | 0.500 | 0.500 | 0.500 |  |" in lines
    assert "| full |  |  |  | 0.950 |" in lines
    assert "| d | n | flat | 0.700 | not reached |" in lines


def test_area_by_hand():
    areas = area_under_curve(SMALL)
    assert list(areas.columns) == ["random", "ADMA", "flat"]
    # (10 * 0.55 + 20 * 0.7) / 30
    assert areas.loc[("d", "n", 0), "random"] == pytest.approx(0.65)
    assert areas.loc[("d", "n", 1), "ADMA"] == pytest.approx(
        (10 * 0.4 + 20 * 0.65) / 30
    )
    assert areas.loc[("d", "n", 0), "flat"] == pytest.approx(0.5)
    assert np.isnan(areas.loc[("d", "n", 1), "flat"])
    means = areas.groupby(["dataset", "network"]).mean().loc[("d", "n")]
    assert means["random"] == pytest.approx((0.65 + 0.55) / 2)
    assert means["flat"] == pytest.approx(0.5)
    one = table(curve("a", 0, [0.7], labels=(5,)))
    assert area_under_curve(one)["a"].tolist() == [0.7]


def test_labels_to_reach_by_hand():
    found = labels_to_reach(SMALL).set_index("strategy")
    assert found["target"].tolist() == pytest.approx([0.7] * 3)
    assert found.loc["random", ["labels", "share"]].tolist() == [40, 1]
    # ADMA's mean: 0.4, 0.6, 0.95; 0.7 lies 0.1 / 0.35 of the way from 20 to 40.
    assert found.loc["ADMA", "labels"] == pytest.approx(20 + 20 * 0.1 / 0.35)
    assert found.loc["ADMA", "share"] == pytest.approx((20 + 20 * 0.1 / 0.35) / 40)
    assert np.isnan(found.loc["flat", "labels"])
    early = table([*curve("random", 0, [1, 2, 3]), *curve("a", 0, [5, 5, 5])])
    assert labels_to_reach(early).set_index("strategy").loc["a", "labels"] == 10
    with pytest.raises(ValueError, match="no results of 'BADGE', only of"):
        labels_to_reach(SMALL, "BADGE")


def test_paired_tests_by_hand():
    rng = np.random.default_rng(0)
    rows, differences = [], []
    for network in ("n", "m"):
        for seed in range(6):
            base, gain = rng.random(2)
            differences.append(gain if network == "n" else -gain / 2)
            rows += curve("random", seed, [base] * 3, network)
            rows += curve("b", seed, [base + differences[-1]] * 3, network)
            rows += curve("same", seed, [base] * 3, network)
    found = compare(table(rows), "random").set_index(["network", "strategy"])
    assert found.loc[("n", "b"), "p"] == pytest.approx(2 / 2**6)
    assert found.loc[("n", "b"), "p_holm"] == pytest.approx(4 / 2**6)
    assert found.loc[("n", "b"), ["wins", "losses"]].tolist() == [6, 0]
    assert found.loc[("m", "b"), ["wins", "losses"]].tolist() == [0, 6]
    pooled = found.loc[("all", "b")]
    assert pooled["n_pairs"] == 12
    assert pooled["difference"] == pytest.approx(np.mean(differences))
    assert pooled["p"] == pytest.approx(wilcoxon(differences).pvalue)
    assert found.loc[("n", "same"), ["p", "wins", "losses"]].tolist() == [1, 0, 0]


def test_only_pairs_are_compared():
    found = compare(SMALL, "random").set_index(["network", "strategy"])
    assert found.loc[("n", "flat"), "n_pairs"] == 1
    assert found.loc[("n", "ADMA"), "n_pairs"] == 2
    # 0.8 > 0.65 and 0.567 > 0.55
    assert found.loc[("n", "ADMA"), ["wins", "losses"]].tolist() == [2, 0]
    assert found.loc[("n", "flat"), ["wins", "losses"]].tolist() == [0, 1]
    assert compare(SMALL.query("strategy == 'random'"), "random").empty


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    proba, y = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    expected = roc_auc_score(y, proba, multi_class="ovr")
    assert measure(proba, y)["auc"] == pytest.approx(expected)
    assert measure(proba, y)["accuracy"] == (proba.argmax(1) == y).mean()
    binary = rng.dirichlet(np.ones(2), 30)
    expected = roc_auc_score(y[:30] == 1, binary[:, 1])
    two = (y[:30] == 1).astype(int)
    assert measure(binary, two)["auc"] == pytest.approx(expected)
    # A class that no test image has does not count.
    assert np.isfinite(measure(proba, np.minimum(y, 2))["auc"])
