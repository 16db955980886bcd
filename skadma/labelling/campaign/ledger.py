"""The ledger: a campaign's log in memory, to which the labelling page adds operations.

A decision is written, and what holds is known, in milliseconds, whatever the length of
the log.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .agreement import APART
from .class_names import ClassNames, read_class_names
from .event_log import EventLog
from .folders import AddedFolders, read_folders
from .image_index import Content, check_path
from .labels_csv import MARKS
from .record_labels import add_answer_rows
from .state import Decision

ACTS = ("teach", "repeat", "confirm", "answer")


@dataclass(frozen=True)
class Mark:
    """Somebody's answer about one picture.

    Attributes
    ----------
    sha256 : str
        The picture that was looked at.
    mark : str
        A class, ``"?skip"``, ``"?cant-tell"`` or ``"?not-an-image"``.
    before : str or None
        The mark that it had when it was looked at, as far as the person was told.
    """

    sha256: str
    mark: str
    before: str | None = None


@dataclass(frozen=True)
class Operation:
    """Something to be done once, however often it is asked for.

    Attributes
    ----------
    id : str
        Made by who asks.
    marks : sequence of Mark
        What to write; one event, undone as one.
    undo : str or None
        Instead: the operation, or ``"event-N"``, to take back.
    confirm : bool
        The marks are what holds already, and stand after a second look.
    via : str
        How it was given, for the log.
    """

    id: str
    marks: Sequence[Mark] = ()
    undo: str | None = None
    confirm: bool = False
    via: str = "page"


@dataclass
class Outcome:
    """The result of an operation.

    Attributes
    ----------
    id : str
    status : {"recorded", "known", "undone", "nothing"}
        "known": it was done before. "nothing": there was nothing to do.
    refused : list of dict
        Marks that were not taken: `sha256`, `reason` and what `holds` and by whom.
    """

    id: str
    status: str
    refused: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """An event with somebody's answers about images.

    Attributes
    ----------
    id : int
    at : str
    who : str
    kind : {"teach", "repeat", "confirm", "answer"}
        "teach" decides; the others change no label.
    operation : str or None
    decisions : list of Decision
    """

    id: int
    at: str
    who: str
    kind: str
    operation: str | None
    decisions: list[Decision]


class Ledger:
    """What holds, read from what the log gained; it writes operations, each once.

    Others may write meanwhile; ``read`` and ``record`` read what they wrote. Where the
    classes or the folders changed, or a change of them was taken back, all is read
    again.

    Parameters
    ----------
    log : EventLog

    Attributes
    ----------
    class_names : ClassNames
        Labels are in present names.
    folders : AddedFolders
    paths : dict of int to str
        Of images that are in a folder, or were until their file went.
    contents : dict of int to Content
    acts : dict of int to Event
        Those that were not undone, oldest first.
    last_query : int or None
        The event of the last query.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        # Operations that changed nothing, which the log therefore does not have: one
        # that comes again must not do later what it did not do then.
        self._idle: set[str] = set()
        self._forget()
        self.read()

    def _forget(self) -> None:
        self._last = 0
        self.class_names: ClassNames
        self.folders: AddedFolders
        self.paths: dict[int, str] = {}
        self.contents: dict[int, Content] = {}
        self.acts: dict[int, Event] = {}
        self.last_query: int | None = None
        self._usable: dict[str, int] | None = None
        self._candidates: dict[str, int] | None = None
        self._all_paths: dict[int, str] = {}  # those of removed folders too
        self._changes: set[int] = set()  # events that changed classes or folders
        self._images: dict[str, list[int]] = {}  # by content, present or past
        self._held: dict[str, list[Decision]] = {}  # those not undone, oldest first
        self._repeats: dict[tuple[str, str], list[int]] = {}  # by content and person
        self._audits: dict[int, list[str]] = {}  # contents that are kept apart
        self._drawn: set[str] = set()
        self._operations: dict[str, list[int]] = {}

    # --- reading -------------------------------------------------------------

    def read(self) -> None:
        """Read what the log gained."""
        with self._log.reading():
            self._read()

    def _read(self) -> None:
        with self._log.intact():
            news = self._news()
            if self._last and any(self._changes_names(*event) for event in news):
                self._forget()
                news = self._news()
            if not news:
                return
            if not self._last:
                self.class_names = read_class_names(self._log)
                self.folders = read_folders(self._log)
            try:
                self._read_contents()
                self._read_events(news)
            except BaseException:
                self._forget()  # or it would be read twice
                raise
            self._last = news[-1][0]

    def _news(self) -> list[tuple[int, str, str, str, dict[str, Any]]]:
        """Events since the last read: id, at, who, kind, detail."""
        return [
            (*event, json.loads(detail))
            for *event, detail in self._log.rows(
                "SELECT id, at, who, kind, detail FROM events WHERE id > ? ORDER BY id",
                self._last,
            )
        ]

    def _changes_names(
        self, _id: int, _at: str, _who: str, kind: str, detail: dict[str, Any]
    ) -> bool:
        """Whether an event changes what names of classes, or paths, mean."""
        undone = kind == "undo" and detail["undone"] in self._changes
        return kind in ("classes", "pool") or undone

    def _read_contents(self) -> None:
        for image, path in self._log.rows(
            "SELECT id, path FROM images WHERE event > ?", self._last
        ):
            self._all_paths[image] = check_path(path)
        for event, image, *content in self._log.rows(
            "SELECT event, image, sha256, size, mtime_ns, problem FROM contents "
            "WHERE event > ? ORDER BY event",
            self._last,
        ):
            path = self._all_paths[image]
            if not self.folders.holds(path, event):
                continue
            self.paths[image] = path
            self.contents[image] = Content(*content)
            self._usable = self._candidates = None
            if content[0] and image not in self._images.setdefault(content[0], []):
                self._images[content[0]].append(image)

    def _read_events(
        self, news: list[tuple[int, str, str, str, dict[str, Any]]]
    ) -> None:
        given: dict[int, list[Decision]] = {}
        for event, image, sha256, kind, label in self._log.rows(
            "SELECT * FROM decisions WHERE event > ?1 UNION ALL "
            "SELECT * FROM looks WHERE event > ?1 ORDER BY event, image",
            self._last,
        ):
            now = label if label is None else self.class_names.now(label, event)
            answer = Decision(event, image, sha256, kind, now)
            given.setdefault(event, []).append(answer)
        for event, sha256 in self._log.rows(
            "SELECT event, sha256 FROM draws WHERE event > ?", self._last
        ):
            self._audits.setdefault(event, []).append(sha256)
        for number, at, who, kind, detail in news:
            operation = detail.get("operation")
            if operation is not None:
                self._operations.setdefault(operation, []).append(number)
            if kind in ACTS:
                answers = given.get(number, [])
                self._apply(Event(number, at, who, kind, operation, answers))
            elif kind in ("classes", "pool"):
                self._changes.add(number)
            elif kind == "undo" and detail["undone"] not in self._changes:
                self._apply(self.acts[detail["undone"]], undo=True)
            elif kind == "query":
                self.last_query = number
            elif kind == "release":
                for audit in detail["audits"]:
                    self._audits.pop(audit, None)
        drawn = {sha256 for contents in self._audits.values() for sha256 in contents}
        if drawn != self._drawn:
            self._drawn, self._candidates = drawn, None

    def _apply(self, event: Event, *, undo: bool = False) -> None:
        if undo:
            del self.acts[event.id]
        else:
            self.acts[event.id] = event
        for answer in event.decisions:
            where: list[Any]
            entry: Any
            if event.kind == "teach":
                where, entry = self._held.setdefault(answer.sha256, []), answer
            elif event.kind == "repeat":
                key = answer.sha256, event.who
                where, entry = self._repeats.setdefault(key, []), event.id
            else:
                continue
            if undo:
                where.remove(entry)
            else:
                where.append(entry)

    # --- what holds ----------------------------------------------------------

    @property
    def classes(self) -> list[str]:
        """The present classes."""
        return self.class_names.classes

    def present_name(self, mark: str | None) -> str | None:
        """The present name of a class, by one of its names."""
        return None if mark is None else self.class_names.former.get(mark, mark)

    def decision(self, sha256: str) -> Decision | None:
        """What holds for a picture."""
        held = self._held.get(sha256)
        return held[-1] if held else None

    def decisions(self) -> dict[str, Decision]:
        """What holds, by content."""
        return {sha256: held[-1] for sha256, held in self._held.items() if held}

    def mark_before(self, decision: Decision) -> str | None:
        """What would hold without a decision and those after it."""
        held = self._held.get(decision.sha256, [])
        earlier = [d for d in held if d.event < decision.event]
        return earlier[-1].mark if earlier else None

    def labels(self) -> dict[str, str]:
        """The labels that hold, by content."""
        return {
            sha256: decision.label
            for sha256, decision in self.decisions().items()
            if decision.label is not None
        }

    def counts(self) -> Counter[str]:
        """How many contents have each mark."""
        return Counter(decision.mark for decision in self.decisions().values())

    def image(self, sha256: str) -> int | None:
        """An image that is, or else was, of this content; None if there is none."""
        images = self._images.get(sha256, [])
        for image in images:
            if self.contents[image].sha256 == sha256:
                return image
        return images[0] if images else None

    def path(self, sha256: str) -> str:
        """Path of an image of this content; empty if there is none."""
        image = self.image(sha256)
        return "" if image is None else self.paths[image]

    def usable(self) -> dict[str, int]:
        """Contents that are there and can be decoded, with the first image of each."""
        if self._usable is None:
            self._usable = {}
            owner, paths = self.folders.owner, self.paths
            for image in sorted(paths, key=lambda i: (owner(paths[i]), paths[i], i)):
                content = self.contents[image]
                if content.sha256 and content.problem is None:
                    self._usable.setdefault(content.sha256, image)
        return self._usable

    def candidates(self) -> dict[str, int]:
        """Usable contents, without those in an audit."""
        if self._candidates is None:
            usable, drawn = self.usable(), self._drawn
            self._candidates = {s: i for s, i in usable.items() if s not in drawn}
        return self._candidates

    def is_drawn(self, sha256: str) -> bool:
        """Whether a content is in an audit."""
        return sha256 in self._drawn

    def has_repeated(self, sha256: str, who: str) -> bool:
        """Whether somebody answered again, blind."""
        return bool(self._repeats.get((sha256, who)))

    def n_answered(self, who: str) -> tuple[int, int]:
        """How many images somebody decided about, and answered again, blind."""
        decided = sum(
            any(self.acts[decision.event].who == who for decision in held)
            for held in self._held.values()
        )
        repeated = sum(
            bool(events) for (_, by), events in self._repeats.items() if by == who
        )
        return decided, repeated

    # --- writing -------------------------------------------------------------

    def record(
        self, operations: Iterable[Operation], round_: int | str | None = None
    ) -> list[Outcome]:
        """Do operations, in order, each at most once; on the disk when this returns.

        The labels of one `round_`, though they came one by one, are one change of the
        training set.
        """
        try:
            with self._log.transaction():
                self._read()
                return [self._do(operation, round_) for operation in operations]
        except BaseException:
            self._forget()  # what was not committed must not be remembered
            raise

    def _do(self, operation: Operation, round_: int | str | None) -> Outcome:
        if operation.id in self._operations or operation.id in self._idle:
            return Outcome(operation.id, "known")
        if operation.undo is not None:
            return self._undo(operation.id, operation.undo)
        outcome = Outcome(operation.id, "nothing")
        new: dict[int, tuple[str, str, str]] = {}  # kind, content and mark by image
        for given in operation.marks:
            # A page may not know yet that a class has another name.
            present = self.class_names.former.get(given.mark, given.mark)
            mark = Mark(given.sha256, present, self.present_name(given.before))
            image = self.image(mark.sha256)
            kind = "confirm" if operation.confirm else self._kind(mark)
            reason = self._reason_against(mark, image, image in new, kind)
            if reason:
                outcome.refused.append(self._refusal(mark.sha256, reason))
            elif image is not None and not self._is_idle(mark, kind):
                new[image] = kind, mark.sha256, mark.mark
        if not new:
            self._idle.add(operation.id)
            return outcome
        outcome.status = "recorded"
        self._write(operation, new, round_)
        self._read()
        return outcome

    def _kind(self, mark: Mark) -> str:
        """Whether a mark decides, or is a blind repeat of what is decided."""
        held = self.decision(mark.sha256)
        if mark.before is not None or held is None or held.kind == "skip":
            return "teach"
        return "repeat" if self._is_apart(held) else "teach"

    def _is_apart(self, held: Decision) -> bool:
        """Whether a decision is another person's, or so old that one forgets it."""
        event = self.acts[held.event]
        if event.who != self._log.who:
            return True
        newer = 0
        for other in reversed(self.acts.values()):
            if other.id == held.event:
                break
            if other.kind == "teach" and other.who == event.who:
                newer += len(other.decisions)
        return newer >= APART

    def _is_idle(self, mark: Mark, kind: str) -> bool:
        """Whether a mark changes nothing."""
        if kind == "repeat":  # whether it is the same as before is what counts
            again = self.has_repeated(mark.sha256, self._log.who)
            return again or mark.mark == "?skip"
        return kind == "teach" and self._mark(mark.sha256) == mark.mark

    def _reason_against(
        self, mark: Mark, image: int | None, twice: bool, kind: str
    ) -> str:
        if image is None:
            return "There is no such picture in the pool."
        if mark.mark not in self.classes and mark.mark not in MARKS:
            return self.class_names.unknown(mark.mark, MARKS)
        if twice:
            return "It is in this list twice."
        if self.is_drawn(mark.sha256):
            return "An audit keeps it apart. 'skadma evaluate' takes its label."
        holds = self._mark(mark.sha256)
        if kind == "confirm" and holds != mark.mark:
            return "It was decided otherwise meanwhile."
        if kind == "teach" and holds not in (mark.before, mark.mark, "?skip"):
            return "It was decided meanwhile."
        return ""

    def _refusal(self, sha256: str, reason: str) -> dict[str, Any]:
        decision = self.decision(sha256)
        event = None if decision is None else self.acts.get(decision.event)
        return {
            "sha256": sha256,
            "path": self.path(sha256),
            "reason": reason,
            "holds": self._mark(sha256),
            "by": None if event is None else event.who,
        }

    def _mark(self, sha256: str) -> str | None:
        decision = self.decision(sha256)
        return None if decision is None else decision.mark

    def _write(
        self,
        operation: Operation,
        new: dict[int, tuple[str, str, str]],
        round_: int | str | None,
    ) -> None:
        first: int | None = None
        for kind in ACTS:
            answers = [(i, sha, mark) for i, (k, sha, mark) in new.items() if k == kind]
            if not answers:
                continue
            detail: dict[str, Any] = {"source": operation.via, "n": len(answers)}
            detail["operation"] = operation.id
            if first is not None:
                detail["with"] = first
            if round_ is not None and kind == "teach":
                detail["round"] = round_
            event = self._log.add_event(kind, **detail)
            first = event if first is None else first
            add_answer_rows(self._log, kind, event, answers)

    def _undo(self, operation: str, undone: str) -> Outcome:
        events = self._operations.get(undone, [])
        kind, _, number = undone.partition("event-")
        if not kind and number.isdecimal():
            events = [int(number)]
        standing = [event for event in events if event in self.acts]
        if not standing:
            self._idle |= {operation, undone}
            return Outcome(operation, "nothing")
        for event in standing:
            self._log.add_event("undo", undone=event, operation=operation)
        self._read()
        return Outcome(operation, "undone")
