"""The status of a campaign: counts of images and labels, and labels per hour."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...images.decoding import PIXELS
from ...images.folder import find_left_out
from .class_names import NONE
from .event_log import EventLog
from .state import State

QUALITY = "quality.json"
"""How often a probe is right, as it was estimated last."""
LONGEST = 120.0
"""Seconds per label; what took longer had a pause in it."""
SHORTEST = 0.2
"""Seconds per label; what took less was labelled elsewhere, as in an old file."""


@dataclass(frozen=True)
class Pace:
    """How fast somebody labels.

    `n_labels` counts answers whose time is known, decisions and blind repeats; `hours`
    is what they took, each from somebody's answer before, or the last query. What took
    more than 120 seconds a label had a pause in it, and what took less than 0.2 was not
    labelled here: neither counts.
    """

    who: str
    n_labels: int
    hours: float

    @property
    def per_hour(self) -> float:
        """Labels per hour."""
        return self.n_labels / self.hours

    def __str__(self) -> str:
        return f"{self.who}: {self.per_hour:.0f} ({self.n_labels} timed)"


def measure_pace(log: EventLog, state: State) -> list[Pace]:
    """Time answers; see :class:`Pace`, within ``log.reading``."""
    n_answers = Counter(a.event for a in state.answers if a.act != "confirm")
    last: dict[str, datetime] = {}
    asked: datetime | None = None
    timed: dict[str, tuple[int, float]] = {}
    with log.intact():
        for event, text, who, kind in log.rows(
            "SELECT id, at, who, kind FROM events ORDER BY id"
        ):
            at = datetime.fromisoformat(text)
            if kind in ("query", "audit"):
                asked = at
            elif kind in ("teach", "repeat", "confirm", "answer", "undo"):
                n = n_answers[event]
                for begin in (last.get(who), asked) if n else ():
                    if begin is None:
                        continue
                    seconds = (at - begin).total_seconds()
                    if seconds / n <= LONGEST:
                        if seconds / n >= SHORTEST:
                            known, before = timed.get(who, (0, 0.0))
                            timed[who] = known + n, before + seconds
                        break
                last[who] = at
    return [Pace(who, n, s / 3600) for who, (n, s) in sorted(timed.items())]


@dataclass(frozen=True)
class Status:
    """Counts of a campaign's images and labels.

    Attributes
    ----------
    pools : dict of str to Path
        The pools by name; that of the first is empty.
    n_images, n_contents : int
        Files that are there, and different ones of them that can be decoded.
    unreadable : dict of str to str
        Files that cannot, with the reason.
    missing : list of str
        Files that were there once.
    n_labelled : int
        Different images with a label.
    labels, aside : dict of str to int
        Different images with each label, and with each mark. Where an image may have
        several labels, "?none" counts those with none of them.
    n_open : int
        Different images without a decision.
    pending : list of str
        Images of the last query without a decision.
    changed : list of str
        Files that changed since they were labelled: the label stays with what it was
        given for, the file counts as a new image.
    audit, audit_answered : int
        Different images that are kept apart to measure models with; those answered.
    unusable : int
        Labels of images that are missing, unreadable or changed: not trained with.
    pace : list of Pace
        Labels an hour, by person.
    left_out : dict of str to list of str
        Other files in the pools, by the reason: an ending, "no ending", "link to a
        folder", or an error. Hidden files do not count.
    quality : tuple or None
        Last :meth:`skadma.Campaign.quality`: share, interval, number of labels.
    """

    pools: dict[str, Path]
    n_images: int
    n_contents: int
    unreadable: dict[str, str]
    missing: list[str]
    n_labelled: int
    labels: dict[str, int]
    aside: dict[str, int]
    n_open: int
    pending: list[str]
    changed: list[str]
    audit: int
    audit_answered: int
    unusable: int
    pace: list[Pace]
    left_out: dict[str, list[str]]
    quality: tuple[float, float, float, int] | None = None

    def __str__(self) -> str:
        n_copies = self.n_images - len(self.unreadable) - self.n_contents
        labels = ", ".join(f"{name}: {n}" for name, n in self.labels.items())
        lines = [
            *(
                f"pool         {pool}" + (f", as {name}/" if name else "")
                for name, pool in self.pools.items()
            ),
            f"images       {self.n_images}, of which {len(self.unreadable)} unreadable "
            f"and {n_copies} copies of others",
            f"labelled     {self.n_labelled} ({labels})",
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
        if self.quality:
            right, low, high, n = self.quality
            lines.append(
                f"right        about {right:.0%} of the time "
                f"({low:.0%} to {high:.0%}), by {n} labels"
            )
        if self.unusable:
            lines.append(
                f"not trained  {self.unusable} labels, whose image is not there"
            )
        lines += [
            f"left out     {len(paths)}: {kind}{_HELP.get(kind, '')}"
            for kind, paths in self.left_out.items()
        ]
        for what, paths in (
            ("changed since it was labelled", self.changed),
            ("missing", self.missing),
            ("unreadable", [f"{p} ({_cause(r)})" for p, r in self.unreadable.items()]),
            *(("left out", paths) for paths in self.left_out.values()),
        ):
            lines.extend(f"{what}: {path}" for path in paths[:10])
            if len(paths) > 10:
                lines.append(f"{what}: {len(paths) - 10} more")
        if any("DecompressionBomb" in reason for reason in self.unreadable.values()):
            lines.append(
                "Images of more pixels than Pillow's limit are read once the "
                f"environment variable {PIXELS} has a larger one, such as "
                f"{PIXELS}=1000000000."
            )
        return "\n".join(lines)


_HELP = {
    **dict.fromkeys(
        (".heic", ".heif", ".hif"), " (to read them: pip install pillow-heif)"
    ),
    "no ending": " (to read images among them: rename them, such as to NAME.jpg)",
    "link to a folder": " (to read what is there: skadma pool add LINK --name NAME)",
}


def _cause(problem: str) -> str:
    """The error in a message of UnreadableImageError, whose path is told otherwise."""
    return problem.partition(" cannot be read (")[2].removesuffix(").") or problem


def _find_left_out(folders: Mapping[str, Path]) -> dict[str, list[str]]:
    """List what is no image file in the pools, by kind; nothing of one not there."""
    found: dict[str, list[str]] = {}
    for name, folder in folders.items():
        with contextlib.suppress(OSError):
            for kind, paths in find_left_out(folder).items():
                inside = (f"{name}/{path}" if name else path for path in sorted(paths))
                found.setdefault(kind, []).extend(inside)
    return dict(sorted(found.items()))


def make_status(log: EventLog, state: State) -> Status:
    """Count images and labels, within ``log.reading``."""
    pools = state.folders.roots
    usable, drawn = state.usable(), state.drawn()
    kinds = Counter(decision.kind for decision in state.decisions.values())
    names = state.class_names
    counts = state.counts()
    there = {i: c for i, c in state.contents.items() if c.sha256}
    asked = log.rows(
        "SELECT image FROM proposals WHERE event = ? ORDER BY place", state.last_query
    )
    return Status(
        pools=pools,
        n_images=len(there),
        n_contents=len(usable),
        unreadable={
            state.paths[i]: c.problem for i, c in there.items() if c.problem is not None
        },
        missing=[state.paths[i] for i in state.contents if i not in there],
        n_labelled=kinds["label"],
        labels={n: counts[n] for n in [*names.classes, *[NONE] * names.several]},
        aside={kind: kinds[kind] for kind in ("skip", "cant-tell", "not-an-image")},
        n_open=len(usable.keys() - state.decisions.keys() - drawn.keys()),
        pending=[
            state.paths[image]
            for (image,) in asked
            if image in state.paths
            and state.decision_of(image) is None
            and state.last_known[image] not in drawn
        ],
        changed=[state.paths[image] for image, _ in state.changed_since()],
        audit=len(drawn),
        audit_answered=len(drawn.keys() & state.audit_answers.keys()),
        unusable=kinds["label"] - len(state.labelled()),
        pace=measure_pace(log, state),
        left_out=_find_left_out(pools),
        quality=_read_quality(log.path.with_name(QUALITY)),
    )


def _read_quality(path: Path) -> tuple[float, float, float, int] | None:
    """Read what was written last; None if that is nothing or damaged."""
    try:
        right, low, high, n = map(float, json.loads(path.read_text()))
        return right, low, high, int(n)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
