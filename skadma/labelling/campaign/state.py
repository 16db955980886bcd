"""The state of a campaign: the images, their contents and decisions, read from its log.

A function of the log: ``read_state`` computes it, ``refresh`` brings the log up to date
with the folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from ...evaluation import Audit
from .class_names import ClassNames, read_class_names
from .event_log import CampaignError, EventLog
from .folders import AddedFolders, FolderPaths, read_folders
from .image_index import Content, add_contents, check_path

_logger = logging.getLogger(__name__)

ACTS = ("teach", "repeat", "confirm", "answer", "classes", "pool")
"""Kinds of the events that can be undone."""


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
class Answer:
    """A decision, a blind repeat, a confirmation or an audit's answer, and whose.

    Attributes
    ----------
    event : int
    at : str
        ISO 8601, UTC.
    who : str
    act : {"teach", "repeat", "confirm", "answer"}
    image : int
    sha256 : str
        What the image was then.
    mark : str
        The present name of the class, or a mark such as "?skip".
    """

    event: int
    at: str
    who: str
    act: str
    image: int
    sha256: str
    mark: str


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
    """What holds after the last event of the log.

    A decision is about a content: all images of that content share it. An image whose
    file changed counts as a new one; the decision stays with the old content.

    Attributes
    ----------
    class_names : ClassNames
    folders : AddedFolders
    paths : dict of int to str
        By number of the image.
    contents : dict of int to Content
        The last that was found at each path.
    last_known : dict of int to str
        SHA-256 of what was last found, also of files that are missing.
    decisions : dict of str to Decision
        The one that holds, by content.
    acts : list of int
        Events in which people answered, or changed the classes or folders, but for
        those undone.
    training_sets : list of list of (int, str)
        The labelled images and their labels after each change of them, oldest first;
        as far as the contents are still there. Labels that came one by one within a
        round are one change. A change of the classes begins anew.
    audits : list of DrawnAudit
        Those that were not released.
    answers : dict of str to Decision
        The answers about their images, by content.
    """

    class_names: ClassNames
    folders: AddedFolders = field(default_factory=AddedFolders)
    paths: dict[int, str] = field(default_factory=dict)
    contents: dict[int, Content] = field(default_factory=dict)
    last_known: dict[int, str] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    acts: list[int] = field(default_factory=list)
    training_sets: list[list[tuple[int, str]]] = field(default_factory=list)
    audits: list[DrawnAudit] = field(default_factory=list)
    answers: dict[str, Decision] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers of the images by path."""
        return {path: image for image, path in self.paths.items()}

    @property
    def classes(self) -> list[str]:
        """The present classes."""
        return self.class_names.classes

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
        """Contents in an audit, with the audit that drew each."""
        return {sha256: audit for audit in self.audits for sha256 in audit.contents}

    def undecided(self) -> list[int]:
        """Usable images in no audit without a decision, or skipped, one per content."""
        drawn = self.drawn()
        return [
            image
            for sha256, image in self.usable().items()
            if sha256 not in drawn
            and ((known := self.decisions.get(sha256)) is None or known.kind == "skip")
        ]

    def candidates(self) -> list[int]:
        """Images that a query chooses from: skipped ones when nothing else is left."""
        undecided = self.undecided()
        return [i for i in undecided if self.decision_of(i) is None] or undecided

    def decision_of(self, image: int) -> Decision | None:
        """What holds for an image as it is now, or was last."""
        return self.decisions.get(self.last_known[image])

    def changed_since(self) -> list[tuple[int, Decision]]:
        """Images whose file changed since they were labelled, with that label."""
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


def read_state(log: EventLog) -> State:
    """Compute the state from the log, within ``log.reading`` or a transaction."""
    with log.intact():
        state = State(read_class_names(log), read_folders(log))
        _read_images(log, state)
        kinds = _read_acts(log, state)
        for event, answers in _answers(log, state, "looks").items():
            if kinds[event] == "answer":
                state.answers |= {decision.sha256: decision for decision in answers}
        state.audits = _read_audits(log)
        return state


def _read_images(log: EventLog, state: State) -> None:
    paths = {
        image: check_path(path)
        for image, path in log.rows("SELECT id, path FROM images")
    }
    found: dict[int, Content] = {}
    seen: set[int] = set()
    for event, image, *content in log.rows(
        "SELECT event, image, sha256, size, mtime_ns, problem FROM contents "
        "ORDER BY event"
    ):
        seen.add(image)
        if not state.folders.holds(paths[image], event):
            continue
        found[image] = Content(*content)
        if content[0]:
            state.last_known[image] = content[0]
    if seen != paths.keys():
        raise ValueError("an image is in no scan")
    # By path, as a listing of the folder has them, whenever they were found; those of
    # a folder that was added come after those that were there.
    state.paths = {
        image: path
        for _, path, image in sorted(
            (state.folders.owner(path), path, image)
            for image, path in paths.items()
            if image in found
        )
    }
    state.contents = {image: found[image] for image in state.paths}


def _read_acts(log: EventLog, state: State) -> dict[int, str]:
    """Read decisions and training sets; return the kinds of the acts."""
    kinds: dict[int, str] = {}
    rounds: dict[int, Any] = {}
    for event, kind, text in log.rows(
        "SELECT id, kind, detail FROM events ORDER BY id"
    ):
        if kind == "undo":
            del kinds[json.loads(text)["undone"]]
        elif kind in ACTS:
            kinds[event] = kind
            rounds[event] = json.loads(text).get("round")
    state.acts = list(kinds)
    given = _answers(log, state, "decisions")
    usable = state.usable()
    place = {sha256: i for i, sha256 in enumerate(usable)}
    teaches = [event for event, kind in kinds.items() if kind == "teach"]
    following = dict(zip(teaches, teaches[1:], strict=False))
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
    return kinds


def _answers(log: EventLog, state: State, table: str) -> dict[int, list[Decision]]:
    """Read a table's answers by event, without those undone, in present names."""
    acts = set(state.acts)
    given: dict[int, list[Decision]] = {}
    for event, image, sha256, kind, label in log.rows(
        f"SELECT * FROM {table} ORDER BY event, image"
    ):
        if event not in acts:
            continue
        if image not in state.paths:
            raise ValueError(f"event {event} is about an image of no pool")
        now = label if label is None else state.class_names.now(label, event)
        given.setdefault(event, []).append(Decision(event, image, sha256, kind, now))
    return given


def _read_audits(log: EventLog) -> list[DrawnAudit]:
    released: set[int] = set()
    drawn: dict[int, dict[str, Any]] = {}
    for event, kind, detail in log.rows(
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
        rows = log.rows(
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


def read_answers(log: EventLog, state: State) -> list[Answer]:
    """List the answers that were not undone, oldest first, within ``log.reading``."""
    events = {
        event: (at, who, kind)
        for event, at, who, kind in log.rows("SELECT id, at, who, kind FROM events")
    }
    with log.intact():
        given = [
            decision
            for table in ("decisions", "looks")
            for answers in _answers(log, state, table).values()
            for decision in answers
        ]
        given.sort(key=lambda decision: (decision.event, decision.image))
        return [
            Answer(d.event, *events[d.event], d.image, d.sha256, d.mark) for d in given
        ]


def last_decisions(answers: Iterable[Answer]) -> dict[str, Answer]:
    """Find the decision that holds about each content."""
    return {a.sha256: a for a in answers if a.act == "teach"}


def last_repeats(answers: Iterable[Answer]) -> dict[tuple[str, str], Answer]:
    """Find each person's last blind answer about each content."""
    return {(a.sha256, a.who): a for a in answers if a.act == "repeat"}


def refresh(log: EventLog, folders: FolderPaths) -> int:
    """Write into the log what changed in the folders; see :meth:`Campaign.refresh`."""
    with log.reading():
        state = read_state(log)
    begin = perf_counter()
    changes = folders.scan(state.folders, _known(state))
    if not changes:
        return 0
    with log.transaction():
        now = read_state(log)  # another process may have scanned as well
        known = _known(now)
        changes = {
            path: content
            for path, content in changes.items()
            if known.get(path) != content
            and now.folders.owner(path) == state.folders.owner(path)
        }
        if changes:
            event = log.add_event("scan", n_changes=len(changes))
            add_contents(log, changes, event)
        changed = [now.paths[i] for i, _ in read_state(log).changed_since()]
    for path in changed:
        if path in changes:
            warnings.warn(
                f"{path!r} has changed since it was labelled. The label stays with "
                "what it was given for; the file counts as a new image.",
                stacklevel=3,
            )
    _logger.info("pools: %d changes in %.1f s", len(changes), perf_counter() - begin)
    return len(changes)


def refresh_if_there(log: EventLog, folders: FolderPaths) -> None:
    """Refresh, or warn where a folder is not to be found."""
    try:
        refresh(log, folders)
    except (CampaignError, OSError) as error:
        warnings.warn(f"as of the last look at the pools: {error}", stacklevel=3)


def _known(state: State) -> dict[str, Content]:
    """The last contents, by path."""
    return {state.paths[image]: content for image, content in state.contents.items()}


def digest(*values: Any) -> str:
    """Name plain values by a hash of 32 hex digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]
