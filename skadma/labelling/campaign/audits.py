"""Audits: measure a campaign's model by labels that are never trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import evaluation
from .event_log import CampaignError, EventLog
from .record_labels import (
    ResolvedRow,
    TeachResult,
    add_answers,
    read_rows,
    record_labels,
)
from .state import (
    DrawnAudit,
    Proposal,
    State,
    propose,
    read_state,
    refresh,
    refresh_if_there,
)

if TYPE_CHECKING:
    from ...evaluation import Audit, Estimate
    from .trainer import Trainer


class Audits:
    """The audits of a campaign; see ``Campaign.audits``.

    Images that an audit drew are neither queried nor trained with, answered or not,
    until they are released. Every draw and every answer is in the campaign's log.
    """

    def __init__(self, log: EventLog, trainer: Callable[[], Trainer]) -> None:
        self._log = log
        self._trainer = trainer

    def draw(self, n: int, *, method: str = "stratified") -> list[Proposal]:
        """Draw `n` images to label, of all that nothing was decided about.

        A further draw adds to the ones before. `method` is that of
        :func:`skadma.evaluation.audit_sample`; all but "random" need a model. Returns
        the images in the order of the draw, without guesses: who sees them agrees too
        often. Raises CampaignError if there are not that many, or no model yet.
        """
        with self._log.locked("audit"):
            refresh(self._log)
            state = read_state(self._log)
            state.class_names.refuse_several("A test of the model")
            images = state.undecided()
            if not 1 <= n <= len(images):
                raise CampaignError(
                    f"{n} images cannot be drawn: there are {len(images)} that nothing "
                    "was decided about and that are in no audit."
                )
            key = self._trainer().model_key(state)
            estimator = self._trainer().model(state)
            if key is None and method != "random":
                raise CampaignError(
                    f"There is no model to draw {method!r} by. Give the first labels, "
                    "or draw at random (--method random)."
                )
            if key is None:
                proba = np.full((len(images), 2), 0.5)
            else:
                proba = estimator.predict_proba(self._trainer().inputs(images, state))
            # Another draw of the same campaign draws others, the same again the same.
            last = max((audit.event for audit in state.audits), default=0)
            seed = np.random.RandomState([self._trainer().seed, last])
            audit = evaluation.audit_sample(proba, n, method=method, random_state=seed)
            chosen = [images[i] for i in audit.indices]
            with self._log.transaction():
                if not set(chosen) <= set(read_state(self._log).undecided()):
                    raise CampaignError(
                        "Somebody labelled what was being drawn; nothing was changed. "
                        "Draw again."
                    )
                event = self._log.add_event(
                    "audit",
                    method=method,
                    n=len(chosen),
                    population=len(images),
                    model=key,
                )
                columns = audit.strata, audit.stratum_sizes
                design = zip(chosen, *(c.tolist() for c in columns), strict=True)
                self._log.add(
                    "draws",
                    (
                        (event, place, image, state.contents[image].sha256, *row)
                        for place, (image, *row) in enumerate(design)
                    ),
                )
        return [propose(state, image) for image in chosen]

    def pending(self) -> list[Proposal]:
        """List drawn images that have no answer, or were skipped, in order."""
        state = read_state(self._log)
        answers = state.audit_answers
        return [
            propose(state, image)
            for sha256, image in _usable_draws(state).items()
            if (known := answers.get(sha256)) is None or known.kind == "skip"
        ]

    def answer(
        self, labels: Mapping[str, str] | str | Path, *, partial: bool = False
    ) -> TeachResult:
        """Take labels of drawn images. The last one of an image counts.

        The parameters are those of :meth:`skadma.Campaign.teach`. The estimate is about
        the images that have a class: "?cant-tell" and "?not-an-image" are left out.
        """
        given = read_rows(labels)
        refresh(self._log)
        with self._log.transaction():
            return record_labels(self._log, given, partial=partial, kind="answer")

    def has_labels(self) -> bool:
        """Whether a drawn image has a class: :meth:`estimate` needs one."""
        return bool(_true_classes(read_state(self._log)))

    def estimate(self, *, confidence: float = 0.95, model: Any = None) -> Estimate:
        """Estimate how good the present model is, from all that was answered.

        Or, in its place, a fitted `model` of the present labels.

        About the images that had no label when the audit was drawn. If the model was
        trained with some of them since, it is about images like them. `confidence` is
        that of the intervals. Raises CampaignError if there is no audit, no answer or
        no model yet.
        """
        with self._log.locked("evaluation"):
            refresh_if_there(self._log)
            state = read_state(self._log)
            state.class_names.refuse_several("A test of the model")
            if not state.audits:
                raise CampaignError(
                    "Nothing was drawn yet to measure the model with: 'skadma evaluate "
                    "--draw 50 -o audit.csv' draws."
                )
            usable = _usable_draws(state)
            truth = _true_classes(state)
            if not truth:
                raise CampaignError(
                    f"None of the {len(usable)} drawn images has a label yet. Fill in "
                    "the file and give it to 'skadma evaluate'; with -o FILE alone it "
                    "is written again."
                )
            key = self._trainer().model_key(state)
            if key is None:
                raise CampaignError("There is no model to measure: teach labels first.")
            estimator = model or self._trainer().model(state)
            X = self._trainer().inputs([usable[sha256] for sha256 in truth], state)
            guesses = dict(zip(truth, estimator.predict(X).tolist(), strict=True))
        drawn = [sha256 for audit in state.audits for sha256 in audit.contents]
        classes = state.classes
        return evaluation.estimate(
            [*map(sampling_design, state.audits)],
            [guesses.get(sha256, classes[0]) for sha256 in drawn],
            np.array([truth.get(sha256) for sha256 in drawn], dtype=object),
            classes=classes,
            confidence=confidence,
            finite=all(audit.model == key for audit in state.audits),
        )

    def release(self) -> TeachResult:
        """End all audits: their answers become labels, and the next query trains.

        No estimate can be made with them any more. :meth:`skadma.Campaign.undo` takes
        the release back.
        """
        with self._log.transaction():
            state = read_state(self._log)
            if not state.audits:
                raise CampaignError("There is no audit to release.")
            answers = state.audit_answers
            answered = [
                ResolvedRow(known.image, sha256, known.mark, known.who)
                for sha256 in state.drawn()
                if (known := answers.get(sha256))
            ]
            events = [audit.event for audit in state.audits]
            n = len(answered)
            event = self._log.add_event("release", audits=events, n=n)
            add_answers(self._log, "teach", "audit", answered, event)
        return TeachResult(len(answered), 0, 0, [])


def sampling_design(drawn: DrawnAudit) -> Audit:
    """Make the sampling design of drawn contents, whose places are its indices."""
    strata = np.array(drawn.strata), np.array(drawn.stratum_sizes)
    how = drawn.method, drawn.n_population
    return evaluation.Audit(np.arange(len(drawn.contents)), *how, *strata)


def _usable_draws(state: State) -> dict[str, int]:
    """Drawn contents whose file is there, with its image, in the order of the draw."""
    usable = state.usable()
    return {sha256: usable[sha256] for sha256 in state.drawn() if sha256 in usable}


def _true_classes(state: State) -> dict[str, str]:
    """Classes of the drawn contents that were given one."""
    answers = state.audit_answers
    return {
        sha256: known.label
        for sha256 in _usable_draws(state)
        if (known := answers.get(sha256)) and known.label is not None
    }
