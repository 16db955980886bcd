"""Computing and choosing in other processes: the same rows, whatever happens there."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import GridSearchCV

from skadma import ActiveLearner
from skadma.features.estimators import get_adapter
from skadma.features.store import FeatureStore, StoreError
from skadma.features.store.computing import ShardTask, compute_shard, send_estimator
from skadma.features.store.executing import run_tasks
from skadma.strategies import BADGE, CoreSet, MarginSampling, UncertaintyHerding

from .conftest import tiny_classifier
from .elsewhere import DiesOnce, always_dies, double
from .photographs import files_of

SPAWN = multiprocessing.get_context("spawn")


def processes():
    return ProcessPoolExecutor(2, mp_context=SPAWN)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=96)
    X = rng.integers(0, 90, (96, 32, 32, 3))
    X[np.arange(96), :, :, y] += 120
    return X.astype(np.uint8), y


@pytest.fixture(scope="module")
def fitted(images):
    X, y = images
    return tiny_classifier(memory=False).fit(X[:20], y[:20])


@pytest.fixture(scope="module")
def serial(images, fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    return FeatureStore.build(fitted, images[0], folder, shard_rows=16, partitions=3)


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


STRATEGIES = [UncertaintyHerding, CoreSet, BADGE, MarginSampling]


def check_same(store, serial, fitted):
    for cls in STRATEGIES:
        strategy = cls(random_state=0)
        assert (
            strategy.query(fitted, store, 9).tolist()
            == strategy.query(fitted, serial, 9).tolist()
        )
    assert files_of(store.folder / "content") == files_of(serial.folder / "content")
    assert not store.verify()


def test_processes_find_the_same(images, fitted, serial, tmp_path):
    with processes() as executor:
        store = FeatureStore.build(
            fitted, images[0], tmp_path, shard_rows=16, partitions=3, executor=executor
        )
        check_same(store, serial, fitted)


def test_dask_finds_the_same(images, fitted, serial, tmp_path, dask_client):
    store = FeatureStore.build(
        fitted,
        images[0],
        tmp_path,
        shard_rows=16,
        partitions=3,
        executor=dask_client.get_executor(),
    )
    check_same(store, serial, fitted)
    networks = list((tmp_path / "networks").iterdir())
    assert len(networks) == 1  # sent once, by its content


@pytest.mark.parametrize("kind", ["loky", "dask"])
def test_a_killed_workers_shards_are_computed_again(
    kind, images, fitted, serial, tmp_path, monkeypatch, request
):
    (tmp_path / "log").mkdir()
    monkeypatch.setattr(
        "skadma.features.store.feature_store.compute_shard", DiesOnce(tmp_path / "log")
    )
    if kind == "loky":
        executor = lambda: get_reusable_executor(2, timeout=60)  # noqa: E731
    else:
        executor = request.getfixturevalue("dask_client").get_executor()
    store = FeatureStore.build(
        fitted,
        images[0],
        tmp_path / "s",
        shard_rows=16,
        partitions=3,
        executor=executor,
    )
    assert (tmp_path / "log" / "killed").exists()
    logs = [p.read_text().split() for p in (tmp_path / "log").glob("log-*")]
    assert {int(n) for log in logs for n in log} == set(range(6))
    monkeypatch.undo()
    store.executor = None
    check_same(store, serial, fitted)


def test_a_broken_executor_keeps_what_is_done(images, fitted, tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    monkeypatch.setattr(
        "skadma.features.store.feature_store.compute_shard", DiesOnce(tmp_path / "log")
    )
    with processes() as executor, pytest.raises(StoreError, match="call again"):
        FeatureStore.build(
            fitted, images[0], tmp_path / "s", shard_rows=16, executor=executor
        )
    with processes() as executor:
        FeatureStore.build(
            fitted, images[0], tmp_path / "s", shard_rows=16, executor=executor
        )
    assert not FeatureStore.open(tmp_path / "s").verify()


def test_a_changed_file_of_an_estimator_is_not_read(fitted, tmp_path):
    sent = send_estimator(get_adapter(fitted), tmp_path)
    sent.write_bytes(sent.read_bytes() + b".")
    task = ShardTask(tmp_path, 0, [], [], [], True, None, False, sent)
    with pytest.raises(ValueError, match="changed or damaged"):
        compute_shard(task)


def test_workers_that_always_die_end_it():
    with pytest.raises(StoreError, match="lost 4 times"):
        list(run_tasks(always_dies, [1], lambda: get_reusable_executor(1, timeout=60)))


@pytest.mark.parametrize("make", [processes, lambda: ThreadPoolExecutor(2)])
def test_ones_own_errors_are_raised_at_once(make):
    with make() as executor:
        found = dict(run_tasks(double, list(range(9)), executor))
        assert found == {i: 2 * i for i in range(9)}
        with pytest.raises(ValueError, match="thirteen"):
            list(run_tasks(double, [1, 13, 2], executor))


def test_refuses_what_is_no_executor():
    with pytest.raises(TypeError, match="Client.get_executor"):
        list(run_tasks(double, [1], 3))


def test_a_grid_of_learners_runs_on_dask(images, dask_client):
    X, y = images
    learner = ActiveLearner(
        tiny_classifier(max_epochs=1),
        MarginSampling(),
        n_rounds=2,
        n_instances=6,
        random_state=0,
    )
    grid = {"n_instances": [4, 6], "estimator__lr": [1e-3, 1e-2]}
    here = GridSearchCV(learner, grid, cv=2).fit(X, y)
    with joblib.parallel_config(backend="dask"):
        there = GridSearchCV(learner, grid, cv=2).fit(X, y)
    np.testing.assert_array_equal(
        there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"]
    )
    assert there.best_params_ == here.best_params_
