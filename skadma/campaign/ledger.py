"""The log kept in memory: a decision is written, and known, in milliseconds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .agreement import APART
from .decide import decision_row
from .labels_csv import MARKS
from .pool import Content, check_path
from .state import Decision
from .store import Store

_ACTS = ("teach", "repeat", "confirm", "answer")


@dataclass(frozen=True)
class Mark:
    """What somebody says about one picture.

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
        What to write down; one event, undone as one.
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
    """What came of an operation.

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
    """An event in which somebody said something of images.

    Attributes
    ----------
    id : int
    at : str
    who : str
    kind : {"teach", "repeat", "confirm", "answer"}
        "teach" decides; the others are looks at what is decided, or kept apart.
    operation : str or None
    decisions : list of Decision
        What was said.
    """

    id: int
    at: str
    who: str
    kind: str
    operation: str | None
    decisions: list[Decision]


class Ledger:
    """What holds, kept up to date by reading only what the log gained.

    Others may write meanwhile; every method sees what they wrote.

    Parameters
    ----------
    store : Store
    classes : sequence of str

    Attributes
    ----------
    paths : dict of int to str
    contents : dict of int to Content
    acts : dict of int to Event
        Those that were not undone, oldest first.
    last_query : int or None
        The event of the last query.
    """

    def __init__(self, store: Store, classes: Sequence[str]) -> None:
        self._store = store
        self.classes = list(classes)
        # Operations that changed nothing, which the log therefore does not have: one
        # that comes again must not do later what it did not do then.
        self._idle: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self._last = 0
        self.paths: dict[int, str] = {}
        self.contents: dict[int, Content] = {}
        self.acts: dict[int, Event] = {}
        self.last_query: int | None = None
        self._usable: dict[str, int] | None = None
        self._images: dict[str, list[int]] = {}  # by content, present or past
        self._held: dict[str, list[Decision]] = {}  # those not undone, oldest first
        self._repeats: dict[tuple[str, str], list[int]] = {}  # by content and person
        self._audits: dict[int, list[str]] = {}  # contents that are kept apart
        self._operations: dict[str, list[int]] = {}

    def read(self) -> None:
        """Read what the log gained."""
        with self._store.reading():
            self._read()

    def _read(self) -> None:
        with self._store.intact():
            rows = self._store.rows(
                "SELECT id, at, who, kind, detail FROM events WHERE id > ? ORDER BY id",
                self._last,
            )
            if rows:
                self._read_contents()
                self._read_events(rows)
                self._last = rows[-1][0]

    def _read_contents(self) -> None:
        for image, path in self._store.rows(
            "SELECT id, path FROM images WHERE event > ?", self._last
        ):
            self.paths[image] = check_path(path)
        for image, *content in self._store.rows(
            "SELECT image, sha256, size, mtime_ns, problem FROM contents "
            "WHERE event > ? ORDER BY event",
            self._last,
        ):
            self.contents[image] = Content(*content)
            self._usable = None
            if content[0] and image not in self._images.setdefault(content[0], []):
                self._images[content[0]].append(image)

    def _read_events(self, rows: list[tuple]) -> None:
        given: dict[int, list[Decision]] = {}
        for row in self._store.rows(
            "SELECT * FROM decisions WHERE event > ?1 UNION ALL "
            "SELECT * FROM looks WHERE event > ?1 ORDER BY event, image",
            self._last,
        ):
            given.setdefault(row[0], []).append(Decision(*row))
        for event, sha256 in self._store.rows(
            "SELECT event, sha256 FROM draws WHERE event > ?", self._last
        ):
            self._audits.setdefault(event, []).append(sha256)
        for number, at, who, kind, text in rows:
            detail = json.loads(text)
            operation = detail.get("operation")
            if operation is not None:
                self._operations.setdefault(operation, []).append(number)
            if kind in _ACTS:
                said = given.get(number, [])
                self._do_or_undo(Event(number, at, who, kind, operation, said))
            elif kind == "undo":
                self._do_or_undo(self.acts[detail["undone"]], undo=True)
            elif kind == "query":
                self.last_query = number
            elif kind == "release":
                for audit in detail["audits"]:
                    self._audits.pop(audit, None)

    def _do_or_undo(self, event: Event, *, undo: bool = False) -> None:
        if undo:
            del self.acts[event.id]
        else:
            self.acts[event.id] = event
        for said in event.decisions:
            where: list[Any]
            entry: Any
            if event.kind == "teach":
                where, entry = self._held.setdefault(said.sha256, []), said
            elif event.kind == "repeat":
                key = said.sha256, event.who
                where, entry = self._repeats.setdefault(key, []), event.id
            else:
                continue
            if undo:
                where.remove(entry)
            else:
                where.append(entry)

    # --- what holds ----------------------------------------------------------

    def decision(self, sha256: str) -> Decision | None:
        """What holds for a picture."""
        held = self._held.get(sha256)
        return held[-1] if held else None

    def mark_before(self, decision: Decision) -> str | None:
        """What would hold without a decision and those after it."""
        held = self._held.get(decision.sha256, [])
        earlier = [d for d in held if d.event < decision.event]
        return earlier[-1].mark if earlier else None

    def decisions(self) -> dict[str, Decision]:
        """What holds, by content."""
        return {sha256: held[-1] for sha256, held in self._held.items() if held}

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
        """Contents that are there and can be decoded, with an image of each."""
        if self._usable is None:
            self._usable = {}
            for image, content in self.contents.items():
                if content.sha256 and content.problem is None:
                    self._usable.setdefault(content.sha256, image)
        return self._usable

    def candidates(self) -> dict[str, int]:
        """Usable contents, without those that an audit keeps apart."""
        apart = {sha256 for contents in self._audits.values() for sha256 in contents}
        usable = self.usable()
        if not apart:
            return usable
        return {sha256: i for sha256, i in usable.items() if sha256 not in apart}

    def has_repeated(self, sha256: str, who: str) -> bool:
        """Whether somebody answered again, blind."""
        return bool(self._repeats.get((sha256, who)))

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

    # --- what is written -----------------------------------------------------

    def record(
        self, operations: Iterable[Operation], round_: Any = None
    ) -> list[Outcome]:
        """Do operations, in order, each at most once; on the disk when this returns.

        Parameters
        ----------
        operations : iterable of Operation
        round_ : int or str, optional
            Names the round that they belong to: its labels, though they came one by
            one, are one change of the training set.

        Returns
        -------
        list of Outcome
            One for each.
        """
        try:
            with self._store.transaction():
                self._read()
                return [self._do(operation, round_) for operation in operations]
        except BaseException:
            self._forget()  # what was not committed must not be remembered
            raise

    def _do(self, operation: Operation, round_: Any) -> Outcome:
        if operation.id in self._operations or operation.id in self._idle:
            return Outcome(operation.id, "known")
        if operation.undo is not None:
            return self._undo(operation)
        outcome = Outcome(operation.id, "nothing")
        fresh: dict[int, tuple[str, tuple[int, str, str]]] = {}
        for mark in operation.marks:
            image = self.image(mark.sha256)
            kind = self._kind(operation, mark)
            reason = self._reason_against(mark, image, fresh, kind)
            if reason:
                outcome.refused.append(self._refusal(mark.sha256, reason))
            elif image is not None and not self._is_idle(mark, kind):
                fresh[image] = kind, (image, mark.sha256, mark.mark)
        if not fresh:
            self._idle.add(operation.id)
            return outcome
        outcome.status = "recorded"
        self._write(operation, list(fresh.values()), round_)
        self._read()
        return outcome

    def _kind(self, operation: Operation, mark: Mark) -> str:
        """What a mark is: it decides, confirms, or is blind about what is decided."""
        if operation.confirm:
            return "confirm"
        held = self.decision(mark.sha256)
        if mark.before is not None or held is None or held.kind == "skip":
            return "teach"
        return "repeat" if self._is_apart(held) else "teach"

    def _is_apart(self, held: Decision) -> bool:
        """Whether a decision is another person's, or so old that one forgets it."""
        event = self.acts[held.event]
        if event.who != self._store.who:
            return True
        newer = 0
        for other in reversed(self.acts.values()):
            if other.id == held.event:
                break
            if other.kind == "teach" and other.who == event.who:
                newer += len(other.decisions)
        return newer >= APART

    def _is_idle(self, mark: Mark, kind: str) -> bool:
        """Whether a mark says nothing new."""
        if kind == "repeat":  # whether it is the same as before is what counts
            again = self.has_repeated(mark.sha256, self._store.who)
            return again or mark.mark == "?skip"
        return kind == "teach" and self._holds(mark.sha256) == mark.mark

    def _write(
        self,
        operation: Operation,
        fresh: list[tuple[str, tuple[int, str, str]]],
        round_: Any,
    ) -> None:
        first: int | None = None
        for kind in _ACTS:
            said = [each for known, each in fresh if known == kind]
            if not said:
                continue
            detail: dict[str, Any] = {"source": operation.via, "n": len(said)}
            detail["operation"] = operation.id
            if first is not None:
                detail["with"] = first
            if round_ is not None and kind == "teach":
                detail["round"] = round_
            event = self._store.add_event(kind, **detail)
            first = event if first is None else first
            table = "decisions" if kind == "teach" else "looks"
            self._store.add(table, (decision_row(event, *each) for each in said))

    def _holds(self, sha256: str) -> str | None:
        decision = self.decision(sha256)
        return None if decision is None else decision.mark

    def _reason_against(
        self, mark: Mark, image: int | None, fresh: dict[int, Any], kind: str
    ) -> str:
        if image is None:
            return "There is no such picture in the pool."
        if mark.mark not in self.classes and mark.mark not in MARKS:
            return (
                f"{mark.mark!r} is none of the classes {', '.join(self.classes)}, "
                f"nor {', '.join(MARKS)}."
            )
        if image in fresh:
            return "It is in this list twice."
        if any(mark.sha256 in contents for contents in self._audits.values()):
            return "An audit keeps it apart. 'skadma evaluate' takes its label."
        holds = self._holds(mark.sha256)
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
            "holds": self._holds(sha256),
            "by": None if event is None else event.who,
        }

    def _undo(self, operation: Operation) -> Outcome:
        assert operation.undo is not None
        events = self._operations.get(operation.undo, [])
        kind, _, number = operation.undo.partition("event-")
        if not kind and number.isdecimal():
            events = [int(number)]
        standing = [event for event in events if event in self.acts]
        if not standing:
            self._idle |= {operation.id, operation.undo}
            return Outcome(operation.id, "nothing")
        for event in standing:
            self._store.add_event("undo", undone=event, operation=operation.id)
        self._read()
        return Outcome(operation.id, "undone")
