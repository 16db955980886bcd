"""Numbers of the page's second view."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..campaign import Campaign
from ..campaign.ledger import Event, Ledger
from ..campaign.report import hits

_BREAK = 120.0
"""Seconds between two decisions that count as a break."""
_LISTED = 60


def make_progress(campaign: Campaign, ledger: Ledger) -> dict[str, Any]:
    """Count what there is to look at.

    Parameters
    ----------
    campaign : Campaign
    ledger : Ledger
        Of the same campaign.

    Returns
    -------
    dict
        `pace`: for each person the decisions, the seconds without breaks, decisions an
        hour and the median seconds of the last 50. `curve`: for each query the labels
        before it, the answers, and how many the model had guessed right. `cant_tell`:
        pictures for somebody else to look at.
    """
    ledger.read()
    by_person: dict[str, list[Event]] = {}
    for event in ledger.teaches.values():
        if event.decisions:
            by_person.setdefault(event.who, []).append(event)
    curve = hits(campaign.log(), campaign.decisions())
    return {
        "pace": [pace(who, events) for who, events in by_person.items()],
        "curve": [{"labels": n, "answered": m, "right": r} for n, m, r in curve],
        "cant_tell": _cant_tell(ledger),
    }


def pace(who: str, events: list[Event]) -> dict[str, Any]:
    """How fast somebody decides; breaks do not count.

    Parameters
    ----------
    who : str
    events : list of Event
        Theirs, oldest first. Of the first one, and the first after a break, nobody
        knows how long it took: they count in no pace.

    Returns
    -------
    dict
    """
    seconds = 0.0
    timed = 0
    each: list[float] = []
    times = [datetime.fromisoformat(event.at) for event in events]
    for before, now, event in zip(times, times[1:], events[1:], strict=False):
        took = (now - before).total_seconds()
        if 0 <= took <= _BREAK:
            seconds += took
            timed += len(event.decisions)
            each += [took / len(event.decisions)] * len(event.decisions)
    latest = sorted(each[-50:])
    return {
        "who": who,
        "decisions": sum(len(event.decisions) for event in events),
        "seconds": seconds,
        "per_hour": timed * 3600 / seconds if seconds else None,
        "median": latest[len(latest) // 2] if latest else None,
    }


def _cant_tell(ledger: Ledger) -> dict[str, Any]:
    found = [
        {
            "sha256": sha256,
            "path": ledger.path(sha256),
            "before": decision.mark,
            "by": ledger.teaches[decision.event].who,
        }
        for sha256, decision in ledger.decisions().items()
        if decision.kind == "cant-tell" and sha256 in ledger.usable()
    ]
    return {"n": len(found), "items": found[:_LISTED]}
