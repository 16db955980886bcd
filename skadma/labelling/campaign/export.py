"""What a campaign tells of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...persistence.card import CardFacts
from .report import hits

if TYPE_CHECKING:
    from .modelling import CampaignModelling


def card_facts(
    campaign: CampaignModelling, settings: dict[str, Any], calibration: str | None
) -> CardFacts:
    """Gather the facts for the model card.

    Parameters
    ----------
    campaign : CampaignModelling
    settings : dict
        Its settings.
    calibration : str or None
        Markdown about the probabilities.

    Returns
    -------
    CardFacts
    """
    status, events, audits = campaign.status(), campaign.log(), campaign.audits
    strategy = settings["strategy"]
    params = ", ".join(f"{k}={v!r}" for k, v in strategy["params"].items())
    aside = ", ".join(f"{kind}: {n}" for kind, n in status.aside.items())
    counts = [event["kind"] for event in events]
    return CardFacts(
        title=campaign.folder.name,
        n_labels=status.labels,
        data=(
            f"Pool `{campaign.pool.name}`: {status.n_images} image files, "
            f"{status.n_contents} different ones that can be read, "
            f"{len(status.unreadable)} unreadable.",
            f"{sum(status.labels.values())} labelled, of which {status.unusable} not "
            f"trained with because the image is not there; set aside: {aside}.",
            f"Labelled from {events[0]['at'][:10]} to {events[-1]['at'][:10]}, "
            f"{counts.count('teach')} times, after {counts.count('query')} queries.",
        ),
        choice=(
            f"`{strategy['class']}({params})`, {settings['n_instances']} a round, "
            f"random_state={settings['random_state']}.",
            "Each model was trained from "
            + ("the one before." if settings["warm_start"] else "the pretrained one."),
        ),
        curve=hits(events, list(campaign.decisions())),
        calibration=calibration,
        estimate=audits.estimate() if audits.has_labels() else None,
    )
