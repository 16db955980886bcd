"""Audits: measure a campaign's model by labels that are never trained with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._utils.tables import write_table
from ...classifier import CNNClassifier
from ...evaluation import METHODS, Audit, Estimate, audit_sample, estimate
from .event_log import CampaignError, EventLog
from .folders import FolderPaths
from .image_index import readable_contents
from .labels_csv import MARKS, LabelFileError, LabelRow, read_labels
from .record_labels import (
    ResolvedRow,
    TeachResult,
    add_answers,
    add_changes,
    in_present_names,
    read_rows,
    resolve_rows,
)
from .state import State, read_state, refresh, refresh_if_there
from .trainer import Proposal, Trainer, blind_proposals

_DESIGN = ("draw", "of", "method", "population", "stratum", "stratum_size")
"""Columns of the file of an audit on another folder."""


class Audits:
    """The audits of a campaign; see ``Campaign.audits``.

    Images that an audit drew are neither queried nor trained with, answered or not,
    until they are released. Every draw and every answer is in the campaign's log.
    """

    def __init__(self, log: EventLog, folders: FolderPaths, trainer: Trainer) -> None:
        self._log = log
        self._folders = folders
        self._trainer = trainer

    def draw(self, n: int, *, method: str = "stratified") -> list[Proposal]:
        """Draw images to label, of all that nothing was decided about.

        A further draw adds to the ones before.

        Parameters
        ----------
        n : int
        method : {"stratified", "random"}, default="stratified"
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
        with self._log.locked("audit"):
            refresh(self._log, self._folders)
            state = read_state(self._log)
            images = state.undecided()
            if not 1 <= n <= len(images):
                raise CampaignError(
                    f"{n} images cannot be drawn: there are {len(images)} that nothing "
                    "was decided about and that are in no audit."
                )
            key = self._trainer.model_key(state)
            estimator = self._trainer.model(state)
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
                self._log.add(
                    "draws",
                    (
                        (event, place, image, state.contents[image].sha256, *design)
                        for place, (image, *design) in enumerate(
                            _design_rows(chosen, audit)
                        )
                    ),
                )
        return blind_proposals(state, chosen)

    def pending(self) -> list[Proposal]:
        """List drawn images that have no answer, or were skipped.

        Returns
        -------
        list of Proposal
            In the order of the draw.
        """
        state = read_state(self._log)
        open_ = [
            image
            for sha256, image in _usable_draws(state).items()
            if (known := state.audit_answers.get(sha256)) is None
            or known.kind == "skip"
        ]
        return blind_proposals(state, open_)

    def answer(
        self, labels: Mapping[str, str] | str | Path, *, partial: bool = False
    ) -> TeachResult:
        """Take labels of drawn images. The last one of an image counts.

        Parameters
        ----------
        labels : mapping of str to str, or path
            As :meth:`skadma.Campaign.teach` takes them. The estimate is about the
            images that have a class: "?cant-tell" and "?not-an-image" are left out.
        partial : bool, default=False
            Leave out the rows that cannot be taken instead of refusing all.

        Returns
        -------
        TeachResult

        Raises
        ------
        LabelFileError
            If a row cannot be taken, as when the image is in no audit. Nothing is
            changed then.
        """
        name, rows, at_once = read_rows(labels)
        refresh(self._log, self._folders)
        with self._log.transaction():
            state = read_state(self._log)
            resolved, refused = resolve_rows(
                in_present_names(rows, state),
                state,
                self._folders,
                at_once=at_once,
                audit=True,
            )
            if refused and not partial:
                raise LabelFileError(name, refused, len(rows))
            counts, _ = add_changes(
                self._log, "answer", name, resolved, state.audit_answers
            )
        return TeachResult(*counts, refused)

    def has_labels(self) -> bool:
        """Whether a drawn image has a class: :meth:`estimate` needs one.

        Returns
        -------
        bool
        """
        return bool(_true_classes(read_state(self._log)))

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
        with self._log.locked("evaluation"):
            refresh_if_there(self._log, self._folders)
            state = read_state(self._log)
            if not state.audits:
                raise CampaignError(
                    "Nothing was drawn yet to measure the model with: 'skadma evaluate "
                    "--draw 50 -o audit.csv' draws, or Campaign.audits.draw(50)."
                )
            usable = _usable_draws(state)
            truth = _true_classes(state)
            if not truth:
                raise CampaignError(
                    f"None of the {len(usable)} drawn images has a label yet. Fill in "
                    "the file and give it to 'skadma evaluate'; with -o FILE alone it "
                    "is written again."
                )
            key = self._trainer.model_key(state)
            estimator = _fitted(self._trainer.model(state))
            files = self._trainer.files([usable[sha256] for sha256 in truth], state)
            guesses = dict(zip(truth, estimator.predict(files).tolist(), strict=True))
        drawn = [sha256 for audit in state.audits for sha256 in audit.contents]
        classes = state.classes
        return estimate(
            [audit.design for audit in state.audits],
            [guesses.get(sha256, classes[0]) for sha256 in drawn],
            np.array([truth.get(sha256) for sha256 in drawn], dtype=object),
            classes=classes,
            confidence=confidence,
            finite=all(audit.model == key for audit in state.audits),
        )

    def release(self, *, train: bool = True) -> TeachResult:
        """End all audits: their answers become labels to train with.

        No estimate can be made with them any more. :meth:`skadma.Campaign.undo` takes
        it back.

        Parameters
        ----------
        train : bool, default=True
            False leaves training to the next query.

        Returns
        -------
        TeachResult

        Raises
        ------
        CampaignError
            If there is no audit.
        """
        with self._log.transaction():
            state = read_state(self._log)
            if not state.audits:
                raise CampaignError("There is no audit to release.")
            who = dict(self._log.rows("SELECT id, who FROM events"))
            answered = [
                ResolvedRow(known.image, sha256, known.mark, who[known.event])
                for sha256 in state.drawn()
                if (known := state.audit_answers.get(sha256))
            ]
            events = [audit.event for audit in state.audits]
            n = len(answered)
            event = self._log.add_event("release", audits=events, n=n)
            add_answers(self._log, "teach", "audit", answered, event)
        if train:
            self._trainer.present_model()
        return TeachResult(len(answered), 0, 0, [])

    # --- on a folder of other images ----------------------------------------

    def draw_from_folder(
        self, folder: Path, n: int, out: Path, *, method: str = "stratified"
    ) -> None:
        """Draw images of another folder to label, and write them to a file.

        Images that the campaign has labels of are left out: the model was trained with
        them.

        Parameters
        ----------
        folder : Path
        n : int
        out : Path
            The label file. Its other columns are the sampling design.
        method : {"stratified", "random"}, default="stratified"
            See :func:`skadma.evaluation.audit_sample`.

        Raises
        ------
        CampaignError
            If there are not that many images, or no model yet.
        """
        state = read_state(self._log)
        contents = readable_contents(folder)
        images = {
            sha: path for sha, path in contents.items() if sha not in state.decisions
        }
        if not 1 <= n <= len(images):
            raise CampaignError(
                f"{n} images cannot be drawn from {str(folder)!r}: it has "
                f"{len(images)} different ones that the campaign has no label of."
            )
        estimator = _fitted(self._trainer.present_model()[1])
        proba = estimator.predict_proba([str(folder / p) for p in images.values()])
        audit = audit_sample(proba, n, method=method, random_state=self._trainer.seed)
        readable = list(images)
        chosen = [readable[i] for i in audit.indices]
        rows = _design_rows(chosen, audit)
        as_of = state.as_of
        write_table(
            out,
            ("path", "label", "sha256", *_DESIGN, "as_of"),
            (
                (images[sha], "", sha, place, n, method, len(images), *design, as_of)
                for place, (sha, *design) in enumerate(rows, 1)
            ),
        )

    def estimate_on_folder(
        self, folder: Path, labels: Path, *, confidence: float = 0.95
    ) -> Estimate:
        """Estimate how good the present model is on another folder.

        Parameters
        ----------
        folder : Path
        labels : Path
            The file that :meth:`draw_from_folder` wrote, filled in.
        confidence : float, default=0.95
            Of the intervals.

        Returns
        -------
        Estimate
            ``print`` shows it.

        Raises
        ------
        CampaignError
            If the file is not whole, or an image is not there any more.
        """
        state = read_state(self._log)
        rows = in_present_names(read_labels(labels, more=_DESIGN), state)
        classes = state.classes
        contents = readable_contents(folder)
        problems = [
            f"{row.where}: {row.problem}"
            if row.problem
            else f"{row.where}: {row.label!r} is none of the classes "
            f"{', '.join(classes)}, nor {', '.join(MARKS)}."
            for row in rows
            if row.problem or row.label not in {*classes, *MARKS, ""}
        ]
        problems += [
            f"{row.where}: {row.path!r} is not in the folder any more, or another "
            "picture."
            for row in rows
            if row.sha256 not in contents and not row.problem
        ]
        if problems:
            raise LabelFileError(str(labels), problems, len(rows), partial=False)
        audit, rows = _read_design(labels, rows)
        truth = [row.label if row.label in classes else None for row in rows]
        estimator = _fitted(self._trainer.present_model()[1])
        guesses = estimator.predict([str(folder / contents[r.sha256]) for r in rows])
        return estimate(
            audit,
            guesses,
            np.array(truth, dtype=object),
            classes=classes,
            confidence=confidence,
        )


def _design_rows(drawn: list[Any], audit: Audit) -> Iterator[tuple[Any, int, int]]:
    """Each drawn image with its stratum and the size of that."""
    return zip(drawn, audit.strata.tolist(), audit.stratum_sizes.tolist(), strict=True)


def _usable_draws(state: State) -> dict[str, int]:
    """Drawn contents whose file is there, with its image, in the order of the draw."""
    usable = state.usable()
    return {sha256: usable[sha256] for sha256 in state.drawn() if sha256 in usable}


def _true_classes(state: State) -> dict[str, str]:
    """Classes of the drawn contents that were given one."""
    return {
        sha256: known.label
        for sha256 in _usable_draws(state)
        if (known := state.audit_answers.get(sha256)) and known.label is not None
    }


def _fitted(estimator: CNNClassifier) -> CNNClassifier:
    if not hasattr(estimator, "net_"):
        raise CampaignError("There is no model to measure: teach labels first.")
    return estimator


def _read_design(name: Path, rows: list[LabelRow]) -> tuple[Audit, list[LabelRow]]:
    """Read the audit from the file's columns, and put its rows in order."""
    try:
        columns = list(zip(*(row.more for row in rows), strict=True))
        places, of = (list(map(int, column)) for column in columns[:2])
        methods = set(columns[2])
        (population,) = set(map(int, columns[3]))
        if sorted(places) != list(range(1, len(rows) + 1)) or set(of) != {len(rows)}:
            raise ValueError("rows are missing or twice there")
        if len(methods) != 1 or not methods <= set(METHODS):
            raise ValueError(f"methods {sorted(methods)}")
        strata, sizes = (np.array(list(map(int, c))) for c in columns[4:6])
        if not (
            np.all((sizes >= 1) & (sizes <= population)) and len(rows) <= population
        ):
            raise ValueError("sizes that cannot be")
    except ValueError as error:
        raise CampaignError(
            f"{str(name)!r} is not the whole audit that 'skadma evaluate --images' "
            f"wrote ({error}). Fill in the column 'label', and leave all other columns "
            "and rows as they were."
        ) from error
    order = np.argsort(places)
    audit = Audit(
        np.arange(len(rows)),
        methods.pop(),
        population,
        strata[order],
        sizes[order],
    )
    return audit, [rows[i] for i in order]
