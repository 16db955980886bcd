"""Campaign: labels, decisions and models of a task, in one folder."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._utils.atomic import remove_leftovers, sync_folder, write_atomically
from ..._utils.intervals import wilson_interval
from ...features.table import EmbeddingTable, read_table
from .agreement import Agreement, choose_repeats, measure_agreement
from .audits import Audits
from .class_names import check_classes, read_class_names
from .consensus import CampaignConsensus
from .embeddings import (
    is_of_table,
    read_embeddings,
    rows_by_content,
    with_rows,
    without_rows,
    write_embeddings,
)
from .event_log import DATABASE, CampaignError, EventLog, campaign_lock, refuse_existing
from .folders import absolute, check_name, check_outside, read_folders
from .history import list_decisions, list_events
from .image_index import add_contents, scan_new_folder
from .labels_csv import LabelRow
from .ledger import Ledger
from .record_labels import (
    ResolvedRow,
    TeachResult,
    add_answers,
    find_image,
    read_rows,
    record_labels,
)
from .second_look import SuspectLabel, list_cant_tell, look_again
from .state import (
    Decision,
    Proposal,
    State,
    known_contents,
    propose,
    read_state,
    refresh,
    refresh_if_there,
)
from .status import QUALITY, Status, make_status
from .stored_settings import DEFAULT_ESTIMATOR, DEFAULT_STRATEGY, check_settings

if TYPE_CHECKING:
    from torch import nn

    from ...classifier import CNNClassifier
    from ...evaluation import Share
    from ...strategies import QueryStrategy
    from ...training.probe_classifier import ProbeClassifier
    from .finish import FinishResult
    from .trainer import Trainer

_AT_ONCE = 0.5
"""Seconds in which images are read before a page is shown."""
_logger = logging.getLogger(__name__)


class Campaign:
    """Label a folder of images over days, and lose nothing.

    Make one with :meth:`create`, go on with :meth:`open`. Everything that was decided
    is in one SQLite file to which rows are only ever added; models are functions of it.
    Each method's changes are on the disk when it returns, or none of them is.

    Use it in a ``with`` statement, or ``close`` it.

    Parameters
    ----------
    folder : str or Path
        Where the campaign is kept.
    pool : str or Path, optional
        Where the images are, if they moved.
    pools : mapping of str to str or Path, optional
        Where those of pools are that were added, by name, if they moved.
    backbone : callable, optional
        The network, for a campaign that was started with a callable one.
    who : str, optional
        Name for the log; the system's user if None.
    wait : float, default=60
        Seconds to wait for another process that works on the campaign.

    Attributes
    ----------
    folder : Path
    pool : Path
        The first; ``pools`` has all.
    who : str
        Whose name events carry.
    n_instances : int
        Labels in a round.
    several_labels : bool
        Whether an image may have several labels, or none.
    audits : Audits
        Draw images to measure the model with, and estimate how good it is.

    Examples
    --------
    >>> from skadma import Campaign, CNNClassifier
    >>> from skadma.strategies import UncertaintyHerding
    >>> clf = CNNClassifier("layers/efficientnet_lite0", training="probe")
    >>> with Campaign.create("cracks", "photos", ["crack", "ok"], clf,
    ...                      UncertaintyHerding()) as campaign:  # doctest: +SKIP
    ...     for image in campaign.query(20):
    ...         print(image.path)
    ...     campaign.teach("labels.csv")
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        pool: str | Path | None = None,
        pools: Mapping[str, str | Path] | None = None,
        backbone: Callable[[], nn.Module] | None = None,
        who: str | None = None,
        wait: float = 60,
    ) -> None:
        self.folder = absolute(folder)
        places = {**(pools or {}), **({} if pool is None else {"": pool})}
        moved = {name: absolute(place) for name, place in places.items()}
        path = self.folder / DATABASE
        self._event_log = EventLog(path, who=who, wait=wait, moved=moved)
        try:
            settings = self._event_log.settings()
            check_settings(settings)
            folders = read_folders(self._event_log)
            folders.check(self.folder)
            self.pool = folders.roots[""]
            self.who = self._event_log.who
            self.n_instances: int = settings["n_instances"]
            self.several_labels: bool = settings.get("several_labels", False)
            self._settings, self._backbone = settings, backbone
            self._kept_state = State(self._event_log)
            self.audits = Audits(self._event_log, lambda: self._trainer)
        except BaseException:
            self._event_log.close()
            raise

    @cached_property
    def _trainer(self) -> Trainer:
        """What trains and chooses; CampaignError where the settings are of no use."""
        from .trainer import Trainer  # torch takes seconds, and the log needs none

        return Trainer(self._event_log, self._settings, self._backbone)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        pool: str | Path,
        classes: Sequence[str],
        estimator: CNNClassifier | ProbeClassifier | None = None,
        strategy: QueryStrategy | None = None,
        *,
        features: str | Path | EmbeddingTable | None = None,
        several_labels: bool = False,
        n_instances: int = 20,
        warm_start: bool = False,
        random_state: int = 0,
        at_once: bool = False,
        who: str | None = None,
        wait: float = 60,
        verbose: bool = False,
    ) -> Campaign:
        """Start a campaign.

        Raises CampaignError if there is one already, or something given cannot be
        taken. There is no new campaign then.

        Parameters
        ----------
        folder : str or Path
            Where the campaign is kept; made if missing. Not inside `pool`.
        pool : str or Path
            The folder of images, with subfolders.
        classes : sequence of str
            All labels there are.
        estimator : CNNClassifier or ProbeClassifier, optional
            Its parameters are stored as plain values. A callable backbone is not: it
            has to be given to :meth:`open` again. The campaign sets the cache, classes,
            warm start and bad images itself. A linear probe on several layers of
            EfficientNet-Lite0 if None; with `features` a ProbeClassifier.
        strategy : QueryStrategy, optional
            One of ``skadma.strategies``; UncertaintyHerding if None.
        features : str, Path or EmbeddingTable, optional
            A table of embeddings that were made elsewhere, with the images' paths; see
            docs/training.md. It is copied, and no network is needed. Images without a
            row are left out.
        several_labels : bool, default=False
            An image may have several of the classes, or none: its label is their names
            with ";" between them, or "?none". It stays so.
        n_instances : int, default=20
            Labels in a round.
        warm_start : bool, default=False
            Fine-tune the model of the labels before, as the paper's Algorithm 1 does.
            By default each model is fine-tuned from the pretrained network, so that it
            depends on nothing but the labels: a corrected label leaves no trace, and a
            lost model can be made again.
        random_state : int, default=0
            Seeds everything that has no seed of its own.
        at_once : bool, default=False
            Read images for half a second and leave the others to the next
            :meth:`refresh` or :meth:`query`. The default network is not loaded yet.
        who, wait
            As in the class.
        verbose : bool, default=False
            Show a progress bar while images are read.

        Returns
        -------
        Campaign
        """
        folder, pool = absolute(folder), absolute(pool)
        names = check_classes(classes, several_labels)
        check_outside(folder, pool)
        table = None if features is None else read_table(features)
        settings: dict[str, Any] = {
            "pool": str(pool),
            "classes": names,
            "estimator": DEFAULT_ESTIMATOR,
            "strategy": DEFAULT_STRATEGY,
            "n_instances": int(n_instances),
            "warm_start": bool(warm_start),
            "random_state": int(random_state),
        }
        if several_labels:
            settings["several_labels"] = True
        refuse_existing(folder / DATABASE)
        backbone = None
        is_usual = estimator is None and strategy is None and table is None
        if checked := not (at_once and is_usual and not warm_start):
            from .settings import save_centers, settle  # torch takes seconds
            from .trainer import Trainer

            backbone = settle(settings, estimator, strategy, table)
        check_settings(settings)
        seconds = _AT_ONCE if at_once and table is None else math.inf
        images = scan_new_folder(pool, progress=verbose, seconds=seconds)
        rows: dict[str, np.ndarray] = {}
        if table is not None:
            rows = rows_by_content(table, dict(sorted(images.items())), {})
            images = without_rows(images, rows)
        folder.mkdir(parents=True, exist_ok=True)
        with campaign_lock(folder, wait, "start"):
            refuse_existing(folder / DATABASE)  # another process may have been faster
            remove_leftovers(folder)
            if checked and strategy is not None:
                save_centers(strategy, folder)
            path = folder / DATABASE
            with closing(EventLog(path, create=True, who=who, wait=wait)) as log:
                if checked:
                    Trainer(log, settings, backbone)  # refuses what it cannot use
                detail = {"embeddings": write_embeddings(folder, rows)} if rows else {}
                with log.transaction():
                    log.make_tables(settings)
                    event = log.add_event("start", n_images=len(images), **detail)
                    add_contents(log, images, event)
                sync_folder(folder)
                sync_folder(folder.parent)
        _logger.info("campaign in %s: %d images", folder, len(images))
        return cls(folder, pool=pool, backbone=backbone, who=who, wait=wait)

    @classmethod
    def open(cls, folder: str | Path, **options: Any) -> Campaign:
        """Go on with a campaign; the same as ``Campaign(folder, **options)``."""
        return cls(folder, **options)

    def close(self) -> None:
        """Close the campaign's file."""
        self._event_log.close()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- labels ---------------------------------------------------------------

    def query(self, n_instances: int | None = None) -> list[Proposal]:
        """Choose the images to label next, the most useful first.

        Asked again, also after a crash, it gives the same answer until something is
        decided or the pool changes. `n_instances` is the campaign's if None; fewer
        images where no more are left. Raises CampaignError if nothing is left to label.
        """
        return self._query(n_instances)[1]

    def _query(self, n_instances: int | None) -> tuple[State, list[Proposal]]:
        """Choose, and return the state from which it was chosen."""
        n = self.n_instances if n_instances is None else n_instances
        if n < 1:
            raise CampaignError(f"n_instances={n}; it must be at least 1.")
        with self._event_log.locked("query"):
            self.refresh()
            state = read_state(self._event_log)
            n = min(n, len(state.candidates()))
            if n == 0:
                raise CampaignError(
                    f"Nothing is left to label: all {len(state.usable())} images that "
                    "can be read are decided, or in an audit."
                )
            key = self._trainer.query_key(state, n)
            recorded = self._trainer.recorded_query(key, state)
            if recorded:
                _logger.info("the same question as before: the same answer")
                return state, recorded
            proposals = self._trainer.query(state, n)
            with self._event_log.transaction():
                if read_state(self._event_log).classes != state.classes:
                    raise CampaignError(
                        "Somebody changed the classes while images were chosen. Ask "
                        "again: what was labelled is safe."
                    )
                event = self._event_log.add_event("query", key=key, n=len(proposals))
                self._event_log.add(
                    "proposals",
                    (
                        (event, place, image, p.score, p.guess, p.confidence)
                        for place, (image, p) in enumerate(proposals)
                    ),
                )
        return state, [proposal for _, proposal in proposals]

    def teach(
        self,
        labels: Mapping[str, Any] | Sequence[LabelRow] | str | Path,
        *,
        partial: bool = False,
        blind: bool = False,
        train: bool = True,
    ) -> TeachResult:
        """Take labels and train with all labels so far.

        They are on the disk before training begins. Images need not have been queried.
        A label given before is corrected; both stay in the log.

        Parameters
        ----------
        labels : mapping of path to str, Series, sequence of LabelRow, or path
            Path of an image (of a Series, its index) to a class, or to ``"?skip"``,
            ``"?cant-tell"`` or ``"?not-an-image"``; or a label file, see
            docs/campaign.md; or what Label Studio exports, see docs/label_studio.md.
            With `several_labels` to a list, set or array of classes, or a text such
            as "crack;dark" or "?none".
            Where rows say who, only one person decides about an image; the answers of
            others are blind repeats.
        partial : bool, default=False
            Leave out the rows that cannot be taken instead of refusing all.
        blind : bool, default=False
            They are blind repeats, about images that are decided: they change no
            decision and are not trained with, :meth:`agreement` counts them. The same
            answer again changes nothing, another one replaces it.
        train : bool, default=True
            False leaves training to the next query.

        Returns
        -------
        TeachResult

        Raises
        ------
        LabelFileError
            If an image or a class is unknown or a row contradicts another; the message
            has the line numbers. Nothing is changed then.
        """
        given = read_rows(labels)
        self.refresh()
        log = self._event_log
        with log.transaction():
            kind = "repeat" if blind else "teach"
            result = record_labels(log, given, partial=partial, kind=kind)
        _logger.info("%s: %s", given.name, result)
        if train and not blind:
            self.estimator()
        return result

    def relabel(self, image: str, label: Any, *, train: bool = True) -> TeachResult:
        """Correct a decision: :meth:`teach` about an image that has one already."""
        state = read_state(self._event_log)
        number = find_image(image, state)
        if number is not None and state.decision_of(number) is None:
            raise CampaignError(
                f"{image!r} has no label to correct. teach gives it its first."
            )
        return self.teach({image: label}, train=train)

    def undo(self) -> list[str]:
        """Take the last decisions back: those of one ``teach`` that still hold.

        Or the answers of one :meth:`confirm`, a release of audits with answers, or a
        change of the classes or the pools. Everything is as it was before them, the
        model and the next query included. The log keeps them, and that they were
        undone. Returns the paths of the images that they were about.
        """
        with self._event_log.transaction():
            state = read_state(self._event_log)
            if not state.acts:
                raise CampaignError("There is nothing to undo.")
            acts = list(state.acts)
            last = acts[-1]
            if state.acts[last].kind == "pool" and any(
                audit.event > last for audit in state.audits
            ):
                raise CampaignError(
                    "The last change is a pool that was added, and an audit was drawn "
                    "since. Release the audit before ('skadma evaluate --release'); if "
                    "it has answers, the pool stays."
                )
            first = state.acts[last].detail.get("with", last)
            together = [
                e for e in acts if first in (e, state.acts[e].detail.get("with"))
            ]
            drawn = state.drawn()
            for event in reversed(together):
                released = state.released.get(event, [])
                if any(sha256 in drawn for one in released for sha256 in one.contents):
                    raise CampaignError(
                        "The last change is the release of an audit, and images of it "
                        "are in another audit since: it cannot be taken back. Correct "
                        "single labels with 'skadma relabel'."
                    )
                self._event_log.add_event("undo", undone=event)
        images = dict.fromkeys(
            decision.image
            for event in together
            for decision in state.acts[event].decisions
        )
        return [state.paths[image] for image in images]

    def ledger(self) -> Ledger:
        """Keep the log in memory, for this thread: decisions take milliseconds."""
        return Ledger(self._event_log)

    # --- what there is ----------------------------------------------------------

    @property
    def last_event(self) -> int:
        """Number of the log's last event; classes are named as of an event."""
        return int(self._event_log.rows("SELECT max(id) FROM events")[0][0])

    @property
    def classes(self) -> list[str]:
        """All labels there are, as they are called today."""
        return read_class_names(self._event_log).classes

    @property
    def pools(self) -> dict[str, Path]:
        """The folders of images by name; that of the first is empty."""
        return read_folders(self._event_log).roots

    def files(self, paths: Iterable[str]) -> list[Path]:
        """Find the files of images by their paths in the campaign."""
        folders = read_folders(self._event_log)
        return [folders.file(path) for path in paths]

    def _present_state(self) -> State:
        """Look at the pools, and read what the log gained into a state that is kept."""
        refresh(self._event_log, self._kept_state)
        return self._kept_state

    def refresh(self) -> int:
        """Look at the pools for new, changed and missing images, and count them."""
        return refresh(self._event_log)

    def refresh_if_there(self) -> None:
        """Look at the pools, or warn where one is not to be found."""
        refresh_if_there(self._event_log)

    def candidates(self) -> list[str]:
        """List the images that a query chooses from, one of each content.

        Those that were skipped, where nothing else is left.
        """
        state = read_state(self._event_log)
        return [state.paths[image] for image in state.candidates()]

    def status(self) -> Status:
        """Count what there is, as of the last look at the pool; ``print`` shows it."""
        with self._event_log.reading():
            self._event_log.check()
            state = read_state(self._event_log)
            return make_status(self._event_log, state)

    def decisions(self) -> list[tuple[str, Decision, str]]:
        """List what holds for each image: path, decision, and the state of the file.

        That is "as labelled", "changed" or "missing". Copies of an image are listed
        too: its label serves them all.
        """
        return list(list_decisions(read_state(self._event_log)))

    def log(self) -> list[dict[str, Any]]:
        """List every event, oldest first: number, time, who, kind and details.

        With lists of "decisions", "other_answers" (repeats, confirmations and answers
        to audits), "proposals" and "draws". All values are plain.
        """
        return list_events(self._event_log)

    # --- second looks -----------------------------------------------------------

    def cant_tell(self) -> list[tuple[str, Decision]]:
        """List the images marked "?cant-tell" whose file is there, oldest first."""
        return list_cant_tell(read_state(self._event_log))

    def second_look(
        self, n: int | None = None, *, refit: bool = False
    ) -> list[SuspectLabel]:
        """List the `n` labels most likely to be wrong; all if None.

        First those of which a blind repeat has another label, then the others; each by
        the probability of the label, lowest first, by all answers and a model that did
        not see it: the campaign's probe or, where a network is fine-tuned, one of the
        pretrained network's penultimate outputs (leave-one-out). With `refit` by that
        network itself, adapted five times: better where the images are far from those
        it was pretrained with, and slow. What was labelled anew or confirmed since is
        left out. Warns of labels that cannot be judged. See
        :func:`skadma.evaluation.suspects`.
        """
        return self._look_again(self._one_label(), refit=refit)[0][:n]

    def consensus(self) -> CampaignConsensus:
        """Weigh all answers about the labelled images, and the model's opinion.

        Of each person the last answer about an image counts, in a decision or a blind
        repeat. The model is that of :meth:`second_look`. Who often differs from the
        others and the model counts less; docs/campaign.md has measurements. No label
        is changed.
        """
        return self._look_again(self._one_label())[1]

    def _one_label(self) -> State:
        state = read_state(self._event_log)
        state.class_names.refuse_several("A second look")
        return state

    def _look_again(
        self, state: State, *, refit: bool = False
    ) -> tuple[list[SuspectLabel], CampaignConsensus]:
        unseen = self._trainer.unseen_proba
        return look_again(state, lambda X, y: unseen(X, y, state, refit=refit))

    def confirm(self, image: str) -> None:
        """Let a decision stand after a second look: :meth:`second_look` drops it."""
        with self._event_log.transaction():
            state = read_state(self._event_log)
            number = find_image(image, state)
            held = None if number is None else state.decision_of(number)
            if number is None or held is None:
                raise CampaignError(f"{image!r} has no decision that could stand.")
            add_answers(
                self._event_log,
                "confirm",
                image,
                [ResolvedRow(number, held.sha256, held.mark)],
            )

    def repeats_due(self, share: float, who: str | None = None) -> list[Proposal]:
        """Choose labelled images to show somebody again, blind: without guesses.

        So many that about `share` of the person's answers are repeats; with 1, all that
        there are. Half of them are images that others labelled, if there are any, half
        the person's own, but none of the last ten. Nobody is shown an image again
        twice. The choice is a function of the log: asked again it is the same until
        something is answered.
        """
        state = read_state(self._event_log)
        images = choose_repeats(state, share, self.who if who is None else who)
        return [propose(state, image) for image in images]

    def agreement(self) -> Agreement:
        """Measure how far people agree with each other and with themselves.

        Each blind repeat is compared with the decision that held when it was made,
        whatever was corrected afterwards. "?cant-tell" and "?not-an-image" count as
        answers, "?skip" does not. The interval of Cohen's kappa is Wilson's for the
        agreement, shifted and scaled by the agreement that chance would give, as found.
        """
        return measure_agreement(read_state(self._event_log))

    # --- classes and folders ----------------------------------------------------

    def add_classes(self, names: Sequence[str]) -> None:
        """Add classes."""
        self._change_classes("add", names, None)

    def rename_class(self, old: str, new: str) -> None:
        """Give a class another name, also in the labels so far; the log keeps both."""
        self._change_classes("rename", [old], new)

    def merge_classes(self, names: Sequence[str], into: str) -> None:
        """Make one class of two or more, whose labels are its own from now on.

        `into` is one of them, another class, or a new name; the others are no classes
        any more. This is also the way to remove a class without labels.
        """
        self._change_classes("merge", names, into)

    def _change_classes(
        self,
        change: str,
        names: Sequence[str],
        into: str | None,
        as_of: int | None = None,
    ) -> int:
        """Change classes, which are named as of an event if given; return the event."""
        if isinstance(names, str):
            raise CampaignError(f"{names!r} must be a list of names of classes.")
        given = list(names)
        with self._event_log.transaction():
            class_names = read_class_names(self._event_log)
            if as_of is not None:
                n_classes = {"add": 0, "note": 1}.get(change, len(given))
                classes = given[:n_classes]
                given[:n_classes] = (class_names.meant(name, as_of) for name in classes)
                if change == "merge" and into in classes:
                    into = given[classes.index(into)]
            class_names.change(change, given, into, event=0)  # refuses what cannot be
            event = self._event_log.add_event(
                "classes", change=change, names=given, into=into
            )
        _logger.info("classes: %s", ", ".join(class_names.classes))
        return event

    def add_pool(
        self, folder: str | Path, name: str | None = None, *, verbose: bool = False
    ) -> str:
        """Add a folder of images, with its subfolders, and return its name.

        Paths of its images begin with its name: "more-photos/7.jpg". If None, that of
        the folder. An image that is in another pool as well is one, and has one label.
        `verbose` shows a progress bar.
        """
        root = absolute(folder)
        name = check_name(root.name if name is None else name)
        check_outside(self.folder, root)
        self._check_pool(name, root)
        images = scan_new_folder(root, progress=verbose)
        with self._event_log.transaction():
            self._check_pool(name, root)  # another process may have been faster
            if is_of_table(self._settings):
                images = without_rows(images, read_embeddings(self._event_log))
            event = self._event_log.add_event(
                "pool", name=name, folder=str(root), n_images=len(images)
            )
            found = {f"{name}/{path}": content for path, content in images.items()}
            add_contents(self._event_log, found, event)
        _logger.info("pool %s: %d images", name, len(images))
        return name

    def add_features(self, features: str | Path | EmbeddingTable) -> int:
        """Take rows of images that have none yet; return how many images there are.

        For a campaign that was started with a table of embeddings, and of the same one.
        Rows that are there are kept: a table that has others for them is refused.
        """
        table, described = read_table(features), self._settings["estimator"]
        if not is_of_table(self._settings):
            raise CampaignError("This campaign has a network, and takes no features.")
        table.check(described["features"], described["width"], "The campaign")
        self.refresh()
        with self._event_log.transaction():
            contents = known_contents(read_state(self._event_log))
            known = read_embeddings(self._event_log)
            rows = rows_by_content(table, contents, known)
            changes = with_rows(contents, known | rows)
            if changes:
                new = (
                    {"embeddings": write_embeddings(self.folder, rows)} if rows else {}
                )
                event = self._event_log.add_event("scan", n_changes=len(changes), **new)
                add_contents(self._event_log, changes, event)
        return len(changes)

    def _check_pool(self, name: str, root: Path) -> None:
        state = read_state(self._event_log)
        state.folders.check_new(name, root, state.paths.values())

    # --- models -------------------------------------------------------------

    @property
    def features(self) -> str | None:
        """The name of the embedding, in a campaign that has a table of one."""
        name = self._settings["estimator"].get("features")
        return None if name is None else str(name)

    @property
    def value_range(self) -> tuple[float, float] | None:
        """What becomes black and white in images of more than 8 bits, if it is set."""
        found = self._event_log.settings()["estimator"].get("value_range")
        return None if found is None else tuple(found)

    def estimator(self) -> CNNClassifier:
        """Return the model of all labels so far, trained if it was not yet.

        Not fitted where there are no labels.
        """
        state, estimator = self._trainer.present_model()
        self._quality(state)
        return estimator

    def guesses(
        self, contents: Iterable[str]
    ) -> tuple[int, dict[str, tuple[str, float]]]:
        """Predict the class of images, given by SHA-256, by the last model there is.

        Nothing is trained: the model may have seen fewer labels than there are. Returns
        the number of labels that it was trained with, 0 if there is no model; and class
        and probability by content. Contents in an audit are left out (who sees a guess
        agrees too often), and those that cannot be read.
        """
        state = read_state(self._event_log)
        usable, drawn = state.usable(), state.drawn()
        asked = [s for s in dict.fromkeys(contents) if s in usable and s not in drawn]
        images = [usable[sha256] for sha256 in asked]
        n_labels, found = self._trainer.predictions(state, images)
        return n_labels, dict(zip(asked, found, strict=False))  # none without a model

    def quality(self) -> Share | None:
        """Estimate how often the model is right, by the labels so far.

        It is the probe's mean confidence in the images without a label, whose scale
        leave-one-out scores have set, with Wilson's 95 % interval for half as many
        labels. :func:`skadma.evaluation.forecast_accuracy` has the same mean with
        another interval, of 80 %, for more labels as well.
        The labels themselves were chosen for being hard: the share of them that is
        predicted without them is far too low. docs/evaluation.md has measurements; an
        audit is surer. None without a probe, with labels of one class only, or where
        an image may have several.
        """
        return self._quality(read_state(self._event_log))

    def _quality(self, state: State) -> Share | None:
        from ...evaluation import Share

        learnt = self._trainer.learnt(state)
        if state.class_names.several:
            return None
        if learnt is None or learnt.proba is None or len({*learnt.labels.values()}) < 2:
            return None
        n, proba = len(learnt.labels), learnt.proba
        if n < len(proba):
            rest = np.delete(proba, learnt.table.numbers(learnt.labels), axis=0)
        else:
            rest = learnt.probe.loo_proba_
        right = float(rest.max(axis=1).mean())
        found = Share(right, *wilson_interval(right, n / 2, 0.95), n)
        text = json.dumps(found)
        with suppress(OSError):  # for `status`, which loads no probe
            write_atomically(
                self.folder / QUALITY, lambda tmp: tmp.write_text(text), durable=False
            )
        return found

    def export_model(
        self,
        folder: str | Path,
        *,
        onnx: bool = False,
        calibration: bool = True,
        overwrite: bool = False,
        verbose: bool = False,
    ) -> None:
        """Write the model of all labels so far, to hand it on: see docs/persistence.md.

        Weights, labels, preprocessing and a model card;
        :meth:`skadma.CNNClassifier.load` and ``skadma predict`` read it. The card has
        the accuracy, if an audit has labels.

        Parameters
        ----------
        folder : str or Path
            It is there whole or not at all.
        onnx : bool, default=False
            Write ``model.onnx`` as well; needs ``pip install skadma[onnx]``.
        calibration : bool, default=True
            Set a temperature by probabilities of models that did not see the label,
            and write the model with it: the same labels, better probabilities. Of a
            probe they are leave-one-out and cost nothing, else they take five
            trainings. Where there are fewer than 60 labels, or it does not help, the
            probabilities are not changed, and the card says so. Nor are they where an
            image may have several labels.
        overwrite : bool, default=False
            Replace a model that is there already.
        verbose : bool, default=False
            Show a progress bar over the trainings.

        Raises
        ------
        CampaignError
            If there are no labels yet.
        ModelError
            If the folder is there, or the disk is full.
        """
        self._export(folder, onnx, calibration, overwrite, verbose)

    def finish(
        self,
        folder: str | Path,
        *,
        onnx: bool = False,
        overwrite: bool = False,
        minutes: float | None = None,
        verbose: bool = False,
    ) -> FinishResult:
        """Export what cross-validation finds best: the campaign's model or another.

        The other is the same network fine-tuned by the defaults of
        :class:`skadma.CNNClassifier`; where the campaign fine-tunes, a probe on several
        layers. Both are judged in the same three stratified folds. The other is taken
        where it is right more often by more than the standard error of the difference.
        With fewer than 200 labels, several labels per image or a table of embeddings,
        nothing is compared.

        Parameters
        ----------
        folder, onnx, overwrite
            As of :meth:`export_model`.
        minutes : float, optional
            The most that comparing and training may take. Where a few batches show
            that it takes longer, or where it does, the campaign's model is exported.
        verbose : bool, default=False
            Print before how long it takes, and show a progress bar.

        Returns
        -------
        FinishResult
        """
        if minutes is not None and not minutes > 0:
            raise CampaignError(f"minutes={minutes}; it must be above 0.")
        result: FinishResult = self._export(
            folder, onnx, True, overwrite, verbose, compares=True, minutes=minutes
        )
        return result

    def _export(
        self, folder: str | Path, onnx: bool, calibration: bool, overwrite: bool,
        verbose: bool, compares: bool = False, minutes: float | None = None,
    ) -> Any:  # fmt: skip
        """Write the campaign's model or, if it `compares`, another that is better."""
        from ...evaluation.calibrated import calibrated
        from ...persistence.export import check_onnx, export_model
        from ...persistence.folder import refuse_folder
        from ...persistence.probe import save_probe
        from .card import card_facts
        from .finish import compare

        trainer, audits = self._trainer, self.audits
        refuse_folder(Path(folder).absolute(), overwrite)  # before training
        if onnx and self.features is not None:
            raise CampaignError("A model of embeddings is no network: leave ONNX out.")
        if onnx:
            check_onnx(trainer.source_network)
        state, model = trainer.present_model()
        if not state.labelled():
            raise CampaignError("There are no labels yet, so there is no model.")
        text = other = proba = result = None
        if compares:
            other, proba, result = compare(
                trainer, state, Path(folder), minutes, verbose
            )
            model = other or model
        if calibration and self.features is None and not self.several_labels:
            images, labels = map(list, zip(*state.labelled(), strict=True))
            unseen: Callable[[], Any] = functools.partial(
                trainer.unseen_proba, images, np.array(labels), state,
                refit=True, verbose=verbose,
            )  # fmt: skip
            text = "five folds"
            if other is None and trainer.learns(state):
                text = "leave-one-out"
            elif proba is not None:
                unseen, text = lambda: proba, "three folds"
            model, text = calibrated(model, labels, unseen, text)
        estimate = audits.estimate(model=other) if audits.has_labels() else None
        facts = card_facts(self._event_log, state, text, estimate)
        if self.features is None:
            export_model(model, folder, facts, onnx=onnx, overwrite=overwrite)
        else:
            save_probe(model, folder, self.features, facts, overwrite=overwrite)
        return result
