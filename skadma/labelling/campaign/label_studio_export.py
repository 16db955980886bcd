"""Read annotations of Label Studio: exports in JSON and JSON-MIN, and webhooks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .event_log import CampaignError
from .labels_csv import LabelRow

NAME, TO = "label", "image"
"""Names of the tags in the configuration, which results refer to."""

_NO_TASKS = (
    "is no export of Label Studio: there should be a list of tasks. Export the project "
    "as JSON or JSON-MIN."
)


def read_export(path: str | Path) -> list[LabelRow]:
    """Read a file that Label Studio exported as JSON or JSON-MIN.

    Gives a row for each annotation, oldest first; the last where one person annotated
    an image more than once. What cannot be taken has its `problem`, with the task's
    number.
    """
    path = Path(path)
    try:
        tasks = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CampaignError(f"{str(path)!r} is no JSON ({error}).") from error
    if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
        raise CampaignError(f"{str(path)!r} {_NO_TASKS}")
    found: list[tuple[str, LabelRow]] = []
    for number, task in enumerate(tasks, 1):
        where = f"task {task.get('id', f'number {number} of the file')}"
        if {"annotations", "completions", "data"} & task.keys():
            # Label Studio before 1.0 called them completions.
            annotations = task.get("annotations", task.get("completions", []))
            if not isinstance(annotations, list):
                annotations = [None]
            found += rows_of_task(task.get("data"), annotations, where)
        elif "path" in task or "image" in task:
            if task.get("annotation_id") is not None:  # else nobody has seen it
                found.append(_row_of_min(task, where))
        else:
            raise CampaignError(f"{str(path)!r} {_NO_TASKS}")
    return in_order(found)


def in_order(found: Iterable[tuple[str, LabelRow]]) -> list[LabelRow]:
    """Sort rows by time; of one person's about one picture the last stays."""
    last: dict[tuple[str, ...], LabelRow] = {}
    for _, row in sorted(found, key=lambda item: item[0]):
        key = (row.path, row.sha256, row.who)
        last[(*key, row.where) if row.problem else key] = row
    return list(last.values())


def in_present_names(
    rows: Iterable[LabelRow], former: Mapping[str, str]
) -> list[LabelRow]:
    """Give rows the present names of classes: a project keeps the names that it got.

    `former` is what :meth:`skadma.Campaign.former_classes` gives.
    """
    return [
        dataclasses.replace(row, label=former.get(row.label, row.label)) for row in rows
    ]


def rows_of_task(
    data: Any, annotations: Iterable[Any], where: str
) -> Iterator[tuple[str, LabelRow]]:
    """Make rows of a task's annotations, each with the time when it was made.

    `data` is the task's; what skadma exported has path and sha256. Messages call the
    task `where`.
    """
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            yield (
                "",
                _row(data, where, "", "", "an annotation is none of Label Studio's."),
            )
            continue
        here = f"{where}, annotation {annotation.get('id', 'without number')}"
        mark, problem = "?skip", ""
        if not annotation.get("was_cancelled"):
            mark, problem = _choice_of(annotation.get("result"))
        who = _who(annotation.get("completed_by"))
        yield _time(annotation), _row(data, here, mark, who, problem)


def _row_of_min(task: Mapping[str, Any], where: str) -> tuple[str, LabelRow]:
    chosen = task.get(NAME)
    if isinstance(chosen, Mapping):
        chosen = chosen.get("choices")
    mark, problem = _only([chosen] if isinstance(chosen, str) else chosen)
    who = _who(task.get("annotator"))
    return _time(task), _row(task, where, mark, who, problem)


def _row(data: Any, where: str, mark: str, who: str, problem: str) -> LabelRow:
    path = data.get("path") if isinstance(data, Mapping) else None
    sha256 = data.get("sha256", "") if isinstance(data, Mapping) else ""
    if not isinstance(path, str) or not isinstance(sha256, str):
        problem = (
            "its data has no path as skadma's tasks have. Import what 'skadma export "
            "--to label-studio' writes."
        )
        path = sha256 = ""
    return LabelRow(where, path, mark, sha256.lower(), problem, who)


def _choice_of(result: Any) -> tuple[str, str]:
    """The choice in an annotation's result, or what is wrong with it."""
    chosen: list[Any] = []
    for region in result if isinstance(result, list) else ():
        if not isinstance(region, Mapping) or region.get("from_name") != NAME:
            continue  # what a project has beside our choices, such as comments
        value = region.get("value")
        values = value.get("choices") if isinstance(value, Mapping) else None
        chosen += values if isinstance(values, list) else [values]
    return _only(chosen)


def _only(chosen: Any) -> tuple[str, str]:
    if isinstance(chosen, list) and len(chosen) == 1 and isinstance(chosen[0], str):
        return chosen[0], ""
    return "", f"there must be one choice named {NAME!r}, got {chosen!r}."


def _who(person: Any) -> str:
    """Name an annotator; the same in exports, which may have more than a number."""
    if isinstance(person, Mapping):
        person = person.get("id", person.get("email"))
    if isinstance(person, int) and not isinstance(person, bool):
        return f"label-studio-{person}"
    return person if isinstance(person, str) and person else "label-studio"


def _time(annotation: Mapping[str, Any]) -> str:
    """When it was last changed: ISO 8601 in UTC, which sorts as text; "" if unknown."""
    for key in ("updated_at", "created_at"):
        try:
            at = datetime.fromisoformat(annotation[key])
        except (KeyError, TypeError, ValueError):
            continue
        at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at
        return at.astimezone(timezone.utc).isoformat(timespec="microseconds")
    return ""
