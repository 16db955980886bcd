"""Label Studio's formats: tasks and predictions for it, annotations from it."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

from .event_log import CampaignError
from .labels_csv import LabelRow

if TYPE_CHECKING:
    from .state import Proposal

NAME, TO = "label", "image"
"""Names of the tags in the configuration, which results refer to."""

_KEYS = "123456789" + string.ascii_lowercase
_ASIDE = (("?cant-tell", "0"), ("?not-an-image", "-"))


# --- what Label Studio imports --------------------------------------------------------


def label_config(classes: Sequence[str]) -> str:
    """Make the labelling configuration of a project.

    One choice for each class, with a key: 1 to 9, then letters; then ``?cant-tell`` (0)
    and ``?not-an-image`` (-). What is skipped is skipped in Label Studio's own way.
    Gives XML; CampaignError if it cannot hold a class's name.
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=TO, value="$image")
    how = {"name": NAME, "toName": TO, "choice": "single-radio", "required": "true"}
    choices = ElementTree.SubElement(view, "Choices", how)
    of_classes = zip_longest(classes, _KEYS[: len(classes)], fillvalue="")
    for name, key in (*of_classes, *_ASIDE):
        hotkey = {"hotkey": key} if key else {}
        ElementTree.SubElement(choices, "Choice", {"value": name, **hotkey})
    ElementTree.indent(view)
    config = ElementTree.tostring(view, "unicode")
    try:
        ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise CampaignError(
            f"XML cannot hold the name of one of the classes {list(classes)} ({error})."
        ) from error
    return f"{config}\n"


def make_tasks(
    proposals: Iterable[Proposal],
    prefix: str,
    model_version: str,
    *,
    pools: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Make tasks to import, with the model's guesses as predictions.

    `prefix` is where the pool is below Label Studio's root of local files, and may be
    empty; `pools` has the same by name for pools that were added. `model_version` names
    the guesses. ``json.dumps`` of the tasks gives the file.
    """
    tasks = []
    for rank, proposal in enumerate(proposals):
        name, _, inside = proposal.path.partition("/")
        parts = prefix, proposal.path
        if pools and inside and name in pools:
            parts = pools[name], inside
        place = "/".join(part.strip("/") for part in parts if part.strip("/"))
        data = {
            "image": f"/data/local-files/?d={quote(place)}",
            "path": proposal.path,
            "sha256": proposal.sha256,
            "rank": rank,
        }
        if proposal.as_of is not None:
            data["as_of"] = proposal.as_of  # what the names of classes mean then
        if proposal.score is not None:
            data["score"] = proposal.score
        task: dict[str, Any] = {"data": data}
        if proposal.guess is not None and proposal.confidence is not None:
            task["predictions"] = [
                prediction(proposal.guess, proposal.confidence, model_version)
            ]
        tasks.append(task)
    return tasks


def prediction(guess: str, confidence: float, model_version: str) -> dict[str, Any]:
    """Make a task's prediction of a class, with its probability."""
    return {
        "model_version": model_version,
        "score": confidence,
        "result": [
            {
                "from_name": NAME,
                "to_name": TO,
                "type": "choices",
                "value": {"choices": [guess]},
            }
        ],
    }


# --- what it exports ------------------------------------------------------------------


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
    keys = {"annotations", "completions", "data", "path", "image"}
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and keys & task.keys() for task in tasks
    ):
        raise CampaignError(
            f"{str(path)!r} is no export of Label Studio: there should be a list of "
            "tasks. Export the project as JSON or JSON-MIN."
        )
    found: list[tuple[str, LabelRow]] = []
    for number, task in enumerate(tasks, 1):
        where = f"task {task.get('id', f'number {number} of the file')}"
        if {"annotations", "completions", "data"} & task.keys():
            # Label Studio before 1.0 called them completions.
            annotations = task.get("annotations", task.get("completions", []))
            if not isinstance(annotations, list):
                annotations = [None]
            found += rows_of_task(task.get("data"), annotations, where)
        elif task.get("annotation_id") is not None:  # else nobody has seen it
            found.append(_row_of_min(task, where))
    return in_order(found)


def in_order(found: Iterable[tuple[str, LabelRow]]) -> list[LabelRow]:
    """Sort rows by time; of one person's about one picture the last stays."""
    last: dict[tuple[str, ...], LabelRow] = {}
    for _, row in sorted(found, key=lambda item: item[0]):
        key = (row.path, row.sha256, row.who)
        last[(*key, row.where) if row.problem else key] = row
    return list(last.values())


def rows_of_task(
    data: Any, annotations: Iterable[Any], where: str
) -> Iterator[tuple[str, LabelRow]]:
    """Make rows of a task's annotations, each with the time when it was made.

    `data` is the task's; what skadma exported has path and sha256. Messages call the
    task `where`.
    """
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            problem = "an annotation is none of Label Studio's."
            yield "", _row(data, where, "", "", problem)
            continue
        here = f"{where}, annotation {annotation.get('id', 'without number')}"
        mark, problem = "?skip", ""
        if not annotation.get("was_cancelled"):
            mark, problem = _choice_of(annotation.get("result"))
        who = _who(annotation.get("completed_by"))
        yield _time(annotation), _row(data, here, mark, who, problem)


def _row_of_min(task: Mapping[str, Any], where: str) -> tuple[str, LabelRow]:
    """Make the row of a task of JSON-MIN, which has one annotation."""
    chosen = task.get(NAME)
    if isinstance(chosen, Mapping):
        chosen = chosen.get("choices")
    mark, problem = _only([chosen] if isinstance(chosen, str) else chosen)
    who = _who(task.get("annotator"))
    return _time(task), _row(task, where, mark, who, problem)


def _row(data: Any, where: str, mark: str, who: str, problem: str) -> LabelRow:
    data = data if isinstance(data, Mapping) else {}
    path, sha256, text = data.get("path"), data.get("sha256", ""), data.get("as_of")
    known = str(text).isdecimal() and len(str(text)) < 19
    as_of = int(str(text)) if known else sys.maxsize  # a project keeps former names
    if not isinstance(path, str) or not isinstance(sha256, str):
        problem = (
            "its data has no path as skadma's tasks have. Import what 'skadma export "
            "--to label-studio' writes."
        )
        path = sha256 = ""
    return LabelRow(where, path, mark, sha256.lower(), problem, who, as_of=as_of)


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
    """The one choice, or what is wrong."""
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
