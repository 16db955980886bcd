"""What the log says, for people and other programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from .event_log import Store
from .naming import Naming, read_naming
from .state import Decision, State
from .trainer import Proposal


def list_decisions(state: State) -> Iterator[tuple[str, Decision, str]]:
    """List what holds for each image; see :meth:`Campaign.decisions`."""
    copies: dict[str, list[int]] = {}
    for image, sha256 in state.last_known.items():
        copies.setdefault(sha256, []).append(image)
    for sha256, decision in state.decisions.items():
        images = copies.get(sha256, [])
        for image in images:
            gone = state.contents[image].sha256 is None
            yield state.paths[image], decision, "missing" if gone else "as labelled"
        if decision.image not in images:
            yield state.paths[decision.image], decision, "changed"


def list_events(store: Store) -> list[dict[str, Any]]:
    """List every event; see :meth:`Campaign.log`. Within ``store.reading``."""
    with store.intact():
        return _list_events(store)


def _list_events(store: Store) -> list[dict[str, Any]]:
    paths = dict(store.rows("SELECT id, path FROM images"))
    naming = read_naming(store)
    events = {
        row[0]: dict(zip(("id", "at", "who", "kind"), row, strict=False))
        | json.loads(row[4])
        for row in store.rows("SELECT * FROM events ORDER BY id")
    }
    for table, event, image, sha256, kind, label in store.rows(
        "SELECT 'decisions', * FROM decisions UNION ALL "
        "SELECT 'looks', * FROM looks ORDER BY event, image"
    ):
        said = {"path": paths[image], "sha256": sha256, "label": f"?{kind}"}
        if kind == "label":
            said |= _today(naming, "label", label, event)
        events[event].setdefault(table, []).append(said)
    for event, _, image, sha256, stratum, size, probability in store.rows(
        "SELECT * FROM draws ORDER BY event, place"
    ):
        events[event].setdefault("draws", []).append(
            {
                "path": paths[image],
                "sha256": sha256,
                "stratum": stratum,
                "stratum_size": size,
                "probability": probability,
            }
        )
    for event, _, image, score, guess, confidence in store.rows(
        "SELECT * FROM proposals ORDER BY event, place"
    ):
        events[event].setdefault("proposals", []).append(
            {
                "path": paths[image],
                "score": score,
                **_today(naming, "guess", guess, event),
                "confidence": confidence,
            }
        )
    return list(events.values())


def _today(
    naming: Naming, key: str, name: str | None, event: int
) -> dict[str, str | None]:
    """A class as it is called today, and as it was said where that is another name."""
    now = name and naming.now(name, event)
    return {key: now} if now == name else {key: now, f"{key}_then": name}


def recorded_query(store: Store, state: State, key: str) -> list[Proposal]:
    """Find the answer to a query that was asked before; empty if it was not."""
    for event, detail in store.rows(
        "SELECT id, detail FROM events WHERE kind = 'query' ORDER BY id DESC"
    ):
        with store.intact():
            found = json.loads(detail)["key"] == key
        if found:
            rows = store.rows(
                "SELECT image, score, guess, confidence FROM proposals "
                "WHERE event = ? ORDER BY place",
                event,
            )
            return [
                Proposal(
                    state.paths[image],
                    score,
                    guess,
                    confidence,
                    str(state.contents[image].sha256),
                )
                for image, score, guess, confidence in rows
            ]
    return []


def last_acts(store: Store, state: State) -> list[int]:
    """Find the events that an undo takes back, oldest first."""
    last = state.acts[-1]
    ((detail,),) = store.rows("SELECT detail FROM events WHERE id = ?", last)
    with store.intact():
        first = json.loads(detail).get("with", last)
        return state.acts[state.acts.index(first) :]


def images_of(store: Store, events: Iterable[int]) -> list[int]:
    """List the images that events said something of, each once."""
    found: dict[int, None] = {}
    for event in events:
        rows = store.rows(
            "SELECT image FROM decisions WHERE event = ?1 "
            "UNION SELECT image FROM looks WHERE event = ?1 ORDER BY image",
            event,
        )
        found.update(dict.fromkeys(image for (image,) in rows))
    return list(found)
