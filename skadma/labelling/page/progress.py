"""Numbers and lists of the page's third view."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..campaign import Campaign
from ..campaign.history import right_guesses
from .controller import Controller

_LISTED = 60
_CANT_TELL = "?cant-tell"


def make_progress(campaign: Campaign, desk: Controller) -> dict[str, Any]:
    """Count what there is to look at.

    Parameters
    ----------
    campaign : Campaign
    desk : Controller
        Of the same campaign.

    Returns
    -------
    dict
        `pace`: labels per hour of each person. `curve`: for each query the labels
        before it, the answers, and how many the model had guessed right. `cant_tell`:
        pictures for somebody else to look at. `doubts`: labels that are worth a second
        look. `agreement`: of people with each other and with themselves.
    """
    desk.ledger.read()
    agreement = campaign.agreement()
    return {
        "pace": [
            {"who": p.who, "n": p.n_labels, "hours": p.hours, "per_hour": p.per_hour}
            for p in campaign.labels_per_hour()
        ],
        "curve": [
            {"labels": n, "answered": m, "right": r}
            for n, m, r in right_guesses(campaign.log(), campaign.decisions())
        ],
        "cant_tell": _listed(
            [
                {
                    "sha256": c.sha256,
                    "path": c.path,
                    "before": "?cant-tell",
                    "by": c.who,
                }
                for c in campaign.cant_tell()
            ]
        ),
        "doubts": _listed(_standing_doubts(desk)),
        "agreement": [asdict(pair) for pair in agreement.pairs],
    }


def _listed(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"n": len(items), "items": items[:_LISTED]}


def _standing_doubts(desk: Controller) -> list[dict[str, Any]]:
    """Doubts about labels that were neither changed nor confirmed since."""
    confirmed = {
        said.sha256
        for event in desk.ledger.acts.values()
        if event.kind == "confirm" and event.id > desk.doubted_at
        for said in event.decisions
    }
    labels = desk.ledger.labels()
    return [
        {
            **doubt,
            "path": desk.ledger.path(sha256),
            "suggested": desk.ledger.present_name(doubt["suggested"]),
        }
        for doubt in desk.doubts
        if (sha256 := doubt["sha256"]) not in confirmed
        and labels.get(sha256) == doubt["before"]
    ]
