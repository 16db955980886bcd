"""Labels from a file or a person: resolved to images, then written or refused."""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..._utils.tables import escape_cell
from .class_names import NONE, SEPARATOR, ClassNames, spelling
from .event_log import CampaignError, EventLog
from .label_studio import read_export
from .labels_csv import MARKS, NO_END, LabelFileError, LabelRow, read_labels
from .state import State, read_state


@dataclass(frozen=True)
class TeachResult:
    """How many labels were new, and which were refused.

    Of the images, `n_new` had no decision before, `n_changed` another one and `n_same`
    that very one. `refused` has the rows that were left out, with reasons (only with
    `partial`), and `n_repeats` counts new blind answers about images that are decided.
    """

    n_new: int
    n_changed: int
    n_same: int
    refused: list[str]
    n_repeats: int = 0


class ResolvedRow(NamedTuple):
    """A label of an image of the campaign."""

    image: int
    sha256: str
    mark: str  # a class, or a mark such as "?skip"
    who: str = ""  # empty: whoever works on the campaign
    where: str = ""  # name of the row in messages, such as "line 7"


class GivenLabels(NamedTuple):
    """Labels that somebody gave."""

    name: str  # for messages and the log
    rows: list[LabelRow]
    at_once: bool  # decided just now, not read from a file, which may be older


def read_rows(
    labels: Mapping[str, str] | Sequence[LabelRow] | str | Path,
) -> GivenLabels:
    """Read labels in any of the forms that :meth:`Campaign.teach` takes."""
    items: Any = getattr(labels, "items", None)
    if isinstance(labels, Mapping) or (items and getattr(labels, "ndim", 0) == 1):
        # A mapping, or a Series of pandas with paths as its index.
        pairs = [(os.fsdecode(k), v) for k, v in items()]
        labels = [LabelRow(repr(k), k, _text(v)) for k, v in pairs]
    if not isinstance(labels, (str, Path)):
        rows = list(labels)
        if not all(isinstance(row, LabelRow) for row in rows):
            raise CampaignError(
                f"The labels are {type(labels).__name__}. Give a dict from paths to "
                "labels, a Series with paths as its index, or the path of a label "
                "file. Of a table make dict(zip(table['path'], table['label']))."
            )
        return GivenLabels("labels", rows, True)
    if Path(labels).suffix.lower() == ".json":
        rows = read_export(labels)
    else:
        rows = read_labels(labels)
    return GivenLabels(str(labels), rows, False)


def _text(label: Any) -> str:
    """The text of a label, which may be a list or an array of classes."""
    label = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(label, (list, tuple, set, frozenset)):
        return SEPARATOR.join(map(str, label)) if label else NONE
    return str(label)


def record_labels(
    log: EventLog, given: GivenLabels, *, partial: bool, kind: str = "teach"
) -> TeachResult:
    """Write labels into the log, within a transaction.

    To "teach" is to decide. If the rows say who: one for each image decides, of the
    person who decided before or was first to tell the class; other people's are
    repeats. A "repeat" is about an image that is decided, an "answer" about one in an
    audit. With `partial`, rows that cannot be taken are left out.
    """
    state = read_state(log)
    name, rows, at_once = given
    if Path(name).suffix.lower() == ".json":
        state.class_names.refuse_several("What Label Studio exports")
    rows = _in_present_names(rows, state)
    repeats: list[LabelRow] = []
    if kind == "repeat":
        rows, repeats = [], rows
    elif kind == "teach" and any(row.who for row in rows):
        rows, repeats = _split_by_person(rows, state)
    audit = kind == "answer"
    held = state.audit_answers if audit else state.decisions
    resolved, refused = _resolve_rows(rows, state, at_once=at_once, audit=audit)
    marks = [held[r.sha256].mark if r.sha256 in held else None for r in resolved]
    changes = [r for r, mark in zip(resolved, marks, strict=True) if r.mark != mark]
    first = add_answers(log, kind, name, changes)
    again, more = _resolve_repeats(log, repeats, at_once)
    refused += more
    add_answers(log, "repeat", name, again, first)
    if refused and not partial:
        raise LabelFileError(name, refused, len(rows) + len(repeats))
    n_new = marks.count(None)
    n_same = len(resolved) - len(changes)
    return TeachResult(n_new, len(changes) - n_new, n_same, refused, len(again))


def _in_present_names(rows: Iterable[LabelRow], state: State) -> list[LabelRow]:
    """Give classes their present names in rows that tell as of which event they are."""

    def present(row: LabelRow) -> LabelRow:
        names = state.class_names
        at = names.at(state.as_of if row.as_of is None else row.as_of)
        ever = names.ever
        meant = names.each(
            row.label, lambda name: name if name in ever else spelling(name, at) or name
        )
        if meant != row.label:
            if meant.casefold() == row.label.casefold():
                said = f"{row.label!r} is taken for the class {meant!r}."
                warnings.warn(said, stacklevel=6)
            row = replace(row, label=meant)
        if not row.problem and _may_be_cut(row, state.class_names):
            row = replace(row, problem=NO_END)
        if row.as_of is None or row.problem:
            return row
        if state.as_of < row.as_of < sys.maxsize:
            problem = (
                f"as_of is {row.as_of}, but the campaign's log ends at {state.as_of}: "
                "the row is of another campaign, or an older copy took its place. "
                "If its labels are meant for this one, remove the column as_of."
            )
            return replace(row, problem=problem)
        try:
            return replace(row, label=state.class_names.meant(row.label, row.as_of))
        except CampaignError as error:
            return replace(row, problem=str(error))

    return list(map(present, rows))


def _may_be_cut(row: LabelRow, names: ClassNames) -> bool:
    """Whether the label or the event could have been longer; a path is looked up."""
    if row.last_column == "label":
        if names.several and not row.label.startswith("?"):
            return True  # more labels may have followed
        known = {*MARKS, *names.ever}
        return _is_start(row.label, known | {escape_cell(name) for name in known})
    return row.last_column == "as_of" and names.last_change > (row.as_of or 0)


def _is_start(text: str, others: Iterable[str]) -> bool:
    """Whether a text is the start of another one, however accents are composed."""
    start = unicodedata.normalize("NFD", text)
    plain = (unicodedata.normalize("NFD", other) for other in others)
    return any(other != start and other.startswith(start) for other in plain)


def _split_by_person(
    rows: Sequence[LabelRow], state: State
) -> tuple[list[LabelRow], list[LabelRow]]:
    """Find the rows that decide, and those that are repeats."""
    known = {(a.sha256, a.who, a.mark) for a in state.answers if a.act == "teach"}
    groups: dict[str, list[LabelRow]] = {}
    for row in rows:
        image = find_image(row.path, state)
        sha256 = row.sha256 or ("" if image is None else state.last_known[image])
        groups.setdefault("" if row.problem else sha256, []).append(row)
    deciding = groups.pop("", [])  # _resolve_rows gives the reasons against them
    repeats = []
    for sha256, group in groups.items():
        with_class = [row for row in group if row.label not in MARKS]
        decider = (with_class or group)[:1]
        holder = state.decisions.get(sha256)
        if holder is not None and holder.label is not None:
            if all(row.who != holder.who for row in group):
                decider = []
            else:
                decider = [r for r in with_class if r.who == holder.who] or decider
        deciding += decider
        repeats += [
            row
            for row in group
            if row not in decider
            and row.label != "?skip"  # which is no answer
            and (sha256, row.who, row.label) not in known
        ]
    return deciding, repeats


def _resolve_repeats(
    log: EventLog, rows: Sequence[LabelRow], at_once: bool
) -> tuple[list[ResolvedRow], list[str]]:
    """Find the blind answers that are new, and the reasons against others."""
    state = read_state(log)
    known = state.repeats
    new: list[ResolvedRow] = []
    refused: list[str] = []
    for who in dict.fromkeys(row.who for row in rows):  # people may contradict others
        mine = [row for row in rows if row.who == who]
        resolved, problems = _resolve_rows(mine, state, at_once=at_once, blind=True)
        refused += problems
        for row in resolved:
            before = known.get((row.sha256, who or log.who))
            if row.sha256 not in state.decisions:
                refused.append(
                    f"{row.where}: {state.paths[row.image]!r} is not decided yet, so "
                    "this is no repeat. teach gives it its first label."
                )
            elif before is None or before.mark != row.mark:
                new.append(row)
    return new, refused


_OTHER = {
    False: "is in an audit, whose labels are never trained with. Give it by 'skadma "
    "evaluate', or end the audit with 'skadma evaluate --release' first.",
    True: "is in no audit. Give its label by 'skadma teach'.",
}


def _resolve_rows(
    rows: Sequence[LabelRow],
    state: State,
    *,
    at_once: bool,
    audit: bool = False,
    blind: bool = False,
) -> tuple[list[ResolvedRow], list[str]]:
    """Find the image of each row; return the rows, and the reasons against others.

    `at_once`: the rows are decided now, not from a file, which may be older than what
    an image is by now. `audit`: they must be about images of an audit; else about no
    such ones. `blind`: they are repeats, for which a decision about an older content of
    a file is of no use.
    """
    resolved: dict[int, ResolvedRow] = {}
    first: dict[str, tuple[str, str]] = {}
    refused = []
    before = {} if at_once else dict(state.changed_since())
    drawn = state.drawn()
    for row in rows:
        image = find_image(row.path, state)
        if row.problem:
            reason = row.problem
        elif image is None:
            reason = (
                f"{row.path!r} is not in the pool. Paths are relative to it, or "
                "absolute."
            )
        elif row.last_column == "path" and _is_start(state.paths[image], state.numbers):
            reason = NO_END
        elif not state.class_names.is_label(row.label) and row.label not in MARKS:
            reason = state.class_names.unknown(row.label, MARKS)
        elif row.sha256 and row.sha256 != state.last_known[image]:
            known = state.decisions.get(row.sha256)
            if not blind and known is not None and known.mark == row.label:
                continue  # it holds already, for the content that the file had then
            reason = (
                f"{row.path!r} is another picture by now than the one that the column "
                "sha256 names."
            )
        elif not row.sha256 and image in before and before[image].mark == row.label:
            reason = (
                f"{row.path!r} has changed since it was labelled {row.label!r}. If the "
                "label is for the picture as it is now, give it in a file that "
                "'skadma query' wrote, which tells what was looked at."
            )
        elif (state.last_known[image] in drawn) != audit:
            reason = f"{row.path!r} {_OTHER[audit]}"
        else:
            sha256 = state.last_known[image]
            where, label = first.setdefault(sha256, (row.where, row.label))
            if label == row.label:
                resolved[image] = ResolvedRow(image, sha256, label, row.who, row.where)
                continue
            reason = (
                f"{row.path!r} is {row.label!r} here, but {label!r} in {where}, which "
                "is the same image."
            )
        refused.append(f"{row.where}: {reason}")
    return list(resolved.values()), refused


def find_image(path: str, state: State) -> int | None:
    """Find the image that a path in a label file means; None if there is none."""
    numbers = state.numbers
    name = path if path in numbers else path.strip()
    if name in numbers:
        return numbers[name]
    if "\0" in name:
        return None
    names: Iterable[str] = [name]
    if os.path.isabs(name) or ".." in PurePosixPath(name).parts:  # noqa: PTH117
        names = state.folders.find(name)
    for each in names:
        name = PurePosixPath(each).as_posix()  # without ./ in front
        if name in numbers:
            return numbers[name]
        # Other systems spell accents otherwise.
        same = state.by_text.get(unicodedata.normalize("NFC", name), [])
        if len(same) == 1:
            return numbers[same[0]]
    return None


def add_answers(
    log: EventLog,
    kind: str,
    source: str,
    resolved: Sequence[ResolvedRow],
    first: int | None = None,
    **detail: Any,
) -> int | None:
    """Write answers, one event for each person, to be undone together.

    Returns the event that all of them belong to: `first`, or the first of their own.
    """
    table = "decisions" if kind == "teach" else "other_answers"
    for who in dict.fromkeys(row.who for row in resolved):
        mine = [row for row in resolved if row.who == who]
        more = detail if first is None else {**detail, "with": first}
        event = log.add_event(kind, who=who or None, source=source, n=len(mine), **more)
        first = event if first is None else first
        log.add(
            table,
            (
                (event, image, sha256, mark[1:], None)
                if mark in MARKS
                else (event, image, sha256, "label", mark)
                for image, sha256, mark, *_ in mine
            ),
        )
    return first
