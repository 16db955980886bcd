"""The start of a campaign: its file is made, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..classifier import CNNClassifier
from ..files import remove_leftovers, sync_folder
from ..strategies import QueryStrategy
from . import settings as stored
from .lock import locked
from .pool import scan_pool
from .state import State, add_contents
from .store import CampaignError, Store, refuse_existing
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
