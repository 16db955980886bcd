"""Campaign: labels, decisions and models of a task, in one folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import nn

from ..classifier import CNNClassifier
from ..files import remove_leftovers, sync_folder
from ..strategies import QueryStrategy
from . import settings as stored
from .decide import Taught, decide, decision_row, find_image
from .history import list_decisions, list_events, recorded_query
from .labels_csv import LabelFileError, LabelRow, read_labels
from .lock import locked
from .pool import scan_pool
from .state import Decision, State, add_contents, read_state
from .status import Status, make_status
from .store import CampaignError, Store, refuse_existing
from .trainer import Proposal, Trainer

_log = logging.getLogger(__name__)
DATABASE = "campaign.sqlite"


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
    classes : list of str

    Examples
    --------
    >>> from skadma import Campaign, CNNClassifier
    >>> from skadma.strategies import MarginSampling
    >>> with Campaign.create("cracks", "photos", ["crack", "ok"],
    ...                      CNNClassifier("efficientnet_lite0"),
    ...                      MarginSampling()) as campaign:  # doctest: +SKIP
    ...     for image in campaign.query(20):
    ...         print(image.path)
    ...     campaign.teach("labels.csv")
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        pool: str | Path | None = None,
        backbone: Callable[[], nn.Module] | None = None,
        who: str | None = None,
        wait: float = 60,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._wait = wait
        self._store = Store(self.folder / DATABASE, who=who, wait=wait)
        try:
            settings = self._store.settings()
            stored.check_settings(settings)
            self.pool = Path(pool or settings["pool"]).absolute()
            self.classes: list[str] = settings["classes"]
            self._trainer = Trainer(
                self.folder, self.pool, self._store, settings, backbone
            )
        except BaseException:
            self._store.close()
            raise

    @classmethod
    def create(
        cls,
        folder: str | Path,
        pool: str | Path,
        classes: Sequence[str],
        estimator: CNNClassifier,
        strategy: QueryStrategy,
        *,
        n_instances: int = 20,
        warm_start: bool = False,
        random_state: int = 0,
        who: str | None = None,
        wait: float = 60,
        verbose: bool = False,
    ) -> Campaign:
        """Start a campaign.

        Parameters
        ----------
        folder : str or Path
            Where the campaign is kept; made if missing. Not inside `pool`.
        pool : str or Path
            The folder of images, with subfolders.
        classes : sequence of str
            All labels there are.
        estimator : CNNClassifier
            Its parameters are stored as plain values. A callable backbone is not: it
            has to be given to :meth:`open` again. Cache, classes, warm start and bad
            images are the campaign's own business.
        strategy : QueryStrategy
            One of ``skadma.strategies``.
        n_instances : int, default=20
            Labels in a round.
        warm_start : bool, default=False
            Fine-tune the model of the labels before, as the paper's Algorithm 1 does.
            By default each model is fine-tuned from M0, so that it depends on nothing
            but the labels: a corrected label leaves no trace, and a lost model can be
            made again.
        random_state : int, default=0
            Seeds everything that has no seed of its own.
        who : str, optional
            Name for the log; the system's user if None.
        wait : float, default=60
            Seconds to wait for another process that works on the campaign.
        verbose : bool, default=False
            Show a progress bar while images are read.

        Returns
        -------
        Campaign

        Raises
        ------
        CampaignError
            If there is a campaign already, or something given cannot be taken.
        """
        folder, root = Path(folder).absolute(), Path(pool).absolute()
        names = stored.check_classes(classes)
        if folder == root or root in folder.parents:
            raise CampaignError(
                f"The campaign's folder {str(folder)!r} is inside the pool "
                f"{str(root)!r}: keep it elsewhere, or its files count as images."
            )
        settings = {
            "pool": str(root),
            "classes": names,
            "estimator": stored.describe_estimator(estimator),
            "strategy": stored.describe_strategy(strategy),
            "n_instances": int(n_instances),
            "warm_start": bool(warm_start),
            "random_state": int(random_state),
        }
        if (folder / DATABASE).exists():
            refuse_existing(folder / DATABASE)
        stored.check_usable(estimator, strategy, n_instances, random_state)
        backbone = estimator.backbone if callable(estimator.backbone) else None
        images = scan_pool(root, {}, progress=verbose)
        if not any(content.problem is None for content in images.values()):
            raise CampaignError(f"There is no readable image in {str(root)!r}.")
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait, "start"):
            if (folder / DATABASE).exists():  # another process was faster
                refuse_existing(folder / DATABASE)
            remove_leftovers(folder)
            stored.save_centers(strategy, folder)
            store = Store(folder / DATABASE, create=True, who=who, wait=wait)
            try:
                Trainer(folder, root, store, settings, backbone)  # or it cannot be
                with store.transaction():
                    store.make_tables(settings)
                    event = store.add_event("start", n_images=len(images))
                    add_contents(store, State(), images, event)
                sync_folder(folder)
                sync_folder(folder.parent)
            finally:
                store.close()
        _log.info("campaign in %s: %d images", folder, len(images))
        return cls(folder, pool=root, backbone=backbone, who=who, wait=wait)

    @classmethod
    def open(cls, folder: str | Path, **options: Any) -> Campaign:
        """Go on with a campaign; the same as ``Campaign(folder, **options)``.

        Parameters
        ----------
        folder : str or Path
        **options
            `pool`, `backbone`, `who`, `wait`: see the class.

        Returns
        -------
        Campaign

        Raises
        ------
        CampaignError
            If there is none, it is damaged, or it is not one of this skadma's.
        """
        return cls(folder, **options)

    def close(self) -> None:
        """Close the campaign's file."""
        self._store.close()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- what is asked of a person ------------------------------------------

    def query(self, n_instances: int | None = None) -> list[Proposal]:
        """Choose the images to label next.

        Asked again, also after a crash, it gives the same answer until something is
        decided or the pool changes.

        Parameters
        ----------
        n_instances : int, optional
            How many; the campaign's `n_instances` if None. Fewer where no more are
            left.

        Returns
        -------
        list of Proposal
            Most useful first.

        Raises
        ------
        CampaignError
            If nothing is left to label.
        """
        return self._query(n_instances)[1]

    def _query(self, n_instances: int | None) -> tuple[State, list[Proposal]]:
        """Choose, and say of which state."""
        n = self._trainer.n_instances if n_instances is None else n_instances
        if n < 1:
            raise CampaignError(f"n_instances={n}; it must be at least 1.")
        with locked(self.folder, self._wait, "query"):
            self.refresh()
            state = self._state()
            n = min(n, len(state.candidates()))
            if n == 0:
                raise CampaignError(
                    f"Nothing is left to label: all {len(state.usable())} images that "
                    "can be read are decided."
                )
            key = self._trainer.query_key(state, n)
            recorded = recorded_query(self._store, state, key)
            if recorded:
                _log.info("the same question as before: the same answer")
                return state, recorded
            proposals = self._trainer.query(state, n)
            with self._store.transaction():
                event = self._store.add_event("query", key=key, n=n)
                self._store.add(
                    "proposals",
                    (
                        (event, place, image, p.score, p.guess, p.confidence)
                        for place, (image, p) in enumerate(proposals)
                    ),
                )
        return state, [proposal for _, proposal in proposals]

    def teach(
        self,
        labels: Mapping[str, str] | str | Path,
        *,
        partial: bool = False,
        train: bool = True,
    ) -> Taught:
        """Take labels and train with all labels so far.

        They are on the disk before training begins. Images need not have been queried.
        A label given before is corrected; both stay in the log.

        Parameters
        ----------
        labels : mapping of str to str, or path
            Path of an image to a class, or to ``"?skip"``, ``"?cant-tell"`` or
            ``"?not-an-image"``; or a label file, see docs/campaign.md.
        partial : bool, default=False
            Leave out the rows that cannot be taken instead of refusing all.
        train : bool, default=True
            False leaves training to the next query.

        Returns
        -------
        Taught

        Raises
        ------
        LabelFileError
            If an image or a class is unknown or a row contradicts another; the message
            has the line numbers. Nothing is changed then.
        """
        if isinstance(labels, Mapping):
            name = "labels"
            rows = [LabelRow(repr(k), k, str(v)) for k, v in labels.items()]
        else:
            name, rows = str(labels), read_labels(labels)
        self.refresh()
        with self._store.transaction():
            state = self._state()
            decisions, refused = decide(
                rows,
                state,
                self.classes,
                self.pool,
                at_once=isinstance(labels, Mapping),
            )
            if refused and not partial:
                raise LabelFileError(name, refused, len(rows))
            before = {sha: state.decisions.get(sha) for _, sha, _ in decisions}
            fresh = [
                (image, sha, mark)
                for image, sha, mark in decisions
                if (known := before[sha]) is None or known.mark != mark
            ]
            if fresh:
                event = self._store.add_event("teach", source=name, n=len(fresh))
                self._store.add(
                    "decisions", (decision_row(event, *each) for each in fresh)
                )
        n_new = sum(before[sha] is None for _, sha, _ in fresh)
        taught = Taught(n_new, len(fresh) - n_new, len(decisions) - len(fresh), refused)
        _log.info("%s: %s", name, taught)
        if train:
            self.estimator()
        return taught

    def relabel(self, image: str, label: str, *, train: bool = True) -> Taught:
        """Correct a decision.

        Parameters
        ----------
        image : str
            Its path.
        label : str
            A class or a mark, as in :meth:`teach`.
        train : bool, default=True
            False leaves training to the next query.

        Returns
        -------
        Taught

        Raises
        ------
        CampaignError
            If nothing was decided about the image yet.
        """
        with self._store.reading():
            state = self._state()
        number = find_image(image, state.numbers, self.pool)
        if number is not None and state.decision_of(number) is None:
            raise CampaignError(
                f"{image!r} has no label to correct. teach gives it its first."
            )
        return self.teach({image: label}, train=train)

    def undo(self) -> list[str]:
        """Take the last decisions back: those of one ``teach`` that still hold.

        Everything is as it was before them, the model and the next query included.
        The log keeps them, and that they were undone.

        Returns
        -------
        list of str
            The images they were about.

        Raises
        ------
        CampaignError
            If there is nothing to undo.
        """
        with self._store.transaction():
            state = self._state()
            if not state.teaches:
                raise CampaignError("There is nothing to undo.")
            last = state.teaches[-1]
            self._store.add_event("undo", undone=last)
            images = self._store.rows(
                "SELECT image FROM decisions WHERE event = ? ORDER BY image", last
            )
        return [state.paths[image] for (image,) in images]

    # --- what the campaign knows --------------------------------------------

    def refresh(self) -> int:
        """Look at the pool for new, changed and missing images; others do it as well.

        Returns
        -------
        int
            How many differ from what was found before.
        """
        with self._store.reading():
            state = self._state()
        known = {state.paths[i]: content for i, content in state.contents.items()}
        begin = perf_counter()
        changes = scan_pool(self.pool, known)
        if not changes:
            return 0
        with self._store.transaction():
            now = self._state()  # another process may have looked as well
            known = {now.paths[i]: content for i, content in now.contents.items()}
            changes = {p: c for p, c in changes.items() if known.get(p) != c}
            if changes:
                event = self._store.add_event("scan", n_changes=len(changes))
                add_contents(self._store, now, changes, event)
            changed = [now.paths[i] for i, _ in self._state().changed_since()]
        for path in changed:
            if path in changes:
                warnings.warn(
                    f"{path!r} has changed since it was labelled. The label stays with "
                    "what it was given for; the file counts as a new image.",
                    stacklevel=2,
                )
        _log.info("pool: %d changes in %.1f s", len(changes), perf_counter() - begin)
        return len(changes)

    def refresh_if_there(self) -> None:
        """Look at the pool, or warn where it is not to be found."""
        try:
            self.refresh()
        except (CampaignError, OSError) as error:
            warnings.warn(f"as of the last look at the pool: {error}", stacklevel=2)

    def estimator(self) -> CNNClassifier:
        """Return the model of all labels so far, trained if it was not yet.

        Returns
        -------
        CNNClassifier
            Not fitted where there are no labels.
        """
        with locked(self.folder, self._wait, "training"):
            self.refresh_if_there()
            return self._trainer.model(self._state())

    def status(self) -> Status:
        """Count what there is, as of the last look at the pool.

        Returns
        -------
        Status
            ``print`` shows it.
        """
        with self._store.reading():
            state = self._state()
            return make_status(self._store, state, self.classes, self.pool)

    def candidates(self) -> list[str]:
        """List the images that a query chooses from, one of each content.

        Returns
        -------
        list of str
            Paths. Those that were skipped, where nothing else is left.
        """
        with self._store.reading():
            state = self._state()
        return [state.paths[image] for image in state.candidates()]

    def decisions(self) -> list[tuple[str, Decision, str]]:
        """List what holds for each image.

        Copies of an image are listed too: its label serves them all.

        Returns
        -------
        list of (str, Decision, str)
            Path, decision, and whether the file is still what the decision was about:
            "as labelled", "changed" or "missing".
        """
        with self._store.reading():
            return list(list_decisions(self._state()))

    def log(self) -> list[dict[str, Any]]:
        """List every event: number, time, who, what, and decisions or proposals.

        Returns
        -------
        list of dict
            Of plain values, oldest first.
        """
        with self._store.reading():
            return list_events(self._store)

    # --- within -------------------------------------------------------------

    def _state(self) -> State:
        return read_state(self._store)
