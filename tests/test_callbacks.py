"""scikit-learn's callbacks around a learner's rounds."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skadma import ActiveLearner
from skadma.strategies import MarginSampling, RandomSampling

callback = pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")


class Recorder:
    """Keeps what it is told, and stops after some rounds."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.told = []

    def setup(self, estimator, context):
        self.told.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.told.append(("end", context.task_name, context.task_id))
        return context.task_name == "round" and context.task_id + 1 == self.stop_after

    def teardown(self, estimator, context):
        self.told.append("teardown")


@pytest.fixture
def rows(pictures):
    X, y = pictures
    return X.reshape(len(X), -1) / 255, y


def learner(**params):
    defaults = {"n_rounds": 3, "n_instances": 4, "random_state": 0}
    return ActiveLearner(
        LogisticRegression(), MarginSampling(), **{**defaults, **params}
    )


def rounds_of(told):
    return [event for event in told if event[1] == "round"]


def test_each_round_is_a_task(rows):
    seen = Recorder()
    learner().set_callbacks(seen).fit(*rows)
    assert seen.told[:2] == ["setup", ("begin", "fit", 0)]
    assert seen.told[-2:] == [("end", "fit", 0), "teardown"]
    expected = [(what, "round", i) for i in range(3) for what in ("begin", "end")]
    assert rounds_of(seen.told) == expected


def test_a_callback_stops_the_run(rows):
    stopped = learner().set_callbacks(Recorder(stop_after=2)).fit(*rows)
    assert len(stopped.history_) == 2
    assert stopped.score(*rows) > 0


def test_the_result_is_that_of_a_run_without(rows):
    plain, told = learner().fit(*rows), learner().set_callbacks(Recorder()).fit(*rows)
    assert [list(i) for i in plain.queried_indices_] == [
        list(i) for i in told.queried_indices_
    ]


def test_a_used_up_pool_and_labels_by_hand(rows):
    seen = Recorder()
    used_up = learner(n_rounds=None).set_callbacks(seen).fit(*rows)
    assert used_up.labeled_.all()
    assert len([e for e in rounds_of(seen.told) if e[0] == "end"]) == 7
    by_hand = Recorder()
    learner().set_callbacks(by_hand).fit(rows[0], [None] * 24)
    assert by_hand.told[-1] == "teardown"


def test_teardown_after_an_error(rows):
    seen = Recorder()
    with pytest.raises(ValueError, match="24 images, y 5 entries"):
        learner().set_callbacks(seen).fit(rows[0], rows[1][:5])
    assert seen.told[-1] == "teardown"


def test_scoring_monitor_has_the_learning_curve(rows):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    fitted = ActiveLearner(
        LogisticRegression(),
        RandomSampling(),
        n_rounds=3,
        n_instances=6,
        random_state=0,
    )
    fitted.set_callbacks(monitor).fit(*rows)
    table = monitor.get_logs().data
    scores = [row["accuracy"] for row in table if row["task_name"] == "round"]
    assert len(scores) == 3
    assert scores[-1] == fitted.score(*rows)


def test_within_a_grid_search(rows):
    seen = Recorder()
    search = GridSearchCV(learner().set_callbacks(seen), {"n_instances": [3, 4]}, cv=2)
    search.fit(*rows)
    assert len(rounds_of(seen.told)) == 2 * 3 * (2 * 2 + 1)
