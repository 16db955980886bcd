"""Look for damage in a campaign's log: changed rows, events that cannot be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from .class_names import read_class_names
from .event_log import DATABASE, CampaignError, EventLog
from .state import ACTS, read_state
from .stored_settings import check_settings

_ROWS = {
    "start": ("contents", "n_images"),
    "scan": ("contents", "n_changes"),
    "pool": ("contents", "n_images"),
    "teach": ("decisions", "n"),
    "repeat": ("other_answers", "n"),
    "confirm": ("other_answers", "n"),
    "answer": ("other_answers", "n"),
    "query": ("proposals", "n"),
    "audit": ("draws", "n"),
}
"""The rows that a kind of event has, and the detail that tells how many."""


def find_problems(folder: Path) -> list[str]:
    """List what is wrong in a campaign's folder; nothing is changed."""
    with closing(EventLog(folder / DATABASE, check=False)) as log, log.reading():
        problems = log.find_damage()
        for check in (_check_rows, _check_labels):
            try:
                with log.intact():
                    problems += check(log)
            except CampaignError as error:
                problems.append(str(error))
        try:
            check_settings(log.settings())
            read_state(log)
        except CampaignError as error:
            problems.append(str(error))
    return problems


def _check_rows(log: EventLog) -> Iterator[str]:
    """Compare what events tell with their rows, and with the events before."""
    counts = {
        table: Counter(event for (event,) in log.rows(f"SELECT event FROM {table}"))
        for table in {table for table, _ in _ROWS.values()}
    }
    standing: dict[int, str] = {}
    audits: set[int] = set()
    for event, kind, text in log.rows("SELECT id, kind, detail FROM events"):
        detail = json.loads(text)
        own, key = _ROWS.get(kind, ("", ""))
        for table, count in counts.items():
            told = detail.get(key) if table == own else 0
            if count[event] != told:
                yield f"event {event} ({kind}): {count[event]} {table}, and not {told}"
        if kind == "undo" and standing.pop(detail["undone"], None) is None:
            yield f"event {event} takes back {detail['undone']}, which does not stand"
        if kind == "release" and not audits.issuperset(detail["audits"]):
            yield f"event {event} releases {detail['audits']}, which are no audits"
        if "with" in detail and detail["with"] not in standing:
            yield f"event {event} belongs to {detail['with']}, which does not stand"
        if kind in ACTS:
            standing[event] = kind
        if kind == "audit":
            audits.add(event)


def _check_labels(log: EventLog) -> Iterator[str]:
    """Find labels that were no class, and answers about unknown pictures."""
    names = read_class_names(log)
    paths = dict(log.rows("SELECT id, path FROM images"))
    contents = {sha256 for (sha256,) in log.rows("SELECT sha256 FROM contents")}
    for event, image, sha256, label in log.rows(
        "SELECT event, image, sha256, label FROM decisions UNION ALL "
        "SELECT event, image, sha256, label FROM other_answers UNION ALL "
        "SELECT event, image, NULL, guess FROM proposals UNION ALL "
        "SELECT event, image, sha256, NULL FROM draws"
    ):
        about = f"event {event}, {paths.get(image, image)!r}"
        known = names.at(event)
        if label is not None and not {*names.split(label)} <= known.keys():
            yield f"{about}: {label!r} is no class"
        if sha256 is not None and sha256 not in contents:
            yield f"{about}: the picture {sha256} was never there"
