"""Building a feature store: after a kill, by several jobs, with more images."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from skadma.features.store import FeatureStore
from skadma.features.store.computing import compute_shard
from skadma.features.store.shards import shard_sizes
from skadma.images.selection import n_images, take

from .conftest import tiny_classifier
from .photographs import files_of, fitted, photographs  # noqa: F401


def test_rows_come_in_any_order(photographs, fitted, tmp_path):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths, tmp_path, shard_rows=32, dtype="float32")
    rows = store.outputs(fitted).features
    every = fitted.embed(paths, -2)[-2]
    order = np.random.default_rng(0).permutation(90)[:50]
    np.testing.assert_array_equal(rows[order], every[order])
    np.testing.assert_array_equal(rows[20:70], every[20:70])
    np.testing.assert_array_equal(rows[::-7], every[::-7])
    np.testing.assert_array_equal(rows.select(order)[3:9], every[order][3:9])
    np.testing.assert_array_equal(rows[[-1]], every[[-1]])
    with pytest.raises(IndexError, match="row 90 of 90"):
        rows[[90]]
    some = store.select(order).select([4, 2])
    assert some.keys == [paths[order[4]], paths[order[2]]]
    assert n_images(take(store, order)) == 50


def test_small_last_shards_join_the_one_before():
    assert shard_sizes(10, 4) == [4, 6]
    assert shard_sizes(4096 * 2 + 7, 4096) == [4096, 4103]
    assert shard_sizes(4096 + 8, 4096) == [4096, 8]
    assert shard_sizes(3, 4096) == [3]


def count_computed(monkeypatch):
    computed = []

    def counted(task):
        computed.extend(task.keys)
        return compute_shard(task)

    monkeypatch.setattr("skadma.features.store.feature_store.compute_shard", counted)
    return computed


def test_goes_on_after_an_interruption(photographs, fitted, tmp_path, monkeypatch):
    paths, _ = photographs
    whole = FeatureStore.build(fitted, paths, tmp_path / "whole", shard_rows=16)
    n_done = []

    def interrupted(task):
        if len(n_done) == 3:
            raise KeyboardInterrupt
        n_done.append(task.number)
        return compute_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr("skadma.features.store.feature_store.compute_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FeatureStore.build(fitted, paths, tmp_path / "s", shard_rows=16)
    computed = count_computed(monkeypatch)
    FeatureStore.build(fitted, paths, tmp_path / "s", shard_rows=16)
    assert computed == paths[48:]
    assert files_of(tmp_path / "s") == files_of(whole.folder)
    computed.clear()
    FeatureStore.build(fitted, paths, tmp_path / "s", shard_rows=16)
    assert not computed


BUILD = """
    import sys, time
    from pathlib import Path
    from tests.conftest import tiny_classifier
    from skadma.features.store import FeatureStore, feature_store
    real = feature_store.compute_shard
    def slow(task):
        time.sleep(0.1)
        with open(sys.argv[2], "a") as log:
            log.write(f"{task.number}\\n")
        return real(task)
    feature_store.compute_shard = slow
    paths = open(sys.argv[3]).read().split("\\n")
    FeatureStore.build(tiny_classifier(memory=False), paths, sys.argv[1], shard_rows=10)
"""


def test_killed_at_any_point_nothing_is_computed_twice(photographs, tmp_path):
    paths, _ = photographs
    (tmp_path / "paths").write_text("\n".join(paths))
    log = tmp_path / "log"
    command = [sys.executable, "-c", textwrap.dedent(BUILD)]
    command += [str(tmp_path / "s"), str(log), str(tmp_path / "paths")]
    killed = 0
    for shards in (1, 4, 7, 99):
        process = subprocess.Popen(command)
        while process.poll() is None:
            done = list((tmp_path / "s" / "content").glob("0*.safetensors"))
            if len(done) >= shards:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.01)
        process.wait()
    assert killed >= 2
    begun = [int(line) for line in log.read_text().split()]
    assert set(begun) == set(range(9))
    assert len(begun) <= 9 + killed  # the shard that a kill was in the middle of
    store = FeatureStore.open(tmp_path / "s")
    assert not store.verify()
    other = FeatureStore.build(tiny_classifier(), paths, tmp_path / "o", shard_rows=10)
    assert files_of(store.folder) == files_of(other.folder)


def test_jobs_make_the_whole(photographs, fitted, tmp_path):
    paths, _ = photographs
    whole = FeatureStore.build(fitted, paths, tmp_path / "whole", shard_rows=16)
    for i in (2, 0, 1):
        FeatureStore.build(fitted, paths, tmp_path / "s", shard_rows=16, job=(i, 3))
    assert files_of(tmp_path / "s") == files_of(whole.folder)


def test_the_recipe_for_slurm_runs(photographs, tmp_path):
    """As two plain processes, instead of a hundred."""
    paths, _ = photographs
    text = (Path(__file__).parents[1] / "docs" / "scale.md").read_text("utf-8")
    recipe = text.split("python -P - <<'PY'\n")[1].split("PY\n")[0]
    (tmp_path / "paths.txt").write_text("\n".join(paths[:40]))
    recipe = recipe.replace("/shared/features", "features").replace("100", "2")
    recipe = recipe.replace("job=job", "job=job, shard_rows=16")
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", recipe],
            cwd=tmp_path,
            env={
                **os.environ,
                "SLURM_ARRAY_TASK_ID": str(i),
                "PYTHONPATH": str(Path(__file__).parents[1]),
            },
        )
        for i in range(2)
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    store = FeatureStore.open(tmp_path / "features")
    assert store.verify() == []
    (column,) = store.folder.glob("source-*")
    assert store._rows_of(column.name).shape == (40, 1280)


def test_appends_once(photographs, fitted, tmp_path, monkeypatch):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths[:40], tmp_path, shard_rows=16)
    computed = count_computed(monkeypatch)
    longer = store.append(fitted, paths[30:])
    assert computed == paths[40:]
    assert longer.keys == FeatureStore.open(tmp_path).keys == paths
    computed.clear()
    assert len(longer.append(fitted, paths)) == 90
    assert not computed
    np.testing.assert_array_equal(
        longer.outputs(fitted).features[:],
        fitted.embed(paths, -2)[-2].astype(np.float16).astype(np.float32),
    )
