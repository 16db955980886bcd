"""Labels from a file or a person are written down, or refused with reasons."""

from __future__ import annotations

from collections.abc import Sequence

from .answers import read_answers, standing_repeats
from .decide import Said, Taught, decide, decision_row
from .labels_csv import LabelFileError, LabelRow
from .pools import Places
from .state import read_state
from .store import Store


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
        They decide.
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
    said, refused = decide(rows, state, places, at_once=at_once)
    before = [state.decisions.get(each.sha256) for each in said]
    fresh = [
        each
        for each, known in zip(said, before, strict=True)
        if known is None or known.mark != each.mark
    ]
    first = add_said(store, "teach", name, fresh)
    n_new = sum(known is None for known in before)
    n_repeats = 0
    if repeats:
        again, more = _decide_repeats(store, repeats, places, at_once)
        refused += more
        n_repeats = len(again)
        add_said(store, "repeat", name, again, first)
    if refused and not partial:
        raise LabelFileError(name, refused, len(rows) + len(repeats))
    return Taught(n_new, len(fresh) - n_new, len(said) - len(fresh), refused, n_repeats)


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
    kind : {"teach", "repeat", "confirm"}
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
