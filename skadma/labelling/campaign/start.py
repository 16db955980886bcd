"""The start of a campaign: its file is made, whole or not at all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._utils.atomic import remove_leftovers, sync_folder
from ...classifier import CNNClassifier
from ...strategies import QueryStrategy
from . import settings as stored
from .decide import Taught
from .event_log import CampaignError, Store, refuse_existing
from .folders import Places
from .image_index import Content, scan_pool
from .labels_csv import LabelRow
from .lock import locked
from .record import read_rows, record
from .state import add_contents
from .trainer import Trainer

_log = logging.getLogger(__name__)
DATABASE = "campaign.sqlite"


def start(
    folder: Path,
    root: Path,
    classes: Sequence[str],
    estimator: CNNClassifier,
    strategy: QueryStrategy,
    *,
    n_instances: int,
    warm_start: bool,
    random_state: int,
    who: str | None,
    wait: float,
    labels: Mapping[str, str] | Sequence[LabelRow] | str | Path | None,
    partial: bool,
    verbose: bool,
) -> None:
    """Make a campaign's folder and file; see :meth:`Campaign.create`."""
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
    name, rows, _ = read_rows({} if labels is None else labels)
    images = scan_pool(root, {}, progress=verbose)
    if not any(content.problem is None for content in images.values()):
        raise CampaignError(f"There is no readable image in {str(root)!r}.")
    places = Places(root)
    _check_labels(settings, images, rows, places, name=name, partial=partial)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait, "start"):
        if (folder / DATABASE).exists():  # another process was faster
            refuse_existing(folder / DATABASE)
        remove_leftovers(folder)
        stored.save_centers(strategy, folder)
        store = Store(folder / DATABASE, create=True, who=who, wait=wait)
        try:
            Trainer(folder, places, store, settings, backbone)  # or it cannot be
            _fill(store, settings, images, rows, places, name=name, partial=partial)
            sync_folder(folder)
            sync_folder(folder.parent)
        finally:
            store.close()
    _log.info("campaign in %s: %d images", folder, len(images))


def _check_labels(
    settings: dict[str, Any],
    images: Mapping[str, Content],
    rows: Sequence[LabelRow],
    places: Places,
    **options: Any,
) -> None:
    """Refuse labels, or warn of them, before anything is made: try it in memory."""
    if not rows:
        return
    store = Store(Path(":memory:"), create=True)
    try:
        taught = _fill(store, settings, images, rows, places, **options)
    finally:
        store.close()
    for problem in taught.refused:
        warnings.warn(f"left out: {problem}", stacklevel=4)


def _fill(
    store: Store,
    settings: dict[str, Any],
    images: Mapping[str, Content],
    rows: Sequence[LabelRow],
    places: Places,
    *,
    name: str,
    partial: bool,
) -> Taught:
    """Write all there is at the start, or nothing."""
    with store.transaction():
        store.make_tables(settings)
        event = store.add_event("start", n_images=len(images))
        add_contents(store, images, event)
        return record(store, name, rows, [], places, at_once=False, partial=partial)
