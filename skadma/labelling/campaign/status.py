"""Where a campaign stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .answers import read_answers
from .event_log import Store
from .folders import Places
from .pace import Pace, measure_pace
from .state import State


@dataclass(frozen=True)
class Status:
    """Where a campaign stands.

    Attributes
    ----------
    pool : Path
    n_images : int
        Files that are there.
    n_contents : int
        Different ones that can be decoded.
    unreadable : dict of str to str
        Files that cannot, with the reason.
    missing : list of str
        Files that were there once.
    labels : dict of str to int
        Different images with each label.
    aside : dict of str to int
        Different images that were skipped, cannot be told, or are none.
    n_open : int
        Different images without a decision.
    pending : list of str
        Images of the last query without a decision.
    changed : list of str
        Files that changed since they were labelled: the label stays with what it was
        given for, the file counts as a new image.
    audit : int
        Different images that are kept apart to measure models with.
    audit_answered : int
        Those of them that somebody answered.
    unusable : int
        Labels of images that are missing, unreadable or changed: not trained with.
    pace : list of Pace
        Labels an hour, by person.
    more_pools : dict of str to Path
        Pools that were added, by name.
    """

    pool: Path
    n_images: int
    n_contents: int
    unreadable: dict[str, str]
    missing: list[str]
    labels: dict[str, int]
    aside: dict[str, int]
    n_open: int
    pending: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    audit: int = 0
    audit_answered: int = 0
    unusable: int = 0
    pace: list[Pace] = field(default_factory=list)
    more_pools: dict[str, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        n_copies = self.n_images - len(self.unreadable) - self.n_contents
        labels = ", ".join(f"{name}: {n}" for name, n in self.labels.items())
        lines = [
            f"pool         {self.pool}",
            *(f"pool         {pool}, as {n}/" for n, pool in self.more_pools.items()),
            f"images       {self.n_images}, of which {len(self.unreadable)} unreadable "
            f"and {n_copies} copies of others",
            f"labelled     {sum(self.labels.values())} ({labels})",
            "set aside    " + ", ".join(f"{k}: {n}" for k, n in self.aside.items()),
            f"open         {self.n_open}",
            f"last query   {len(self.pending)} still without an answer",
        ]
        if self.audit:
            lines.append(
                f"audit        {self.audit} kept apart, {self.audit_answered} answered"
            )
        if self.pace:
            lines.append("an hour      " + ", ".join(map(str, self.pace)))
        if self.unusable:
            lines.append(
                f"not trained  {self.unusable} labels, whose image is not there"
            )
        for what, paths in (
            ("changed since it was labelled", self.changed),
            ("missing", self.missing),
            ("unreadable", list(self.unreadable)),
        ):
            lines.extend(f"{what}: {path}" for path in paths[:10])
            if len(paths) > 10:
                lines.append(f"{what}: {len(paths) - 10} more")
        return "\n".join(lines)


def make_status(store: Store, state: State, places: Places) -> Status:
    """Count what a campaign has."""
    folders = places.folders(state.pools)
    usable, drawn = state.usable(), state.drawn()
    kinds = Counter(decision.kind for decision in state.decisions.values())
    given = Counter(d.label for d in state.decisions.values() if d.kind == "label")
    there = {i: c for i, c in state.contents.items() if c.sha256}
    last = store.rows("SELECT max(id) FROM events WHERE kind = 'query'")[0][0]
    asked = store.rows(
        "SELECT image FROM proposals WHERE event = ? ORDER BY place", last
    )
    changed = [state.paths[image] for image, _ in state.changed_since()]
    return Status(
        pool=folders.pop(""),
        n_images=len(there),
        n_contents=len(usable),
        unreadable={
            state.paths[i]: c.problem for i, c in there.items() if c.problem is not None
        },
        missing=[state.paths[i] for i in state.contents if i not in there],
        labels={name: given[name] for name in state.classes},
        aside={kind: kinds[kind] for kind in ("skip", "cant-tell", "not-an-image")},
        n_open=len(usable.keys() - state.decisions.keys() - drawn.keys()),
        pending=[
            state.paths[image]
            for (image,) in asked
            if image in state.paths
            and state.decision_of(image) is None
            and state.last_known[image] not in drawn
        ],
        changed=changed,
        audit=len(drawn),
        audit_answered=len(drawn.keys() & state.answers.keys()),
        unusable=sum(given.values()) - len(state.labelled()),
        pace=measure_pace(store, read_answers(store, state)),
        more_pools=folders,
    )
