"""Campaign: labels, decisions and models of a task, in one folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...classifier import CNNClassifier
from ...strategies import QueryStrategy
from .changing import CampaignChanging
from .decide import Taught, find_image
from .event_log import CampaignError, Store
from .folders import Places, read_pools
from .history import recorded_query
from .labels_csv import LabelRow
from .ledger import Ledger
from .lock import locked
from .looking import CampaignLooks
from .modelling import CampaignModelling
from .record import read_rows, record
from .settings import check_settings
from .start import DATABASE, start
from .state import State
from .trainer import Proposal, Trainer

_log = logging.getLogger(__name__)


class Campaign(CampaignLooks, CampaignChanging, CampaignModelling):
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
    features : "auto", str, Path or None, default="auto"
        Where features of the images are kept, for a strategy that chooses by them.
        "auto": in the campaign's folder, if they would take more than half the memory
        that is available, three times over. A folder: there, in any case. None: in
        memory. The same images are chosen.
    who : str, optional
        Name for the log; the system's user if None.
    wait : float, default=60
        Seconds to wait for another process that works on the campaign.

    Attributes
    ----------
    folder : Path
    pool : Path
        The first; ``pools`` has all.

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
        pools: Mapping[str, str | Path] | None = None,
        backbone: Callable[[], nn.Module] | None = None,
        features: str | Path | None = "auto",
        who: str | None = None,
        wait: float = 60,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._wait = wait
        self._store = Store(self.folder / DATABASE, who=who, wait=wait)
        try:
            settings = self._store.settings()
            check_settings(settings)
            self.pool = Path(pool or settings["pool"]).absolute()
            moved = {name: Path(p).absolute() for name, p in (pools or {}).items()}
            self._places = Places(self.pool, moved)
            if moved:
                with self._store.reading(), self._store.intact():
                    self._places.check(read_pools(self._store))
            self._trainer = Trainer(
                self.folder, self._places, self._store, settings, backbone, features
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
        labels: Mapping[str, str] | Sequence[LabelRow] | str | Path | None = None,
        partial: bool = False,
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
        labels : mapping of str to str, sequence of LabelRow, or path, optional
            Labels there are already, as :meth:`teach` takes them.
        partial : bool, default=False
            Leave out the rows of `labels` that cannot be taken, with a warning, instead
            of starting no campaign.
        verbose : bool, default=False
            Show a progress bar while images are read.

        Returns
        -------
        Campaign

        Raises
        ------
        CampaignError
            If there is a campaign already, or something given cannot be taken. There is
            no campaign then.
        """
        start(
            Path(folder).absolute(),
            Path(pool).absolute(),
            classes,
            estimator,
            strategy,
            n_instances=n_instances,
            warm_start=warm_start,
            random_state=random_state,
            who=who,
            wait=wait,
            labels=labels,
            partial=partial,
            verbose=verbose,
        )
        backbone = estimator.backbone if callable(estimator.backbone) else None
        return cls(folder, pool=pool, backbone=backbone, who=who, wait=wait)

    @classmethod
    def open(cls, folder: str | Path, **options: Any) -> Campaign:
        """Go on with a campaign; the same as ``Campaign(folder, **options)``.

        Parameters
        ----------
        folder : str or Path
        **options
            `pool`, `pools`, `backbone`, `features`, `who`, `wait`: see the class.

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
                    "can be read are decided, or in an audit."
                )
            key = self._trainer.query_key(state, n)
            recorded = recorded_query(self._store, state, key)
            if recorded:
                _log.info("the same question as before: the same answer")
                return state, recorded
            proposals = self._trainer.query(state, n)
            with self._store.transaction():
                if self._state().classes != state.classes:
                    raise CampaignError(
                        "Somebody changed the classes while images were chosen. Ask "
                        "again: what was labelled is safe."
                    )
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
        labels: Mapping[str, str] | Sequence[LabelRow] | str | Path,
        *,
        partial: bool = False,
        train: bool = True,
    ) -> Taught:
        """Take labels and train with all labels so far.

        They are on the disk before training begins. Images need not have been queried.
        A label given before is corrected; both stay in the log.

        Parameters
        ----------
        labels : mapping of str to str, sequence of LabelRow, or path
            Path of an image to a class, or to ``"?skip"``, ``"?cant-tell"`` or
            ``"?not-an-image"``; or a label file, see docs/campaign.md; or what Label
            Studio exports, see docs/label_studio.md. Where rows say who, only one
            person decides about an image; what others said are blind repeats.
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
        name, rows, at_once = read_rows(labels, self.former_classes())
        self.refresh()
        with self._store.transaction():
            taught = record(
                self._store,
                name,
                rows,
                [],
                self._places,
                at_once=at_once,
                partial=partial,
            )
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
        number = find_image(image, state.numbers, state, self._places)
        if number is not None and state.decision_of(number) is None:
            raise CampaignError(
                f"{image!r} has no label to correct. teach gives it its first."
            )
        return self.teach({image: label}, train=train)

    @property
    def n_instances(self) -> int:
        """Labels in a round."""
        return self._trainer.n_instances

    def ledger(self) -> Ledger:
        """Keep the log in memory, so that decisions take milliseconds.

        Returns
        -------
        Ledger
            Of this campaign's connection: for the thread that opened it.
        """
        return Ledger(self._store)
