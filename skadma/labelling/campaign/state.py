"""The state of a campaign: images, contents, decisions, proposals, read from its log.

A function of the log: ``read_state`` computes it, ``refresh`` brings the log up to date
with the folders.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from .class_names import ClassNames, read_class_names
from .embeddings import is_of_table, read_embeddings, without_rows
from .event_log import CampaignError, EventLog
from .folders import Folders, read_folders
from .image_index import NO_ROW, Content, add_contents, check_path

_logger = logging.getLogger(__name__)

ACTS = ("teach", "repeat", "confirm", "answer", "classes", "pool", "release")
"""Kinds of the events that can be undone; a release only if it has answers."""


@dataclass(frozen=True)
class Decision:
    """What somebody decided about an image, or answered without deciding.

    `image` is the number of the image that it was given for, `sha256` what the image
    was then. `kind` is "label", "skip", "cant-tell" or "not-an-image". `label` is the
    class as it is called today; None for the other kinds. `who` gave it, `at` is ISO
    8601, UTC. `act` is "teach" for decisions; else it is a blind "repeat", a "confirm"
    after a second look or an audit's "answer".
    """

    event: int
    image: int
    sha256: str
    kind: str
    label: str | None
    who: str
    at: str
    act: str

    @property
    def mark(self) -> str:
        """The label, or the mark that stands for it in files."""
        return self.label if self.label is not None else f"?{self.kind}"


@dataclass(frozen=True)
class Act:
    """What somebody did that can be undone: answers, or another change."""

    id: int  # of the event
    at: str  # ISO 8601, UTC
    who: str
    kind: str  # one of `ACTS`; "teach" decides, other answers change no label
    decisions: list[Decision]  # by number of the image
    detail: dict[str, Any]  # of the event

    @property
    def operation(self) -> str | None:
        """The page's name of it."""
        return self.detail.get("operation")


@dataclass(frozen=True)
class DrawnAudit:
    """Images that were drawn to measure models with: not queried, not trained with."""

    event: int
    model: str | None  # name of the model by which they were drawn
    contents: list[str]  # SHA-256, in the order of the draw
    method: str
    n_population: int
    strata: list[int]  # of each content its stratum, and how many images are in that
    stratum_sizes: list[int]


class State:
    """What holds after the last event that was read from the log.

    A decision is about a content: all images of that content share it. An image whose
    file changed counts as a new one; the decision stays with the old content.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._forget()

    def _forget(self) -> None:
        self.as_of = 0  # the last event that was read: classes are named as of it
        self.class_names: ClassNames
        self.folders: Folders
        # By number of the image: its path, the last content found there, and the last
        # SHA-256, also of files that are missing.
        self.paths: dict[int, str] = {}
        self.contents: dict[int, Content] = {}
        self.last_known: dict[int, str] = {}
        # Numbers by path, and paths by their text, however it composes accents.
        self.numbers: dict[str, int] = {}
        self.by_text: dict[str, list[str]] = {}
        self.acts: dict[int, Act] = {}  # those not undone, oldest first
        self.last_query: int | None = None  # its event
        self._all_paths: dict[int, str] = {}  # those of removed folders too
        self._audits: dict[int, DrawnAudit] = {}  # those not released
        # The audits that a standing event released.
        self.released: dict[int, list[DrawnAudit]] = {}
        # Indexes: images by content, present or past; decisions that were not undone,
        # oldest first, by content; repeats by content and person; events by operation.
        self._images: dict[str, list[int]] = {}
        self._held: dict[str, list[Decision]] = {}
        self._repeats: dict[tuple[str, str], list[int]] = {}
        self._operations: dict[str, list[int]] = {}
        # Computed when they are asked for.
        self._usable: dict[str, int] | None = None
        self._available: dict[str, int] | None = None
        self._decisions: dict[str, Decision] | None = None
        self._training_sets: list[list[tuple[int, str]]] | None = None

    # --- reading -------------------------------------------------------------

    def update(self) -> None:
        """Read what the log gained.

        Where the classes or the folders changed, or a change of them was taken back,
        all is read again.
        """
        with self._log.reading(), self._log.intact():
            news = self._news()
            if self.as_of and any(self._changes_names(*event[3:]) for event in news):
                self._forget()
                news = self._news()
            if not self.as_of:
                self.class_names = read_class_names(self._log)
                self.folders = read_folders(self._log)
            if not news:
                return
            try:
                self._read_contents()
                self._read_events(news)
            except BaseException:
                self._forget()  # or it would be read twice
                raise
            self.as_of = news[-1][0]
            self._decisions = self._training_sets = None

    def _news(self) -> list[tuple[int, str, str, str, dict[str, Any]]]:
        """Events since the last one read: id, at, who, kind, detail."""
        return [
            (*event, json.loads(detail))
            for *event, detail in self._log.rows(
                "SELECT id, at, who, kind, detail FROM events WHERE id > ? ORDER BY id",
                self.as_of,
            )
        ]

    def _changes_names(self, kind: str, detail: dict[str, Any]) -> bool:
        """Whether an event changes what names of classes, or paths, mean."""
        if kind == "undo":
            undone = self.acts.get(detail["undone"])  # None: done since the last read
            return undone is not None and undone.kind in ("classes", "pool")
        return kind in ("classes", "pool")

    def _read_contents(self) -> None:
        new = {
            image: check_path(path)
            for image, path in self._log.rows(
                "SELECT id, path FROM images WHERE event > ?", self.as_of
            )
        }
        self._all_paths |= new
        n_known = len(self.contents)
        for event, image, *content in self._log.rows(
            "SELECT event, image, sha256, size, mtime_ns, problem FROM contents "
            "WHERE event > ? ORDER BY event",
            self.as_of,
        ):
            new.pop(image, None)
            path = self._all_paths[image]
            if not self.folders.holds(path, event):
                continue
            if image not in self.paths:
                self.numbers[path] = image
                text = unicodedata.normalize("NFC", path)
                self.by_text.setdefault(text, []).append(path)
            self.paths[image] = path
            self.contents[image] = Content(*content)
            self._usable = self._available = None
            sha256 = content[0]
            if sha256:
                self.last_known[image] = sha256
                if image not in self._images.setdefault(sha256, []):
                    self._images[sha256].append(image)
        if new:
            raise ValueError("an image is in no scan")
        if len(self.contents) > n_known:
            # By path, as a listing of the folder has them, whenever they were found;
            # those of a folder that was added come after those that were there.
            owner, paths = self.folders.owner, self.paths
            order = sorted(paths, key=lambda i: (owner(paths[i]), paths[i], i))
            self.paths = {image: paths[image] for image in order}
            self.contents = {image: self.contents[image] for image in order}

    def _read_events(
        self, news: list[tuple[int, str, str, str, dict[str, Any]]]
    ) -> None:
        by_event = {number: (who, at, kind) for number, at, who, kind, _ in news}
        given: dict[int, list[Decision]] = {}
        for event, image, sha256, kind, label in self._log.rows(
            "SELECT * FROM decisions WHERE event > ?1 UNION ALL "
            "SELECT * FROM other_answers WHERE event > ?1 ORDER BY event, image",
            self.as_of,
        ):
            now = label if label is None else self.class_names.now(label, event)
            answer = Decision(event, image, sha256, kind, now, *by_event[event])
            given.setdefault(event, []).append(answer)
        for number, at, who, kind, detail in news:
            if kind in (*ACTS, "undo") and "operation" in detail:
                self._operations.setdefault(detail["operation"], []).append(number)
            if kind in ACTS and (kind != "release" or detail["n"]):
                act = Act(number, at, who, kind, given.get(number, []), detail)
                self.acts[number] = act
                self._index(act)
            elif kind == "undo":
                act = self.acts.pop(detail["undone"])
                self._index(act, undo=True)
                self._audits |= {a.event: a for a in self.released.pop(act.id, [])}
                self._available = None
            elif kind == "query":
                self.last_query = number
            elif kind == "audit":
                self._audits[number] = _read_audit(self._log, number, detail)
                self._available = None
            if kind == "release":
                audits = [self._audits.pop(audit) for audit in detail["audits"]]
                self.released[number] = audits
                self._available = None
        for number, *_ in news:
            standing = self.acts.get(number)
            if standing and any(d.image not in self.paths for d in standing.decisions):
                raise ValueError(f"event {number} is about an image of no pool")

    def _index(self, act: Act, *, undo: bool = False) -> None:
        change: Callable[[list[Any], Any], None] = list.remove if undo else list.append
        for answer in act.decisions:
            if act.kind == "teach":
                change(self._held.setdefault(answer.sha256, []), answer)
            elif act.kind == "repeat":
                change(self._repeats.setdefault((answer.sha256, act.who), []), act.id)

    # --- what holds ----------------------------------------------------------

    @property
    def classes(self) -> list[str]:
        """The present classes."""
        return self.class_names.classes

    @property
    def decisions(self) -> dict[str, Decision]:
        """What holds, by content, in the order of the first decisions."""
        if self._decisions is None:
            held = [decisions for decisions in self._held.values() if decisions]
            held.sort(key=lambda decisions: (decisions[0].event, decisions[0].image))
            self._decisions = {each[-1].sha256: each[-1] for each in held}
        return self._decisions

    def counts(self) -> Counter[str]:
        """How many contents have each class or other mark."""
        counts = Counter[str]()
        marks = Counter(decision.mark for decision in self.decisions.values())
        for mark, n in marks.items():  # each mark is split once
            counts.update(dict.fromkeys(self.class_names.split(mark) or [mark], n))
        return counts

    @property
    def answers(self) -> list[Decision]:
        """The decisions and other answers that were not undone, oldest first."""
        return [answer for act in self.acts.values() for answer in act.decisions]

    @property
    def repeats(self) -> dict[tuple[str, str], Decision]:
        """Each person's last blind answer, by content and person."""
        return {(a.sha256, a.who): a for a in self.answers if a.act == "repeat"}

    @property
    def audits(self) -> list[DrawnAudit]:
        """The audits that were not released, oldest first."""
        return [self._audits[event] for event in sorted(self._audits)]

    @property
    def audit_answers(self) -> dict[str, Decision]:
        """The last answers about drawn images, by content."""
        return {a.sha256: a for a in self.answers if a.act == "answer"}

    @property
    def training_sets(self) -> list[list[tuple[int, str]]]:
        """The labelled images and their labels after each change of them, oldest first.

        As far as the contents are still there. Labels that came one by one within a
        round are one change. A change of the classes begins anew.
        """
        if self._training_sets is not None:
            return self._training_sets
        usable = self.usable()
        images = list(usable.values())
        place = {sha256: i for i, sha256 in enumerate(usable)}
        teaches = [act for act in self.acts.values() if act.kind == "teach"]
        rounds = [act.detail.get("round") for act in teaches]
        in_round = {  # with more labels of the same round to come
            act.id
            for act, mine, following in zip(teaches, rounds, rounds[1:], strict=False)
            if mine == following is not None
        }
        sets: list[list[tuple[int, str]]] = []
        labels: dict[str, str | None] = {}
        for act in self.acts.values():
            if act.kind == "classes" and act.detail["change"] != "note":
                sets.clear()
            elif act.kind != "teach":
                continue
            labels |= {decision.sha256: decision.label for decision in act.decisions}
            if act.id in in_round:
                continue
            held = sorted(
                (place[sha256], label)
                for sha256, label in labels.items()
                if sha256 in place and label is not None
            )
            labelled = [(images[k], label) for k, label in held]
            if labelled != (sets[-1] if sets else []):
                sets.append(labelled)
        self._training_sets = sets
        return sets

    def labelled(self) -> list[tuple[int, str]]:
        """Usable images with a label, one per content."""
        return self.training_sets[-1] if self.training_sets else []

    def usable(self) -> dict[str, int]:
        """Contents that are there and can be decoded, with the first image of each."""
        if self._usable is None:
            self._usable = {}
            for image, content in self.contents.items():
                if content.sha256 and content.problem is None:
                    self._usable.setdefault(content.sha256, image)
        return self._usable

    def sha256s(self, images: Iterable[int]) -> list[str]:
        """Contents of images that are there."""
        return [str(self.contents[image].sha256) for image in images]

    def restricted(self, contents: Set[str]) -> State:
        """Return the state as if of its contents only these were there."""
        part = copy.copy(self)
        part._usable = {s: i for s, i in self.usable().items() if s in contents}
        part._available = {s: i for s, i in self.available().items() if s in contents}
        part._training_sets = None
        return part

    def drawn(self) -> dict[str, DrawnAudit]:
        """Contents in an audit, with the audit that drew each."""
        return {sha256: audit for audit in self.audits for sha256 in audit.contents}

    def available(self) -> dict[str, int]:
        """Usable contents in no audit, with the first image of each."""
        if self._available is None:
            drawn = self.drawn()
            self._available = {
                s: image for s, image in self.usable().items() if s not in drawn
            }
        return self._available

    def undecided(self) -> list[int]:
        """Usable images in no audit without a decision, or skipped, one per content."""
        return [
            image
            for sha256, image in self.available().items()
            if (known := self.decisions.get(sha256)) is None or known.kind == "skip"
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
        labels = [d for d in self.decisions.values() if d.kind == "label"]
        latest = {d.image: d for d in sorted(labels, key=lambda d: d.event)}
        return [
            (image, decision)
            for image, decision in sorted(latest.items())
            if self.last_known[image] != decision.sha256
            and self.decision_of(image) is None
        ]


def read_state(log: EventLog) -> State:
    """Read the state from the log."""
    state = State(log)
    state.update()
    return state


@dataclass(frozen=True)
class Proposal:
    """An image that a query asks a label for.

    `path` is relative to the pool, `sha256` names the content to label, `score` is the
    strategy's. The present model predicts the class `guess` with the probability
    `confidence`; both are None before the first labels. `as_of` is the log's last
    event, as of which the classes are named.
    """

    path: str
    score: float | None
    guess: str | None
    confidence: float | None
    sha256: str
    as_of: int | None = field(default=None, compare=False)


def propose(
    state: State,
    image: int,
    score: float | None = None,
    guess: str | None = None,
    confidence: float | None = None,
) -> Proposal:
    """Propose an image; blind without the last three."""
    sha256 = str(state.contents[image].sha256)
    path = state.paths[image]
    return Proposal(path, score, guess, confidence, sha256, state.as_of)


def _read_audit(log: EventLog, event: int, detail: dict[str, Any]) -> DrawnAudit:
    rows = log.rows(
        "SELECT sha256, stratum, stratum_size FROM draws "
        "WHERE event = ? ORDER BY place",
        event,
    )
    contents, *columns = map(list, zip(*rows, strict=True))
    how = detail["method"], detail["population"]
    return DrawnAudit(event, detail["model"], contents, *how, *columns)


def refresh(log: EventLog, state: State | None = None) -> int:
    """Write into the log what changed in the folders, and bring `state` up to date."""
    state = state or State(log)
    state.update()
    begin = perf_counter()
    changes = state.folders.scan(known_contents(state))
    if not changes:
        return 0
    with log.transaction():
        now = read_state(log)  # another process may have scanned, or brought rows
        if is_of_table(log.settings()):
            changes = without_rows(changes, read_embeddings(log))
        known = known_contents(now)
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
    new = [path for path, content in changes.items() if content.problem == NO_ROW]
    if new:
        what = f"{len(new)} images have no row and are left out, such as {new[0]!r}"
        warnings.warn(f"{what}: {NO_ROW}.", stacklevel=3)
    for path in changed:
        if path in changes:
            warnings.warn(
                f"{path!r} has changed since it was labelled. The label stays with "
                "what it was given for; the file counts as a new image.",
                stacklevel=3,
            )
    state.update()
    _logger.info("pools: %d changes in %.1f s", len(changes), perf_counter() - begin)
    return len(changes)


def refresh_if_there(log: EventLog) -> None:
    """Refresh, or warn where a folder is not to be found."""
    try:
        refresh(log)
    except (CampaignError, OSError) as error:
        warnings.warn(f"as of the last look at the pools: {error}", stacklevel=3)


def known_contents(state: State) -> dict[str, Content]:
    """The last contents, by path."""
    return {state.paths[image]: content for image, content in state.contents.items()}


def digest(*values: Any) -> str:
    """Name plain values by a hash of 32 hex digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]
