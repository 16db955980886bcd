"""Labels from a file or a person are written down, or refused with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .answers import Answer, holding, read_answers, standing_repeats
from .decide import Said, Taught, decide, decision_row, find_image
from .event_log import Store
from .folders import Places
from .label_studio_export import in_todays_names, read_export
from .labels_csv import MARKS, LabelFileError, LabelRow, read_labels
from .state import Decision, State, read_state


def record(
    store: Store,
    name: str,
    rows: Sequence[LabelRow],
    repeats: Sequence[LabelRow],
    places: Places,
    *,
    at_once: bool,
    partial: bool,
) -> Taught:
    """Take rows, within a transaction.

    Parameters
    ----------
    store : Store
    name : str
        Of the file.
    rows : sequence of LabelRow
        They decide. If they say who: one for each image does, of the person who
        decided before or was first to tell the class; other people's are repeats.
    repeats : sequence of LabelRow
        What was said, blind, of images that are decided, if only by `rows`.
    places : Places
    at_once : bool
        See :func:`decide`.
    partial : bool
        Leave out rows that cannot be taken.

    Returns
    -------
    Taught

    Raises
    ------
    LabelFileError
        If there are such rows, without `partial`.
    """
    state = read_state(store)
    if any(row.who for row in rows):
        rows, others = _by_people(rows, state, read_answers(store, state), places)
        repeats = [*repeats, *others]
    said, refused = decide(rows, state, places, at_once=at_once)
    counts, first = add_changes(store, "teach", name, said, state.decisions)
    n_repeats = 0
    if repeats:
        again, more = _decide_repeats(store, repeats, places, at_once)
        refused += more
        n_repeats = len(again)
        add_said(store, "repeat", name, again, first)
    if refused and not partial:
        raise LabelFileError(name, refused, len(rows) + len(repeats))
    return Taught(*counts, refused, n_repeats)


def _by_people(
    rows: Sequence[LabelRow],
    state: State,
    answers: Sequence[Answer],
    places: Places,
) -> tuple[list[LabelRow], list[LabelRow]]:
    """Find the rows that decide, and those that are repeats."""
    held = holding(answers)
    known = {(a.sha256, a.who, a.mark) for a in answers if a.act == "teach"}
    numbers = state.numbers
    groups: dict[str, list[LabelRow]] = {}
    for row in rows:
        image = find_image(row.path, numbers, state, places)
        sha256 = row.sha256 or ("" if image is None else state.last_known[image])
        groups.setdefault("" if row.problem else sha256, []).append(row)
    deciding = groups.pop("", [])  # it will be said what is wrong with them
    repeats = []
    for sha256, group in groups.items():
        telling = [row for row in group if row.label not in MARKS]
        decider = (telling or group)[:1]
        holder = held.get(sha256)
        if holder is not None and holder.mark not in MARKS:
            if all(row.who != holder.who for row in group):
                decider = []
            else:
                decider = [r for r in telling if r.who == holder.who] or decider
        deciding += decider
        repeats += [
            row
            for row in group
            if row not in decider
            and row.label != "?skip"  # which is no answer
            and (sha256, row.who, row.label) not in known
        ]
    return deciding, repeats


def _decide_repeats(
    store: Store,
    rows: Sequence[LabelRow],
    places: Places,
    at_once: bool,
) -> tuple[list[Said], list[str]]:
    """Those that are new, and why others cannot be taken."""
    state = read_state(store)
    known = standing_repeats(read_answers(store, state))
    fresh: list[Said] = []
    refused: list[str] = []
    for who in dict.fromkeys(row.who for row in rows):  # people may contradict others
        mine = [row for row in rows if row.who == who]
        said, problems = decide(mine, state, places, at_once=at_once, blind=True)
        refused += problems
        for each in said:
            before = known.get((each.sha256, who or store.who))
            if each.sha256 not in state.decisions:
                refused.append(
                    f"{each.where}: {state.paths[each.image]!r} is not decided yet, so "
                    "this is no repeat. teach gives it its first label."
                )
            elif before is None or before.mark != each.mark:
                fresh.append(each)
    return fresh, refused


def add_said(
    store: Store, kind: str, source: str, said: Sequence[Said], first: int | None = None
) -> int | None:
    """Write down what was said, an event for each person, to be undone together.

    Parameters
    ----------
    store : Store
        Within a transaction.
    kind : {"teach", "repeat", "confirm", "answer"}
    source : str
        Name of the file it is from.
    said : sequence of Said
    first : int, optional
        The event that they belong to.

    Returns
    -------
    int or None
        The event that all of them belong to.
    """
    for who in dict.fromkeys(each.who for each in said):
        mine = [each for each in said if each.who == who]
        together = {} if first is None else {"with": first}
        event = store.add_event(
            kind, who=who or None, source=source, n=len(mine), **together
        )
        first = event if first is None else first
        table = "decisions" if kind == "teach" else "looks"
        store.add(table, (decision_row(event, *each[:3]) for each in mine))
    return first


def add_changes(
    store: Store,
    kind: str,
    source: str,
    said: Sequence[Said],
    held: Mapping[str, Decision],
) -> tuple[tuple[int, int, int], int | None]:
    """Write down what is not as it was said before.

    Parameters
    ----------
    store, kind, source, said
        See :func:`add_said`.
    held : mapping of str to Decision
        What was said before, by content.

    Returns
    -------
    counts : (int, int, int)
        How many are new, changed, the same.
    first : int or None
        The event that all of them belong to.
    """
    marks = [held[s.sha256].mark if s.sha256 in held else None for s in said]
    fresh = [s for s, mark in zip(said, marks, strict=True) if s.mark != mark]
    n_new = marks.count(None)
    counts = n_new, len(fresh) - n_new, len(said) - len(fresh)
    return counts, add_said(store, kind, source, fresh)


def read_rows(
    labels: Mapping[str, str] | Sequence[LabelRow] | str | Path,
    former: Mapping[str, str] | None = None,
) -> tuple[str, list[LabelRow], bool]:
    """Read labels in any of the forms that :meth:`Campaign.teach` takes.

    Parameters
    ----------
    labels : mapping of str to str, sequence of LabelRow, or path
    former : mapping of str to str, optional
        Names that classes had before. They are taken in what Label Studio exports,
        whose project may not know another; in a label file they may be a mistake.

    Returns
    -------
    name : str
        Of what was given, for messages and the log.
    rows : list of LabelRow
    at_once : bool
        Whether they were decided just now.
    """
    if isinstance(labels, Mapping):
        rows = [LabelRow(repr(k), k, str(v)) for k, v in labels.items()]
        return "labels", rows, True
    if not isinstance(labels, (str, Path)):
        return "labels", list(labels), True
    if Path(labels).suffix.lower() == ".json":
        rows = in_todays_names(read_export(labels), former or {})
        return str(labels), rows, False
    return str(labels), read_labels(labels), False
