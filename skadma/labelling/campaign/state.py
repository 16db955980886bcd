"""What the log amounts to: the images, their contents and what was decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...evaluation import Audit
from .event_log import Store
from .folders import Pools, read_pools
from .image_index import Content, check_path
from .naming import Naming, read_naming


@dataclass(frozen=True)
class Decision:
    """What somebody decided about an image.

    Attributes
    ----------
    event : int
    image : int
        The number of the image that it was given for.
    sha256 : str
        What the image was then.
    kind : {"label", "skip", "cant-tell", "not-an-image"}
    label : str or None
        As the class is called today.
    """

    event: int
    image: int
    sha256: str
    kind: str
    label: str | None

    @property
    def mark(self) -> str:
        """The label, or the mark that stands for it in files."""
        return self.label if self.label is not None else f"?{self.kind}"


@dataclass(frozen=True)
class DrawnAudit:
    """Images that were drawn to measure models with: not queried, not trained with.

    Attributes
    ----------
    event : int
    model : str or None
        Name of the model by which they were drawn.
    images : list of int
        In the order of the draw.
    contents : list of str
        SHA-256 of what they were then.
    design : Audit
        Its indices are places in `images`.
    """

    event: int
    model: str | None
    images: list[int]
    contents: list[str]
    design: Audit


@dataclass
class State:
    """What holds at a moment.

    A decision is about a content: all images of that content share it, and an image
    whose file changed is a new one, while the decision stays with what it was about.

    Attributes
    ----------
    paths : dict of int to str
        By number of the image.
    contents : dict of int to Content
        The last that was found at each path.
    last_known : dict of int to str
        SHA-256 of what was last found, also of files that are gone.
    decisions : dict of str to Decision
        The one that holds, by content.
    naming : Naming
        What the classes are called.
    pools : Pools
        Where images come from.
    acts : list of int
        Events in which people said something of images or changed the classes or the
        pools, but for those undone.
    teaches : list of int
        Those of them with decisions.
    training_sets : list of list of (int, str)
        The labelled images and their labels after each change of them, oldest first;
        as far as the contents are still there. Labels that came one by one within a
        round are one change. A change of the classes begins anew.
    audits : list of DrawnAudit
        Those that were not released.
    answers : dict of str to Decision
        What was said of their images, by content.
    """

    naming: Naming
    pools: Pools = field(default_factory=Pools)

    paths: dict[int, str] = field(default_factory=dict)
    contents: dict[int, Content] = field(default_factory=dict)
    last_known: dict[int, str] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    acts: list[int] = field(default_factory=list)
    teaches: list[int] = field(default_factory=list)
    training_sets: list[list[tuple[int, str]]] = field(default_factory=list)
    audits: list[DrawnAudit] = field(default_factory=list)
    answers: dict[str, Decision] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers of the images by path."""
        return {path: image for image, path in self.paths.items()}

    @property
    def classes(self) -> list[str]:
        """Today's classes."""
        return self.naming.classes

    def usable(self) -> dict[str, int]:
        """Contents that are there and can be decoded, with the first image of each."""
        found: dict[str, int] = {}
        for image, content in self.contents.items():
            if content.sha256 and content.problem is None:
                found.setdefault(content.sha256, image)
        return found

    def labelled(self) -> list[tuple[int, str]]:
        """Usable images with a label, one per content."""
        return self.training_sets[-1] if self.training_sets else []

    def drawn(self) -> dict[str, DrawnAudit]:
        """Contents that are kept apart, with the audit that drew each."""
        return {sha256: audit for audit in self.audits for sha256 in audit.contents}

    def candidates(self) -> list[int]:
        """Images that a query chooses from, one per content.

        What was skipped comes up again when nothing else is left.
        """
        open_: list[int] = []
        skipped: list[int] = []
        drawn = self.drawn()
        for sha256, image in self.usable().items():
            if sha256 in drawn:
                continue
            decision = self.decisions.get(sha256)
            if decision is None:
                open_.append(image)
            elif decision.kind == "skip":
                skipped.append(image)
        return open_ or skipped

    def decision_of(self, image: int) -> Decision | None:
        """What holds for an image as it is now, or was last."""
        return self.decisions.get(self.last_known[image])

    def changed_since(self) -> list[tuple[int, Decision]]:
        """Images whose file is another by now than the one they were labelled with."""
        latest: dict[int, Decision] = {}
        for decision in self.decisions.values():
            if decision.kind == "label":
                known = latest.get(decision.image)
                if known is None or known.event < decision.event:
                    latest[decision.image] = decision
        return [
            (image, decision)
            for image, decision in sorted(latest.items())
            if self.last_known[image] != decision.sha256
            and self.decision_of(image) is None
        ]


def read_state(store: Store) -> State:
    """Add up the log.

    Parameters
    ----------
    store : Store
        Within one of its transactions, or ``reading``.

    Raises
    ------
    CampaignError
        If the log says what no campaign writes.
    """
    with store.intact():
        return _read_state(store)


def _read_state(store: Store) -> State:
    state = State(read_naming(store), read_pools(store))
    paths = {
        image: check_path(path)
        for image, path in store.rows("SELECT id, path FROM images")
    }
    found: dict[int, Content] = {}
    seen: set[int] = set()
    for event, image, *content in store.rows(
        "SELECT event, image, sha256, size, mtime_ns, problem FROM contents "
        "ORDER BY event"
    ):
        seen.add(image)
        if not state.pools.holds(paths[image], event):
            continue
        found[image] = Content(*content)
        if content[0]:
            state.last_known[image] = content[0]
    if seen != paths.keys():
        raise ValueError("an image is in no scan")
    # By path, as a listing of the folder has them, whenever they were found; those of
    # a pool that was added come after those that were there.
    state.paths = {
        image: path
        for _, path, image in sorted(
            (state.pools.owner(path), path, image)
            for image, path in paths.items()
            if image in found
        )
    }
    state.contents = {image: found[image] for image in state.paths}
    acts = _effective(store)
    kinds = {event: kind for event, (kind, _) in acts.items()}
    rounds = {event: round_ for event, (_, round_) in acts.items()}
    state.acts = list(acts)
    state.teaches = [event for event, kind in kinds.items() if kind == "teach"]
    given = read_said(store, state, "decisions")
    usable = state.usable()
    place = {sha256: i for i, sha256 in enumerate(usable)}
    following = dict(zip(state.teaches, state.teaches[1:], strict=False))
    for event, kind in kinds.items():
        if kind == "classes":
            state.training_sets.clear()
        elif kind != "teach":
            continue
        for decision in given.get(event, []):
            state.decisions[decision.sha256] = decision
        after = following.get(event)
        if after is not None and rounds[event] == rounds[after] is not None:
            continue
        held = [
            (place[sha256], usable[sha256], decision.label)
            for sha256, decision in state.decisions.items()
            if sha256 in place and decision.label is not None
        ]
        labelled = [(image, label) for _, image, label in sorted(held)]
        if labelled != state.labelled():
            state.training_sets.append(labelled)
    state.audits = read_audits(store)
    for event, said in read_said(store, state, "looks").items():
        if kinds[event] == "answer":
            state.answers |= {decision.sha256: decision for decision in said}
    return state


def read_audits(store: Store) -> list[DrawnAudit]:
    """Read the audits that were not released."""
    released: set[int] = set()
    drawn: dict[int, dict[str, Any]] = {}
    for event, kind, detail in store.rows(
        "SELECT id, kind, detail FROM events WHERE kind IN ('audit', 'release')"
    ):
        if kind == "release":
            released.update(json.loads(detail)["audits"])
        else:
            drawn[event] = json.loads(detail)
    audits = []
    for event, known in drawn.items():
        if event in released:
            continue
        rows = store.rows(
            "SELECT image, sha256, stratum, stratum_size, probability FROM draws "
            "WHERE event = ? ORDER BY place",
            event,
        )
        images, contents, strata, sizes, chances = map(list, zip(*rows, strict=True))
        design = Audit(
            np.arange(len(rows)),
            known["method"],
            known["population"],
            np.array(strata),
            np.array(sizes),
            np.array(chances),
        )
        audits.append(DrawnAudit(event, known["model"], images, contents, design))
    return audits


def read_said(store: Store, state: State, table: str) -> dict[int, list[Decision]]:
    """What was said in each event that was not undone, in today's names."""
    acts = set(state.acts)
    given: dict[int, list[Decision]] = {}
    for event, image, sha256, kind, label in store.rows(
        f"SELECT * FROM {table} ORDER BY event, image"
    ):
        if event not in acts:
            continue
        if image not in state.paths:
            raise ValueError(f"event {event} is about an image of no pool")
        now = label if label is None else state.naming.now(label, event)
        given.setdefault(event, []).append(Decision(event, image, sha256, kind, now))
    return given


ACTS = ("teach", "repeat", "confirm", "answer", "classes", "pool")
"""Kinds of the events that can be undone."""


def _effective(store: Store) -> dict[int, tuple[str, Any]]:
    """Kinds and rounds of what people did, without what was undone."""
    acts: dict[int, tuple[str, Any]] = {}
    for event, kind, detail in store.rows(
        "SELECT id, kind, detail FROM events ORDER BY id"
    ):
        if kind == "undo":
            del acts[json.loads(detail)["undone"]]
        elif kind in ACTS:
            acts[event] = kind, json.loads(detail).get("round")
    return acts


def digest(*parts: Any) -> str:
    """Name plain values: 32 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def add_contents(store: Store, changes: Mapping[str, Content], event: int) -> None:
    """Write down what a scan of the pools found, within a transaction."""
    numbers = {path: image for image, path in store.rows("SELECT id, path FROM images")}
    new = sorted(path for path in changes if path not in numbers)
    first = max(numbers.values(), default=0) + 1
    store.add("images", ((first + k, path, event) for k, path in enumerate(new)))
    numbers |= {path: first + k for k, path in enumerate(new)}
    store.add(
        "contents",
        (
            (event, numbers[path], c.sha256, c.size, c.mtime_ns, c.problem)
            for path, c in changes.items()
        ),
    )
