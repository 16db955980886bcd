"""Export a campaign's model, with what its card tells of the campaign."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...evaluation import Estimate
from ...evaluation.calibrated import calibrated
from ...persistence.card import CardFacts
from ...persistence.export import check_onnx, export_model
from ...persistence.folder import refuse_folder
from .audits import Audits
from .event_log import CampaignError, EventLog
from .history import list_decisions, list_events, right_guesses
from .state import State
from .status import make_status
from .trainer import Trainer


def export_present_model(
    log: EventLog,
    trainer: Trainer,
    audits: Audits,
    folder: Path,
    *,
    onnx: bool,
    calibration: bool,
    overwrite: bool,
    verbose: bool,
) -> None:
    """Write the model of all labels so far; see :meth:`Campaign.export_model`."""
    refuse_folder(folder.absolute(), overwrite)  # before training
    if onnx:
        check_onnx(trainer.source_network)
    state, estimator = trainer.present_model()
    if not hasattr(estimator, "net_"):
        raise CampaignError("There are no labels yet, so there is no model.")
    text = None
    if calibration:
        images, labels = map(list, zip(*state.labelled(), strict=True))
        estimator, text = calibrated(
            estimator,
            labels,
            lambda: trainer.unseen_proba(
                images, np.array(labels), state, refit=True, verbose=verbose
            ),
        )
    estimate = audits.estimate() if audits.has_labels() else None
    facts = card_facts(log, state, text, estimate)
    export_model(estimator, folder, facts, onnx=onnx, overwrite=overwrite)


def card_facts(
    log: EventLog, state: State, calibration: str | None, estimate: Estimate | None
) -> CardFacts:
    """Gather the facts for the model card; `calibration` is Markdown."""
    with log.reading():
        settings, events = log.settings(), list_events(log)
        status = make_status(log, state)
    strategy = settings["strategy"]
    params = ", ".join(f"{k}={v!r}" for k, v in strategy["params"].items())
    aside = ", ".join(f"{kind}: {n}" for kind, n in status.aside.items())
    kinds = [event["kind"] for event in events]
    return CardFacts(
        title=log.path.parent.name,
        n_labels=status.labels,
        data=(
            f"Pool `{status.pools[''].name}`: {status.n_images} image files, "
            f"{status.n_contents} different ones that can be read, "
            f"{len(status.unreadable)} unreadable.",
            f"{sum(status.labels.values())} labelled, of which {status.unusable} not "
            f"trained with because the image is not there; set aside: {aside}.",
            f"Labelled from {events[0]['at'][:10]} to {events[-1]['at'][:10]}, "
            f"{kinds.count('teach')} times, after {kinds.count('query')} queries.",
        ),
        choice=(
            f"`{strategy['class']}({params})`, {settings['n_instances']} a round, "
            f"random_state={settings['random_state']}.",
            "Each model was trained from "
            + ("the one before." if settings["warm_start"] else "the pretrained one."),
        ),
        curve=right_guesses(events, list(list_decisions(state))),
        calibration=calibration,
        estimate=estimate,
    )
