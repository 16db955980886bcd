"""Benchmarks: configurations, runs and reports."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skadma import CNNClassifier, SourceCenters
from skadma.bench import (
    area_under_curve,
    read_results,
    run_benchmark,
    write_report,
)
from skadma.bench.config import load_cells
from skadma.bench.datasets import DATASETS
from skadma.cli import main

from .conftest import lite0
from .small_data_sets import dogs_vs_cats, indoor67, inria_person, picture, voc2012

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

MEASURED = ["dataset", "network", "strategy", "seed", "round", "n_labels", "accuracy",
            "auc"]  # fmt: skip


@pytest.fixture(scope="module")
def centers(tmp_path_factory):
    """Centres of three source classes, in a file."""
    path = tmp_path_factory.mktemp("centers") / "centers.safetensors"
    X = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    SourceCenters.from_dataset(lite0(image_size=32), X, [5, 100, 900]).save(path)
    return str(path)


@pytest.fixture(scope="module")
def config(centers):
    return {
        "datasets": {"digits": {}},
        "networks": {"efficientnet_lite0": {}, "slow": {
            "backbone": "efficientnet_lite0", "lr": 1e-5}},
        "strategies": {
            "random": {"class": "RandomSampling"},
            "margin": {"class": "MarginSampling"},
            "ADMA-distance": {"class": "ADMA", "weights": "distance"},
            "ceiling": {"class": "FullyTrained"},
        },
        "seeds": 2, "n_rounds": 2, "n_instances": 6, "pool_size": 40,
        "test_size": 60, "centers": centers,
        "classifier": {"image_size": 32, "max_epochs": 1, "n_frozen_layers": 40},
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    """A folder with all results, made in this process."""
    out = tmp_path_factory.mktemp("done")
    run_benchmark(config, out, verbose=False)
    return out


def test_cells_keep_data_set_and_network_together(config):
    cells = load_cells(config)
    assert len(cells) == len({c.file_name for c in cells}) == 1 * 2 * 4 * 2
    groups = [(c.dataset, c.network) for c in cells]
    assert groups == sorted(groups)
    assert [c.seed for c in cells[:8]] == [0] * 4 + [1] * 4
    slow = next(c for c in cells if c.network == "slow").settings
    assert slow["network"]["lr"] == 1e-5
    assert slow["network"]["image_size"] == 32
    own = {**config, "datasets": {"digits": {"n_instances": 3}}}
    assert load_cells(own)[0].settings["protocol"]["n_instances"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_round": 3}, r"has \['n_round'\], but takes only"),
        ({"strategies": []}, "names no strategies"),
        ({"strategies": ["Adma"]}, "There is no strategy 'Adma'. There are .'ADMA'"),
        ({"strategies": {"a": {"class": "ADMA", "scale": 1}}}, r"'a' has \['scale'\]"),
        ({"strategies": ["ScoringStrategy"]}, "There is no strategy"),
        ({"strategies": {"f": {"class": "FullyTrained", "x": 1}}}, r"has \['x'\]"),
        ({"strategies": {"AIFT": {"datasets": ["elpv"]}}}, r"data sets \['elpv'\]"),
        ({"datasets": ["cifar11"]}, "There is no data set 'cifar11'"),
        ({"datasets": {"digits": {"size": 3}}}, r"'digits' has \['size'\]"),
        ({"networks": {"n": {"memory": None}}}, r"'n' has \['memory'\]"),
        ({"classifier": {"epochs": 3}}, r"'classifier' has \['epochs'\]"),
    ],
)
def test_what_is_wrong_with_a_configuration(config, change, message):
    with pytest.raises(ValueError, match=message):
        load_cells({**config, **change})


def test_a_strategy_for_some_of_the_data_sets(config):
    binary = {"datasets": ["elpv"], "alpha": 0.5}
    own = {"datasets": ["digits", "elpv"], "strategies": {"BADGE": {}, "AIFT": binary}}
    cells = load_cells({**config, **own})
    found = {(c.dataset, c.strategy) for c in cells}
    assert found == {("digits", "BADGE"), ("elpv", "BADGE"), ("elpv", "AIFT")}
    assert cells[-1].settings["strategy"] == {"class": "AIFT", "alpha": 0.5}


def test_every_cell_has_a_file_of_its_own(config):
    names = ["a b", "a/b", "a-b", "a%2Fb", "a,b", "a", "b,a", "..", "\u00e9"]
    named = dict.fromkeys(names, {"class": "BADGE"})
    networks = dict.fromkeys(["a", "a,b"], {"backbone": "efficientnet_lite0"})
    cells = load_cells({**config, "strategies": named, "networks": networks})
    files = {cell.file_name for cell in cells}
    assert len(files) == len(cells) == 2 * 2 * len(names)
    assert all(Path(file).name == file for file in files)


def test_strategies_of_other_modules(config):
    named = {"mine": {"class": "skadma.strategies._badge.BADGE"}}
    assert load_cells({**config, "strategies": named})


def test_a_file_that_is_no_configuration(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{datasets")
    with pytest.raises(ValueError, match="is not JSON"):
        load_cells(path)


def test_results_have_a_row_per_round(done):
    results = read_results(done)
    assert len(results) == 2 * 2 * (3 * 2 + 1)
    curves = results[results["strategy"] != "ceiling"]
    assert sorted(set(curves["n_labels"])) == [6, 12]
    assert set(results[results["strategy"] == "ceiling"]["n_labels"]) == {40}
    assert results["accuracy"].between(0, 1).all()
    assert results["auc"].between(0, 1).all()
    assert (results["fit_seconds"] > 0).all()
    assert set(results["n_test"]) == {60}
    assert set(results["n_frozen"]) == {40}
    assert set(results[results["network"] == "slow"]["lr"]) == {1e-5}
    ran = json.loads((done / "runs.jsonl").read_text())
    assert ran["n_cells"] == ran["n_to_run"] == 16


def test_pairs_share_split_and_network(config, tmp_path):
    """Twice the same strategy under two names: to the bit the same."""
    strategies = {name: {"class": "RandomSampling"} for name in ("one", "two")}
    small = {**config, "strategies": strategies, "networks": ["efficientnet_lite0"]}
    results = read_results(run_benchmark(small, tmp_path, verbose=False))
    one, two = (results[results["strategy"] == n] for n in ("one", "two"))
    for column in ("seed", "n_labels", "accuracy", "auc"):
        np.testing.assert_array_equal(one[column], two[column])
    assert (
        one[one["seed"] == 0]["auc"].iloc[-1] != one[one["seed"] == 1]["auc"].iloc[-1]
    )


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_run_goes_on_and_jobs_change_nothing(config, done, tmp_path):
    path, out = tmp_path / "config.json", tmp_path / "out"
    path.write_text(json.dumps({**config, "seeds": 1}))
    arguments = ["bench", "run", str(path), "--out", str(out), "--jobs", "2"]
    run = f"from skadma.cli import main; main({arguments})"
    process = subprocess.Popen(
        [sys.executable, "-c", run],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while len(list(out.glob("cells/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "processes outlive the run"
        time.sleep(0.05)
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("cells/*.json")}
    assert 2 <= len(before) < 8
    assert not (out / "results.csv").exists()
    run_benchmark(path, out, jobs=1, verbose=False)
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("cells/*.json")}
    assert len(after) == 8
    assert before.items() <= after.items()
    whole = read_results(done)
    expected = whole[whole.seed == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_results(out)[MEASURED], expected[MEASURED])


def test_no_process_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="jobs=0 must be at least 1"):
        run_benchmark(config, tmp_path / "out", jobs=0)
    assert not (tmp_path / "out").exists()


def test_results_of_other_settings_are_not_mixed(config, done):
    other = {**config, "classifier": {**config["classifier"], "max_epochs": 2}}
    with pytest.raises(ValueError, match="with other settings of .'network'."):
        run_benchmark(other, done, verbose=False)


def test_more_strategies_later(config, done, tmp_path):
    """What is there is not run again, under whatever configuration it was made."""
    small = {**config, "networks": ["efficientnet_lite0"], "seeds": [1]}
    run_benchmark({**small, "strategies": ["BADGE"]}, tmp_path, verbose=False)
    both = {"BADGE": {}, "random": {"class": "RandomSampling"}}
    run_benchmark({**small, "strategies": both}, tmp_path, verbose=False)
    runs = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(run)["n_to_run"] for run in runs] == [1, 1]
    mine, all_ = read_results(tmp_path), read_results(done)
    assert set(mine["strategy"]) == {"BADGE", "random"}
    for column in ("accuracy", "auc"):
        expected = all_.query(
            "network == 'efficientnet_lite0' and seed == 1 and strategy == 'random'"
        )[column]
        got = mine.query("strategy == 'random'")[column]
        np.testing.assert_array_equal(got, expected)


def test_a_failed_cell_does_not_stop_the_others(config, tmp_path):
    broken = {**config, "centers": "missing.safetensors", "seeds": 1}
    with pytest.raises(
        RuntimeError, match="(?s)2 of 8 cells .* folder of source centres"
    ):
        run_benchmark(broken, tmp_path, verbose=False)
    assert len(read_results(tmp_path)) == 2 * (2 * 2 + 1)
    with pytest.raises(RuntimeError, match="2 of 2 cells failed"):
        none = {**broken, "strategies": ["ADMA"]}
        run_benchmark(none, tmp_path / "none", verbose=False)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(SystemExit, match="skadma bench: 2 of 2 cells failed"):
        main(["bench", "run", str(path), "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "make"),
    [("voc2012", voc2012), ("indoor67", indoor67), ("inria-person", inria_person),
     ("dogs-vs-cats", dogs_vs_cats)],
)  # fmt: skip
def test_the_papers_protocols_run(name, make, tmp_path, monkeypatch):
    """As configured, but with small random networks and few labels."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    make(tmp_path)
    config = json.loads((BENCHMARKS / "configs" / f"paper-{name}.json").read_text())
    assert config["networks"] == {"alexnet": {}, "vgg16": {}, "resnet18": {}}
    batch = {"voc2012": 2, "indoor67": 10}.get(name, 1)
    assert config["n_instances"] == batch
    assert config["n_rounds"] == (60 if batch > 1 else 100)  # Tables 1 and 2
    for k in (3, 50, 400, 999):
        picture(tmp_path / "centers" / f"{k:04}" / "0.png", k)
    config |= {"networks": {"resnet18": {"weights": None}}, "seeds": 1, "n_rounds": 2}
    config["n_instances"] = min(batch, 4)
    config["classifier"] |= {"image_size": 32, "max_epochs": 1}
    clf = CNNClassifier("resnet18", weights=None, image_size=32)
    paths = sorted((tmp_path / "centers").rglob("*.png"))
    centers = SourceCenters.from_dataset(clf, paths, [3, 50, 400, 999])
    centers.save(tmp_path / "centers.safetensors")
    config["centers"] = "centers.safetensors"
    out = tmp_path / "out"
    results = read_results(run_benchmark(config, out, data=tmp_path, verbose=False))
    expected = {"ADMA-predict", "ADMA-2", "ADMA-distance", "random", "fully trained"}
    if batch == 1:  # Sec. 4.1 compares with AIFT on binary tasks only
        expected.add("AIFT")
    assert set(results["strategy"]) == expected
    assert set(results["n_frozen"]) == {8}


def test_centres_from_folders_of_class_names(config, tmp_path):
    for name in ("tabby", "beagle", "pizza"):
        for i in range(2):
            picture(tmp_path / "source" / name / f"{i}.png", i)
    small = {**config, "centers": "source", "strategies": ["ADMA"], "seeds": 1}
    path = run_benchmark(small, tmp_path / "out", data=tmp_path, verbose=False)
    assert set(read_results(path)["strategy"]) == {"ADMA"}


def test_a_strategys_own_centres(config, tmp_path):
    kinds = {"of a file": {"class": "ADMA", "centers": config["centers"]}}
    kinds["shipped"] = {"class": "ADMA", "n_centers": 5}
    small = {**config, "networks": ["efficientnet_lite0"], "seeds": 1}
    path = run_benchmark(
        {**small, "strategies": kinds, "centers": None}, tmp_path, verbose=False
    )
    assert set(read_results(path)["strategy"]) == set(kinds)
    cells = [json.loads(p.read_text()) for p in tmp_path.glob("cells/*.json")]
    asked = [cell["rows"][0]["indices"] for cell in cells]
    assert len({tuple(indices) for indices in asked}) == 2


def test_a_network_without_source_classes(config, tmp_path):
    backbone = {"backbone": "efficientnet_lite0", "source_classes": False}
    own = {"networks": {"features": backbone}, "strategies": ["UncertaintyHerding"]}
    run_benchmark({**config, **own, "seeds": 1}, tmp_path, verbose=False)
    assert read_results(tmp_path)["n_labels"].tolist() == [6, 12]


def test_report(done, capsys):
    assert main(["bench", "report", str(done), "--against", "margin"]) == 0
    printed = capsys.readouterr().out
    assert (done / "report.md").read_text("utf-8").strip() == printed.strip()
    assert "### Against margin" in printed
    assert "### Labels needed for the final accuracy of random" in printed
    assert "| labels | 6 | 12 | 40 |" in printed
    accuracy = read_results(done).query("strategy == 'ceiling'")["accuracy"]
    assert accuracy.size == 4
    for _, values in accuracy.groupby(read_results(done)["network"]):
        text = f"{values.mean():.3f} ± {values.std():.3f}"
        assert f"| ceiling |  |  | {text} |" in printed
    area = area_under_curve(read_results(done))["random"]
    for value in area.groupby("network").mean():
        assert f"{value:.3f}" in printed
    assert (done / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = write_report(done).read_text("utf-8")
    assert f"Against {area_under_curve(read_results(done)).mean().idxmax()}" in best
    with pytest.raises(ValueError, match="no results of 'Margin', only of"):
        write_report(done, against="Margin")


def test_a_report_while_the_run_goes_on(config, done, tmp_path):
    """Of the cells that are done by now."""
    (tmp_path / "cells").mkdir()
    for path in (done / "cells").glob("*,0.json"):
        (tmp_path / "cells" / path.name).write_bytes(path.read_bytes())
    assert "4 strategies, 1 seed(s)" in write_report(tmp_path).read_text("utf-8")
    assert set(read_results(tmp_path)["seed"]) == {0}


def test_no_results_yet(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "report", str(tmp_path)])
    assert "skadma bench run CONFIG --out DIR" in capsys.readouterr().err


def test_names_in_the_documentation():
    text = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text("utf-8")
    for name in DATASETS:
        assert f"`{name}`" in text


VALUES = [
    None, True, -1, 0, 10**21, 1e300, "", "x", [], [None], [[]], {}, {"a": 1},
    {"a": None}, [1, "a"], {"x": {"class": 5}}, {"x": {"class": ":"}},
    {"digits": {"path": 5}}, {"digits": {"n_rounds": None}}, {"lr": 1e300},
]  # fmt: skip


def test_settings_of_any_type(config):
    """A sentence for each, and no other error."""
    accepted = set()
    for name in [*config, "warm_start"]:
        for value in VALUES:
            try:
                load_cells({**config, name: value})
                accepted.add(name)
            except ValueError as error:
                assert len(str(error)) < 2000
    assert accepted == {
        "seeds", "pool_size", "test_size", "centers", "classifier", "n_rounds",
        "n_instances", "warm_start",
    }  # fmt: skip
    for value in VALUES:
        if not isinstance(value, str):
            with pytest.raises(ValueError, match="configuration"):
                load_cells(value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"settings": 1}', "[" * 10**5])
def test_a_damaged_result(text, config, tmp_path):
    (cell, *_) = load_cells(config)
    path = tmp_path / "cells" / cell.file_name
    path.parent.mkdir()
    path.write_text(text)
    for use in (read_results, lambda out: run_benchmark(config, out, verbose=False)):
        with pytest.raises(ValueError, match="is no result of a cell: remove it"):
            use(tmp_path)
