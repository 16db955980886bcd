"""What the card of a campaign's model tells of the campaign."""

from __future__ import annotations

from ...evaluation import Estimate
from ...persistence.card import CardFacts
from .event_log import EventLog
from .history import list_decisions, list_events, right_guesses
from .state import State
from .status import make_status


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
            f"{status.n_labelled} labelled, of which {status.unusable} not "
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
