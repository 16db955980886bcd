"""Finish a campaign: train what cross-validation says is best for its labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._utils.intervals import wilson_interval
from ..._utils.processes import progress_bar

if TYPE_CHECKING:
    from .state import State
    from .trainer import Trainer

_N_LABELS = 200
"""With 100 and 160 most that folds preferred were worse; docs/campaign.md."""
_FOLDS = 3
_OWN = "the campaign's model"


@dataclass(frozen=True)
class FinishResult:
    """What :meth:`skadma.Campaign.finish` exported, and why; ``print`` shows it.

    Attributes
    ----------
    path : Path
        The model's folder.
    chosen : str
        "the campaign's model", or the other network and how it is trained.
    reason : str
        Why.
    n_labels : int
        Labels that were predicted by cross-validation; 0 if nothing was compared.
    scores : dict of str to (float, float)
        Accuracy and log loss by cross-validation, of both.
    """

    path: Path
    chosen: str
    reason: str
    n_labels: int
    scores: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        chosen = "they were chosen, mostly for being hard"
        lines = [f"By {self.n_labels} labels, each predicted without it ({chosen}):"]
        for name, (accuracy, loss) in self.scores.items():
            low, high = wilson_interval(accuracy, self.n_labels, 0.95)
            share = f"{accuracy:.1%} of the time ({low:.1%} to {high:.1%})"
            lines.append(f"  {name}: right {share}, log loss {loss:.2f}")
        lines = lines if self.scores else []
        return "\n".join([*lines, self.reason, f"Taken: {self.chosen}."])


def compare(
    trainer: Trainer, state: State, path: Path, minutes: float | None, verbose: bool
) -> tuple[Any, Any, FinishResult]:
    """Compare the campaign's way of training with the other one.

    Returns the other's model, trained with all labels, or None where the campaign's is
    to be taken; and out-of-fold probabilities of what was taken, if there are any.
    """
    from skorch.callbacks import Callback

    from ...evaluation import out_of_fold_proba

    begin, limit = perf_counter(), math.inf if minutes is None else 60 * minutes
    images, labels = zip(*state.labelled(), strict=True)
    counts = [count for count in Counter(labels).values() if count >= 2]
    n = sum(counts)
    try:
        if state.class_names.several:
            raise ValueError("an image may have several labels here")
        if trainer.is_of_table:
            raise ValueError("a table of embeddings has no network to fine-tune")
        if len(counts) < 2:
            raise ValueError("it takes two classes with two labels each, or more")
        if n < _N_LABELS:
            raise ValueError(f"{n} labels count, and it takes {_N_LABELS} of them")
        ways = own, other = trainer.ways(state)
        tuned = other if own.training == "probe" else own
        name = str(getattr(other.backbone, "__name__", other.backbone))
        name += ", fine-tuned" if tuned is other else ", a linear probe"
        files, y = trainer.files(images, state), np.array(labels)
        for way in (other, tuned):  # the first time takes longer
            once, epoch = measure_seconds(way, files, y)
        n_last = len(y) if tuned is other else 0
        n_images = tuned.max_epochs * ((_FOLDS - 1) * n + n_last)
        seconds = len(y) * (once + epoch) + n_images * epoch
        about = f"{seconds:.0f} seconds"
        if seconds > 90:
            about = f"{seconds / 60:.0f} minutes"
        last = f", one with all {n_last} labels" if n_last else ""
        about += f" ({_FOLDS} trainings to compare{last})"
        if perf_counter() - begin + seconds > limit:
            raise TimeoutError(f"it takes about {about}, and minutes={minutes:g}")
        if verbose:
            print(f"Comparing {_OWN} with {name}: about {about}.", flush=True)
        shown: Any = {"unit": " images", "disable": not verbose}
        with progress_bar(total=n_images, desc="training", **shown) as bar:

            class Watch(Callback):
                def on_epoch_end(self, net: Any, dataset_train: Any, **_: Any) -> None:
                    bar.update(len(dataset_train))
                    if perf_counter() - begin > limit:
                        raise TimeoutError(f"the {minutes:g} minutes were over")

            found = [
                out_of_fold_proba(
                    way.set_params(callbacks=[Watch()]), files, y,
                    classes=state.classes, n_folds=_FOLDS,
                )
                for way in ways
            ]  # fmt: skip
            known = ~np.isnan(found).any(axis=(0, 2))
            if known.sum() < n:
                raise ValueError("a model's probabilities are no numbers")
            given = np.searchsorted(sorted(state.classes), y[known])
            is_better, reason, scores = prefer(found[0][known], found[1][known], given)
            if is_better:
                other.fit(files, y)
            bar.total = bar.n  # nothing more is trained
        trainer.check_unchanged(images, state)
    except (OSError, ValueError) as error:
        reason = f"Nothing was compared: {str(error).rstrip('.')}."
        return None, None, FinishResult(path, _OWN, reason, 0, {})
    names, model = (_OWN, name), other.set_params(callbacks=None)
    by_name = dict(zip(names, scores, strict=True))
    result = FinishResult(path, names[is_better], reason, len(given), by_name)
    return model if is_better else None, found[is_better], result


def prefer(
    own: np.ndarray, other: np.ndarray, y: np.ndarray
) -> tuple[bool, str, list[tuple[float, float]]]:
    """Whether other probabilities are better than one's own; why; scores of both.

    Better by more than the standard error of the mean difference, in accuracy or, where
    both have the same, in log loss.
    """
    rows, ways = np.arange(len(y)), (own, other)
    right = np.array([proba.argmax(axis=1) == y for proba in ways], dtype=float)
    loss = -np.log([np.maximum(proba[rows, y], 1e-7) for proba in ways])
    gain = 100 * (right[1] - right[0])
    text, words = "The second is right {:.1f} points {} often", ("less", "more")
    if gain.sum() == 0:
        gain, words = loss[0] - loss[1], ("higher", "lower")
        text = "Both are right equally often; the second's log loss is {:.2f} {}"
    mean, error = gain.mean(), gain.std(ddof=1) / math.sqrt(len(gain))
    text = text.format(abs(mean), words[int(mean > 0)])
    text += f" (standard error {error:.2g}); it is taken where it is better by more."
    # Both numbers are the same where the two differ by a single image.
    is_better = bool(mean > error * (1 + 1e-9))
    scores = zip(right.mean(axis=1), loss.mean(axis=1), strict=True)
    return is_better, text, [(float(a), float(b)) for a, b in scores]


def measure_seconds(
    estimator: Any, files: Sequence[str], y: np.ndarray
) -> tuple[float, float]:
    """Seconds for an image: of the frozen layers, once, and of training, an epoch."""
    from sklearn.base import clone

    n = min(len(files), 4 * estimator.batch_size)
    some, seconds = np.linspace(0, len(files) - 1, n).astype(int), []
    for n_epochs in (0, 1):
        begin = perf_counter()
        model = clone(estimator).set_params(max_epochs=n_epochs)
        model.fit([files[i] for i in some], y[some])
        seconds.append((perf_counter() - begin) / n)
    return seconds[0], seconds[1]
