"""The history of a campaign, from its log: events, decisions, right guesses."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from .class_names import ClassNames, read_class_names
from .event_log import EventLog
from .labels_csv import MARKS
from .state import Decision, State

_TOGETHER = 10
"""Answers that were guessed one by one and count as one round."""
_DRAW = ("sha256", "stratum", "stratum_size")


def list_decisions(state: State) -> Iterator[tuple[str, Decision, str]]:
    """List what holds for each image; see :meth:`Campaign.decisions`."""
    copies: dict[str, list[int]] = {}
    for image, sha256 in state.last_known.items():
        copies.setdefault(sha256, []).append(image)
    for sha256, decision in state.decisions.items():
        images = copies.get(sha256, [])
        for image in images:
            missing = state.contents[image].sha256 is None
            yield state.paths[image], decision, "missing" if missing else "as labelled"
        if decision.image not in images:
            yield state.paths[decision.image], decision, "changed"


def list_events(log: EventLog) -> list[dict[str, Any]]:
    """List every event; see :meth:`Campaign.log`."""
    with log.reading(), log.intact():
        paths = dict(log.rows("SELECT id, path FROM images"))
        names = read_class_names(log)
        events = {
            row[0]: dict(zip(("id", "at", "who", "kind"), row, strict=False))
            | json.loads(row[4])
            for row in log.rows("SELECT * FROM events ORDER BY id")
        }
        for table, event, image, sha256, kind, label in log.rows(
            "SELECT 'decisions', * FROM decisions UNION ALL "
            "SELECT 'other_answers', * FROM other_answers ORDER BY event, image"
        ):
            answer = {"path": paths[image], "sha256": sha256, "label": f"?{kind}"}
            if kind == "label":
                answer |= _now_and_then(names, "label", label, event)
            events[event].setdefault(table, []).append(answer)
        for event, image, *design in log.rows(
            f"SELECT event, image, {', '.join(_DRAW)} FROM draws ORDER BY event, place"
        ):
            draw = {"path": paths[image]} | dict(zip(_DRAW, design, strict=True))
            events[event].setdefault("draws", []).append(draw)
        guessed = [
            (number, int(image), None, *guess)
            for number, event in events.items()
            for image, guess in event.pop("guessed", {}).items()
        ]
        for event, image, score, guess, confidence in guessed + log.rows(
            "SELECT event, image, score, guess, confidence "
            "FROM proposals ORDER BY event, place"
        ):
            proposal = {"path": paths[image], "score": score}
            proposal |= _now_and_then(names, "guess", guess, event)
            proposal["confidence"] = confidence
            events[event].setdefault("proposals", []).append(proposal)
        return list(events.values())


def _now_and_then(
    names: ClassNames, key: str, name: str | None, event: int
) -> dict[str, str | None]:
    """The present name of a class, and the name that was given where it differs."""
    now = name and names.now(name, event)
    return {key: now} if now == name else {key: now, f"{key}_then": name}


def right_guesses(
    events: Sequence[dict[str, Any]], decisions: Sequence[tuple[str, Decision, str]]
) -> list[tuple[int, int, int]]:
    """Per query: labels before it, images with a label by now, those guessed right.

    Or per ten answers that were guessed one by one. Events and decisions as
    :meth:`Campaign.log` and :meth:`Campaign.decisions` list them.
    """
    labels = {path: d for path, d, _ in decisions if d.kind == "label"}
    first: dict[str, int] = {}  # events in which contents got their first label
    for event in events:
        for decision in event.get("decisions", []):
            if decision["label"] not in MARKS:
                first.setdefault(decision["sha256"], event["id"])
    given = sorted(first[d] for d in {d.sha256 for d in labels.values()})
    rounds: list[tuple[int, int, int]] = []
    seen: set[str] = set()
    singly = False  # whether the last of the rounds was guessed one by one
    for event in reversed(events):  # an image counts for the last query it was in
        guesses = {
            p["path"]: p["guess"]
            for p in event.get("proposals", [])
            if p["guess"] is not None and p["path"] in labels
        }
        answered = [
            path
            for path in guesses
            if path not in seen and labels[path].event >= event["id"]
        ]
        seen.update(answered)
        if answered:
            right = sum(guesses[path] == labels[path].label for path in answered)
            more = more_right = 0
            if singly and event["kind"] == "teach" and rounds[-1][1] < _TOGETHER:
                _, more, more_right = rounds.pop()
            singly = event["kind"] == "teach"
            n_before = bisect_left(given, event["id"])
            rounds.append((n_before, len(answered) + more, right + more_right))
    return rounds[::-1]
