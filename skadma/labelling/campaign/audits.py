"""How good a campaign's model is, by labels that are kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...evaluation import Audit, Estimate, audit_sample, estimate
from .decide import Said, Taught, decide
from .event_log import CampaignError
from .labels_csv import LabelFileError
from .lock import locked
from .record import add_changes, add_said, read_rows
from .state import State, read_state
from .trainer import Proposal, unguessed

if TYPE_CHECKING:
    from ...classifier import CNNClassifier
    from .modelling import CampaignModelling


class Audits:
    """The audits of a campaign; see :attr:`Campaign.audits`.

    What they drew is neither queried nor trained with, answered or not, until it is
    released. Every draw and every answer is in the campaign's log.

    Parameters
    ----------
    campaign : CampaignModelling
    """

    def __init__(self, campaign: CampaignModelling) -> None:
        self._campaign = campaign
        self._store = campaign._store
        self._trainer = campaign._trainer

    def draw(self, n: int, *, method: str = "stratified") -> list[Proposal]:
        """Draw images to label, of all that nothing was decided about.

        A further draw adds to the ones before.

        Parameters
        ----------
        n : int
        method : {"stratified", "random", "importance"}, default="stratified"
            See :func:`skadma.evaluation.audit_sample`. All but "random" need a model.

        Returns
        -------
        list of Proposal
            In the order of the draw. Without guesses: who sees them agrees too often.

        Raises
        ------
        CampaignError
            If there are not that many images, or no model yet.
        """
        with locked(self._campaign.folder, self._campaign._wait, "audit"):
            self._campaign.refresh()
            state = self._state()
            images = _population(state)
            if not 1 <= n <= len(images):
                raise CampaignError(
                    f"{n} images cannot be drawn: there are {len(images)} that nothing "
                    "was decided about and that are in no audit."
                )
            key, estimator = self._model(state)
            if key is None and method != "random":
                raise CampaignError(
                    f"There is no model to draw {method!r} by. Teach the first labels, "
                    "or draw with method='random' (--method random)."
                )
            if key is None:
                proba = np.full((len(images), 2), 0.5)
            else:
                proba = estimator.predict_proba(self._trainer.files(images, state))
            # Another draw of the same campaign draws others, the same again the same.
            last = max((audit.event for audit in state.audits), default=0)
            seed = np.random.RandomState([self._trainer.seed, last])
            audit = audit_sample(proba, n, method=method, random_state=seed)
            chosen = [images[i] for i in audit.indices]
            with self._store.transaction():
                if not set(chosen) <= set(_population(self._state())):
                    raise CampaignError(
                        "Somebody labelled what was being drawn; nothing was changed. "
                        "Draw again."
                    )
                self._write(audit, chosen, key, state)
        return unguessed(state, chosen)

    def answer(
        self, labels: Mapping[str, str] | str | Path, *, partial: bool = False
    ) -> Taught:
        """Take labels of drawn images. The last one of an image counts.

        Parameters
        ----------
        labels : mapping of str to str, or path
            As :meth:`Campaign.teach` takes them. The estimate is about the images that
            have a class: "?cant-tell" and "?not-an-image" are left out of it.
        partial : bool, default=False
            Leave out the rows that cannot be taken instead of refusing all.

        Returns
        -------
        Taught

        Raises
        ------
        LabelFileError
            If a row cannot be taken, as when the image is in no audit. Nothing is
            changed then.
        """
        name, rows, at_once = read_rows(labels, self._campaign.former_classes())
        self._campaign.refresh()
        with self._store.transaction():
            state = self._state()
            said, refused = decide(
                rows,
                state,
                self._campaign._places,
                at_once=at_once,
                audit=True,
            )
            if refused and not partial:
                raise LabelFileError(name, refused, len(rows))
            counts, _ = add_changes(self._store, "answer", name, said, state.answers)
        return Taught(*counts, refused)

    def pending(self) -> list[Proposal]:
        """List drawn images that have no answer, or were skipped.

        Returns
        -------
        list of Proposal
            In the order of the draw.
        """
        with self._store.reading():
            state = self._state()
        open_ = [
            image
            for sha256, image in self._here(state).items()
            if (known := state.answers.get(sha256)) is None or known.kind == "skip"
        ]
        return unguessed(state, open_)

    def has_labels(self) -> bool:
        """Whether a drawn image has a class: :meth:`estimate` needs one.

        Returns
        -------
        bool
        """
        with self._store.reading():
            return bool(self._truth(self._state()))

    def estimate(self, *, confidence: float = 0.95) -> Estimate:
        """Estimate how good the present model is, from all that was answered.

        About the images that had no label when the audit was drawn. If the model was
        trained with some of them since, it is about images like them.

        Parameters
        ----------
        confidence : float, default=0.95
            Of the intervals.

        Returns
        -------
        Estimate
            ``print`` shows it.

        Raises
        ------
        CampaignError
            If there is no audit, no answer or no model yet.
        """
        with locked(self._campaign.folder, self._campaign._wait, "evaluation"):
            self._campaign.refresh_if_there()
            state = self._state()
            if not state.audits:
                raise CampaignError(
                    "Nothing was drawn yet to measure the model with: 'skadma evaluate "
                    "--draw 50 -o audit.csv' draws, or Campaign.audits.draw(50)."
                )
            here = self._here(state)
            truth = self._truth(state)
            if not truth:
                raise CampaignError(
                    f"None of the {len(here)} drawn images has a label yet. Fill in "
                    "the file and give it to 'skadma evaluate'; with -o FILE alone it "
                    "is written again."
                )
            key, estimator = self._model(state)
            if key is None:
                raise CampaignError("There is no model to measure: teach labels first.")
            files = self._trainer.files([here[sha256] for sha256 in truth], state)
            guess = dict(zip(truth, estimator.predict(files).tolist(), strict=True))
        drawn = [sha256 for audit in state.audits for sha256 in audit.contents]
        classes = state.classes
        return estimate(
            [audit.design for audit in state.audits],
            [guess.get(sha256, classes[0]) for sha256 in drawn],
            np.array([truth.get(sha256) for sha256 in drawn], dtype=object),
            classes=classes,
            confidence=confidence,
            finite=all(audit.model == key for audit in state.audits),
        )

    def release(self, *, train: bool = True) -> Taught:
        """End all audits: their answers become labels to train with.

        No estimate can be made with them any more.

        Parameters
        ----------
        train : bool, default=True
            False leaves training to the next query.

        Returns
        -------
        Taught

        Raises
        ------
        CampaignError
            If there is no audit.
        """
        with self._store.transaction():
            state = self._state()
            if not state.audits:
                raise CampaignError("There is no audit to release.")
            who = dict(self._store.rows("SELECT id, who FROM events"))
            said = [
                Said(known.image, sha256, known.mark, who[known.event])
                for sha256 in state.drawn()
                if (known := state.answers.get(sha256))
            ]
            events = [audit.event for audit in state.audits]
            self._store.add_event("release", audits=events)
            add_said(self._store, "teach", "audit", said)
        if train:
            self._campaign.estimator()
        return Taught(len(said), 0, 0, [])

    def _state(self) -> State:
        return read_state(self._store)

    def _model(self, state: State) -> tuple[str | None, CNNClassifier]:
        keys = self._trainer.model_keys(state)
        return (keys[-1] if keys else None), self._trainer.model(state)

    def _here(self, state: State) -> dict[str, int]:
        """Drawn contents whose file is there, in the order of the draw."""
        usable = state.usable()
        return {sha256: usable[sha256] for sha256 in state.drawn() if sha256 in usable}

    def _truth(self, state: State) -> dict[str, str]:
        """Classes of the drawn contents that were given one."""
        return {
            sha256: known.label
            for sha256 in self._here(state)
            if (known := state.answers.get(sha256)) and known.label is not None
        }

    def _write(
        self, audit: Audit, images: list[int], key: str | None, state: State
    ) -> None:
        event = self._store.add_event(
            "audit",
            method=audit.method,
            n=len(audit),
            population=audit.n_population,
            model=key,
        )
        columns = zip(
            audit.strata.tolist(),
            audit.stratum_sizes.tolist(),
            audit.probabilities.tolist(),
            strict=True,
        )
        self._store.add(
            "draws",
            (
                (event, place, image, state.contents[image].sha256, *design)
                for place, (image, design) in enumerate(
                    zip(images, columns, strict=True)
                )
            ),
        )


def _population(state: State) -> list[int]:
    """Images that nothing was decided about and that are in no audit, by path."""
    drawn = state.drawn()
    return [
        image
        for sha256, image in state.usable().items()
        if sha256 not in drawn
        and ((known := state.decisions.get(sha256)) is None or known.kind == "skip")
    ]
