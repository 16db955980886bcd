"""scikit-learn's callbacks, where the installed release has them.

They came with scikit-learn 1.9 and are experimental: they may change without the usual
deprecation. With older releases a learner has no ``set_callbacks``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing, with an older scikit-learn."""

    def with_callbacks(method: Any) -> Any:
        """Return a method as it is."""
        return method


def report_rounds(learner: Any, rounds: Iterator[Any], X: Any, y: Any) -> None:
    """Run all rounds of a learner's ``fit`` and tell its callbacks of each.

    Parameters
    ----------
    learner : ActiveLearner
    rounds : iterator
        Runs a round each time it is asked for the next item.
    X, y
        What ``fit`` got. Callbacks that score, such as scikit-learn's ScoringMonitor,
        are given these, so they score on the pool.
    """
    if not AVAILABLE:
        for _ in rounds:
            pass
        return
    whole = learner._init_callback_context(max_subtasks=learner.n_rounds)
    whole.call_on_fit_task_begin(estimator=learner, X=X, y=y)
    for number in count():
        if number == learner.n_rounds:
            next(rounds, None)  # nothing is left but the end
            break
        one = whole.subcontext(task_name="round")
        one.call_on_fit_task_begin(estimator=learner, X=X, y=y)
        ended = next(rounds, None) is None
        state = None if ended else _fitted(learner)
        stop = one.call_on_fit_task_end(
            estimator=learner, X=X, y=y, reconstruction_attributes=state
        )
        if ended or stop:
            break
    whole.call_on_fit_task_end(estimator=learner, X=X, y=y)


def _fitted(learner: Any) -> dict[str, Any] | None:
    """Return what makes a copy able to predict; None before it can."""
    if not learner._can_predict():
        return None
    return {
        name: value
        for name, value in vars(learner).items()
        if name.endswith("_") and not name.startswith("_")
    }
