"""skadma's own battery for image classifiers, on 4-D input."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback, Checkpoint, EpochScoring
from skorch.dataset import ValidSplit

from skadma import CNNClassifier
from skadma.strategies import TypiClust, UncertaintyHerding

from .conftest import TinyCNN, lite0, tiny_classifier


@pytest.fixture(params=["tiny", "lite0"])
def make(request):
    return {"tiny": tiny_classifier, "lite0": lite0}[request.param]


def test_learns(pictures):
    X, y = pictures
    clf = tiny_classifier(max_epochs=30).fit(X, y)
    assert clf.score(X, y) > 0.9


def test_real_network_learns_real_task(data_dir):
    files = [
        path
        for label in ("cat", "dog")
        for path in sorted((data_dir / "dogs-vs-cats" / label).glob("*.jpg"))[:40]
    ]
    y = np.array([path.parent.name for path in files])
    train = np.arange(80) % 4 == 0
    files = np.array([str(path) for path in files])
    clf = lite0(image_size=128, n_frozen_layers=-3, max_epochs=6)
    clf.fit(files[train], y[train])
    assert clf.score(files[~train], y[~train]) > 0.85


def test_clone_and_parameters(make):
    clf = make(lr=0.5, net_params={"optimizer__weight_decay": 0.1})
    copy = clone(clf)
    assert copy.get_params(deep=False) == clf.get_params(deep=False)
    assert clf.get_params()["net_params__optimizer__weight_decay"] == 0.1
    copy.set_params(net_params__optimizer__weight_decay=0.2, lr=0.25)
    assert copy.net_params == {"optimizer__weight_decay": 0.2}
    assert clf.net_params == {"optimizer__weight_decay": 0.1}
    with pytest.raises(ValueError, match="Invalid parameter"):
        clf.set_params(learning_rate=1)


def test_parameters_are_not_changed(make, pictures):
    X, y = pictures
    clf = make(classes=[0, 1, 2], callbacks=[], net_params={})
    before = {k: id(v) for k, v in clf.get_params(deep=False).items()}
    clf.fit(X[:6], y[:6]).predict(X[:6])
    assert {k: id(v) for k, v in clf.get_params(deep=False).items()} == before


def test_refit_is_idempotent_and_starts_from_m0(make, pictures):
    X, y = pictures
    clf = make().fit(X[:8], y[:8])
    first = clf.predict_proba(X)
    np.testing.assert_array_equal(clf.fit(X[:8], y[:8]).predict_proba(X), first)
    np.testing.assert_array_equal(clone(clf).fit(X[:8], y[:8]).predict_proba(X), first)


def test_pickle(make, pictures):
    X, y = pictures
    clf = make().fit(X[:8], y[:8])
    loaded = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(loaded.source_proba(X), clf.source_proba(X))
    # It goes on training from where it was, by the same random numbers.
    for each in (loaded, clf):
        each.partial_fit(X[8:12], y[8:12])
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize(
    "names",
    [[0, 2, 4], [-1, 0, 7], ["b", "a", "c"], np.array(["x", "zz", "y"], dtype=object)],
)
def test_labels_of_any_kind(names, pictures):
    X, y = pictures
    labels = np.asarray(names)[y]
    clf = tiny_classifier(max_epochs=30).fit(X, labels)
    np.testing.assert_array_equal(clf.classes_, np.unique(labels))
    assert (clf.predict(X) == labels).mean() > 0.9


def test_known_classes(pictures):
    X, y = pictures
    two = y < 2
    clf = tiny_classifier(classes=[2, 1, 0]).fit(X[two], y[two])
    assert clf.predict_proba(X).shape == (24, 3)
    with pytest.raises(ValueError, match=r"labels \[2\], which are not among"):
        tiny_classifier(classes=[0, 1]).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y"),
        ([0.5] * 24, "Unknown label type"),
        ([np.nan] + [1.0] * 23, "NaN"),
        ([None] + ["a"] * 23, "None"),
        ([0, 1], "inconsistent numbers"),
    ],
)
def test_labels_refused(y, message, pictures):
    with pytest.raises(ValueError, match=message):
        tiny_classifier().fit(pictures[0], y)


def test_images_refused(make, pictures):
    X, y = pictures
    clf = make()
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(np.full((24, 8, 8), np.nan), y)
    with pytest.raises(ValueError, match="5"):
        clf.fit(np.zeros((24, 5, 8, 8), np.uint8), y)
    fitted = make().fit(X[:4], y[:4])
    with pytest.raises(ValueError, match="5"):
        fitted.predict(np.zeros((24, 5, 8, 8), np.uint8))


def test_order_and_subsets_do_not_matter(make, pictures):
    X, y = pictures
    clf = make(scan_batch_size=5).fit(X[:8], y[:8])
    whole = clf.predict_proba(X)
    order = np.random.default_rng(1).permutation(24)
    np.testing.assert_allclose(clf.predict_proba(X[order]), whole[order], atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X[3:4]), whole[3:4], atol=1e-5)


def test_goes_on(make, pictures):
    X, y = pictures
    once = make(max_epochs=2).fit(X[:8], y[:8])
    cold = once.predict_proba(X)
    warm = once.set_params(warm_start=True).fit(X[:8], y[:8]).predict_proba(X)
    assert not np.allclose(cold, warm)
    assert once.n_labels_ == 8
    once.partial_fit(X[8:11], y[8:11])
    assert once.n_labels_ == 11
    assert not np.allclose(once.predict_proba(X), warm)


def test_going_on_keeps_what_is_known_of_old_classes(pictures):
    X, y = pictures
    two = y < 2
    clf = tiny_classifier(max_epochs=30, warm_start=True).fit(X[two], y[two])
    before = clf.predict_proba(X[two])
    clf.set_params(max_epochs=0).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 2]
    after = clf.predict_proba(X[two])[:, :2]
    np.testing.assert_allclose(after / after.sum(1, keepdims=True), before, atol=1e-5)


def test_partial_fit_first(pictures):
    X, y = pictures
    clf = tiny_classifier().partial_fit(X[:1], y[:1], classes=[0, 1, 2])
    assert clf.predict_proba(X).shape == (24, 3)


def test_frozen_layers_cannot_change_on_the_way(pictures):
    X, y = pictures
    clf = tiny_classifier(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="warm_start=False"):
        clf.set_params(n_frozen_layers=3).fit(X, y)


def test_before_fit(make, pictures):
    X, _ = pictures
    clf = make()
    with pytest.raises(NotFittedError):
        clf.predict_proba(X)
    k = 1000 if clf.backbone == "efficientnet_lite0" else 5
    source = clf.source_proba(X)
    assert source.shape == (24, k)
    np.testing.assert_allclose(source.sum(1), 1)
    embedded = clf.embed(X)
    assert list(embedded) == [-4, -2]
    assert not [name for name in vars(clf) if name.endswith("_")]


def test_embed_is_of_the_present_network(pictures):
    X, y = pictures
    clf = tiny_classifier()
    before = clf.embed(X, layers=[0, "conv2", -2])
    source = clf.source_proba(X)
    clf.fit(X, y)
    after = clf.embed(X, layers=[0, "conv2", -2])
    np.testing.assert_array_equal(before[0], after[0])  # frozen
    assert not np.allclose(before["conv2"], after["conv2"])
    np.testing.assert_array_equal(source, clf.source_proba(X))


def test_skorch_is_within_reach(tmp_path, pictures):
    X, y = pictures
    clf = tiny_classifier(
        max_epochs=3,
        train_split=ValidSplit(4, stratified=True),
        callbacks=[
            ("f1", EpochScoring("f1_macro", lower_is_better=False, name="f1")),
            Checkpoint(dirname=tmp_path, load_best=False),
        ],
        optimizer=torch.optim.SGD,
        net_params={"optimizer__momentum": 0.5},
    ).fit(X, y)
    assert len(clf.net_.history) == 3
    assert "f1" in clf.net_.history[-1]
    assert clf.net_.optimizer_.param_groups[0]["momentum"] == 0.5
    assert (tmp_path / "params.pt").is_file()


def test_search_and_pipeline(pictures):
    X, y = pictures
    pipeline = make_pipeline(FunctionTransformer(), tiny_classifier())
    search = GridSearchCV(
        pipeline,
        {
            "cnnclassifier__n_frozen_layers": [0, 2],
            "cnnclassifier__net_params__optimizer__weight_decay": [0.0, 0.5],
        },
        cv=2,
    )
    search.set_params(estimator__cnnclassifier__max_epochs=1).fit(X, y)
    assert search.predict(X).shape == (24,)
    scores = cross_validate(tiny_classifier(max_epochs=20), X, y, cv=3)["test_score"]
    assert scores.mean() > 0.6


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_norm": "train"}, "batch_norm"),
        ({"lr": -1}, "lr"),
        ({"n_frozen_layers": "all"}, "n_frozen_layers"),
        ({"on_bad_image": "ignore"}, "on_bad_image"),
    ],
)
def test_wrong_parameters(params, message, pictures):
    with pytest.raises(ValueError, match=message):
        tiny_classifier(**params).fit(*pictures)


def test_a_failed_fit_loses_nothing(pictures):
    X, y = pictures
    clf = tiny_classifier().fit(X, y)
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(np.full((24, 8, 8), np.nan), y)
    np.testing.assert_array_equal(clf.predict_proba(X), before)


def test_an_instance_in_a_callable_is_not_trained(pictures):
    shared = TinyCNN()
    before = {k: v.clone() for k, v in shared.state_dict().items()}
    CNNClassifier(lambda: shared, image_size=32, max_epochs=1).fit(*pictures)
    assert all(torch.equal(v, shared.state_dict()[k]) for k, v in before.items())


def test_global_random_numbers_are_left_alone(make, pictures):
    X, y = pictures
    torch.manual_seed(1)
    numpy_state = np.random.get_state  # noqa: NPY002
    before = torch.get_rng_state(), numpy_state()[1].copy()
    clf = make(random_state=0).fit(X[:6], y[:6]).partial_fit(X[6:8], y[6:8])
    clf.predict(X)
    clf.embed(X, layers=np.int64(-2))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(numpy_state()[1], before[1])


def test_a_failed_warm_fit_loses_nothing(tmp_path, pictures):
    X, y = pictures
    two = y < 2
    clf = tiny_classifier(warm_start=True).fit(X[two], y[two])
    before = clf.predict_proba(X)
    files = [tmp_path / "0.png"] * 24
    with pytest.raises(ValueError, match=r"0\.png"):
        clf.fit(files, y)

    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        clf.set_params(callbacks=[Failing()]).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    clf.set_params(callbacks=None).fit(X, y)
    assert clf.predict_proba(X).shape == (24, 3)


class _Interrupt(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupt_stops_training(pictures):
    X, y = pictures
    clf = tiny_classifier(callbacks=[("interrupt", _Interrupt())])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert not hasattr(clf, "net_")


def steps(clf):
    return {float(s["step"]) for s in clf.net_.optimizer_.state.values()}


def test_partial_fit_takes_changed_parameters(pictures):
    X, y = pictures
    clf = tiny_classifier().partial_fit(X, y)
    before, n_steps = clf.predict_proba(X), steps(clf)
    clf.set_params(max_epochs=1, lr=0.0, head_lr=0.0).partial_fit(X, y)
    assert len(clf.net_.history) == 3
    assert steps(clf) == {1.5 * n for n in n_steps}  # the moments go on
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    clf.set_params(head_lr=0.1).partial_fit(X, y)
    rates = [group["lr"] for group in clf.net_.optimizer_.param_groups]
    assert rates == [0.1, 0.0]
    assert np.abs(clf.predict_proba(X) - before).max() > 0


def test_threads_do_not_disturb_each_other(pictures):
    X, y = pictures

    def work(_):
        clf = CNNClassifier("resnet18", weights=None, image_size=32, random_state=0)
        return clf.set_params(max_epochs=1).fit(X, y).predict_proba(X)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    for one in found:
        np.testing.assert_array_equal(one, found[0])


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": "squeezenet1_0"},
        {"image_size": 40},
        {"batch_norm": "update"},
        {"training": "probe"},
        {"weights": "DEFAULT"},
        {"reduced_decoding": True},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_changed_network_does_not_train_further(changed, method, pictures):
    X, y = pictures
    clf = CNNClassifier(
        "squeezenet1_1", weights=None, image_size=32, max_epochs=1, warm_start=True
    )
    clf.fit(X, y)
    before = clf.predict_proba(X)
    (name,) = changed
    old = getattr(clf, name)
    clf.set_params(**changed)
    if method == "fit" or "training" not in changed:
        with pytest.raises(ValueError, match=f"{name} is now .* built with {old!r}"):
            getattr(clf, method)(X, y)
    clf.set_params(**{name: old})
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    clf.fit(X, y)


def test_another_training_begins_anew_without_warm_start(pictures):
    X, y = pictures
    clf = CNNClassifier("mobilenet_v3_small", weights=None, image_size=32, max_epochs=1)
    clf.fit(X, y)
    probe = clf.set_params(training="probe").fit(X, y).predict_proba(X)
    fresh = CNNClassifier(
        "mobilenet_v3_small", weights=None, image_size=32, training="probe"
    )
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), probe)


def rows_network():
    return torch.nn.Sequential(
        torch.nn.LazyLinear(8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
    )


def test_a_failed_fit_with_other_columns_changes_nothing():
    X = np.random.default_rng(0).normal(size=(30, 5))
    y = np.arange(30) % 2
    clf = CNNClassifier(rows_network, weights=None, n_frozen_layers=0, max_epochs=1)
    clf.fit(X, y)
    before = clf.predict_proba(X)
    for bad in (np.full(29, 1), np.where(y, np.nan, 1.5)):
        with pytest.raises(ValueError):
            clf.fit(X[:, :3], bad)
    with pytest.raises(ValueError, match="3 features"):
        clf.predict_proba(X[:, :3])
    assert clf.n_features_in_ == 5
    np.testing.assert_array_equal(clf.predict_proba(X), before)


def test_a_failed_device_spoils_nothing(pictures):
    X, y = pictures
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    before = clf.set_params(random_state=0).fit(X, y).predict_proba(X)
    with pytest.raises((RuntimeError, NotImplementedError, ValueError)):
        clone(clf).set_params(device="meta").fit(X, y)
    again = clone(clf).set_params(memory=False).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), before)


def test_a_failed_partial_fit_draws_no_numbers(pictures):
    X, y = pictures
    clfs = [tiny_classifier(max_epochs=1, random_state=3).fit(X, y) for _ in range(2)]
    with pytest.raises(ValueError):
        clfs[0].partial_fit(X, y[:-1])
    found = [clf.partial_fit(X, y).predict_proba(X) for clf in clfs]
    np.testing.assert_array_equal(*found)


class _Interrupts(Callback):
    def on_epoch_end(self, net, **_):
        raise KeyboardInterrupt


def test_an_interrupted_partial_fit_leaves_the_optimizer_as_it_was(pictures):
    X, y = pictures
    clfs = [tiny_classifier(max_epochs=1, random_state=3).fit(X, y) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        clfs[0].set_params(callbacks=[_Interrupts()]).partial_fit(X, y)
    clfs[0].set_params(callbacks=None)
    found = [clf.partial_fit(X, y).predict_proba(X) for clf in clfs]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"net_params": {"optimizer__weight_decay": 0.5}}),
        ({"net_params": {"optimizer__weight_decay": 0.5}}, {"net_params": None}),
        ({"verbose": 1}, {"verbose": 0}),
        ({"optimizer": torch.optim.SGD}, {"optimizer": torch.optim.Adam}),
    ],
    ids=str,
)
def test_partial_fit_trains_with_the_present_parameters(before, after, pictures):
    """As a classifier that has had them all along."""
    X, y = pictures
    clf = tiny_classifier(max_epochs=1, random_state=0, **before).fit(X, y)
    clf.set_params(**after).partial_fit(X, y)
    params = clf.net_.get_params()
    wanted = tiny_classifier(max_epochs=1, random_state=0, **after).fit(X, y).net_
    assert params["optimizer"] is wanted.get_params()["optimizer"]
    assert params["verbose"] == wanted.get_params()["verbose"]
    assert [n for n, _ in clf.net_.callbacks_] == [n for n, _ in wanted.callbacks_]
    decays = [group["weight_decay"] for group in clf.net_.optimizer_.param_groups]
    assert decays == [g["weight_decay"] for g in wanted.optimizer_.param_groups]
    assert len(clf.net_.history) == 2


def test_a_callable_is_called_once_before_fit(pictures):
    X, _ = pictures
    calls = []

    def build():
        calls.append(1)
        return TinyCNN()

    clf = CNNClassifier(build, weights=None, image_size=32, max_epochs=1)
    TypiClust(random_state=0).query(clf, X, 3)
    UncertaintyHerding(random_state=0).query(clf, X, 3)
    clf.embed(X, -2)
    assert len(calls) == 1
    clf.set_params(image_size=40).embed(X, -2)
    assert len(calls) == 2
