"""The ledger: a campaign's state in memory, to which the labelling page adds.

A decision is written, and what holds is known, in milliseconds, whatever the length of
the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from .agreement import APART
from .event_log import CampaignError, EventLog
from .labels_csv import MARKS
from .record_labels import ResolvedRow, add_answers
from .state import Decision, State


@dataclass(frozen=True)
class Mark:
    """Somebody's answer about one picture."""

    sha256: str  # the picture that was looked at
    mark: str  # a class, or a mark such as "?skip"
    before: str | None = None  # its mark then, as far as the person was told
    as_of: int | None = None  # the event as of which classes are named, if known
    # Class and probability by a model that did not know the answer, if no query has it.
    guess: tuple[str, float] | None = None


@dataclass(frozen=True)
class Operation:
    """Something to be done once, however often it is asked for."""

    id: str  # made by who asks
    marks: Sequence[Mark] = ()  # to write, undone as one
    undo: str | None = None  # instead: the operation, or "event-N", to take back
    confirm: bool = False  # the marks hold already, and stand after a second look
    via: str = "page"  # how it was given, for the log
    audit: bool = False  # the marks are answers to an audit


@dataclass
class Outcome:
    """The result of an operation."""

    id: str
    # "recorded" or "undone"; "known": done before, and all of it; "nothing": nothing
    # was to be done
    status: str
    # marks that were not taken: sha256, reason, what holds and by whom
    refused: list[dict[str, Any]] = field(default_factory=list)


class Ledger(State):
    """The state, kept up to date by what the log gained, and the page's operations.

    Others may write meanwhile; ``update`` and ``record`` read what they wrote.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        # Operations that changed nothing, which the log therefore does not have, with
        # the reasons against what they asked for, by content: one that comes again must
        # not do later what it did not do then.
        self._idle: dict[str, dict[str, str]] = {}
        self.update()

    # --- by content ----------------------------------------------------------

    def present_name(self, mark: str | None, as_of: int | None = None) -> str | None:
        """Give the present name of a class; None if it is no class any more."""
        try:
            return None if mark is None else self.class_names.meant(mark, as_of)
        except CampaignError:
            return None

    def decision(self, sha256: str) -> Decision | None:
        """What holds for a picture."""
        held = self._held.get(sha256)
        return held[-1] if held else None

    def mark_before(self, decision: Decision) -> str | None:
        """What would hold without a decision and those after it; None if blind."""
        held = [] if decision.act == "repeat" else self._held.get(decision.sha256, [])
        earlier = [d for d in held if d.event < decision.event]
        return earlier[-1].mark if earlier else None

    def labels(self) -> dict[str, str]:
        """The labels that hold, by content."""
        return {
            sha256: decision.label
            for sha256, decision in self.decisions.items()
            if decision.label is not None
        }

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

    def has_repeated(self, sha256: str, who: str) -> bool:
        """Whether somebody answered again, blind."""
        return bool(self._repeats.get((sha256, who)))

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
                self.update()
                return [self._do(operation, round_) for operation in operations]
        except BaseException:
            self._forget()  # what was not committed must not be remembered
            raise

    def _do(self, operation: Operation, round_: int | str | None) -> Outcome:
        if operation.id in self._operations:
            return self._done_before(operation.id)
        if operation.id in self._idle:
            refused = self._refusals(self._idle[operation.id])
            return Outcome(operation.id, "nothing" if refused else "known", refused)
        if operation.undo is not None:
            return self._undo(operation.id, operation.undo)
        reasons: dict[str, str] = {}  # against marks, by content
        new: dict[int, tuple[str, ResolvedRow]] = {}  # with its kind, by image
        for given in operation.marks:
            image = self.image(given.sha256)
            if given.as_of is not None and given.as_of > self.as_of:
                reasons[given.sha256] = (
                    "It was said of a later state of the campaign than this one: an "
                    "older copy took its place. Open the page anew."
                )
                continue
            try:
                # A page may not know yet that a class has another name.
                present = self.class_names.meant(given.mark, given.as_of)
            except CampaignError as error:
                reasons[given.sha256] = str(error)
                continue
            before = self.present_name(given.before, given.as_of) or given.before
            mark = Mark(given.sha256, present, before)
            kind = "confirm" if operation.confirm else self._kind(mark)
            kind = "answer" if operation.audit else kind
            reason = self._reason_against(mark, image, image in new, kind)
            if reason:
                reasons[mark.sha256] = reason
            elif image is not None and not self._is_idle(mark, kind):
                new[image] = kind, ResolvedRow(image, mark.sha256, mark.mark)
        if not new:
            self._idle[operation.id] = reasons
            return Outcome(operation.id, "nothing", self._refusals(reasons))
        first: int | None = None
        for kind in ("teach", "repeat", "confirm", "answer"):
            rows = [row for its_kind, row in new.values() if its_kind == kind]
            detail: dict[str, Any] = {"operation": operation.id}
            if reasons:
                detail["refused"] = reasons
            if round_ is not None and kind == "teach":
                detail["round"] = round_
                told = {m.sha256: m.guess for m in operation.marks if m.guess}
                guesses = {r.image: told[r.sha256] for r in rows if r.sha256 in told}
                detail |= {"guessed": guesses} if guesses else {}
            first = add_answers(self._log, kind, operation.via, rows, first, **detail)
        self.update()
        return Outcome(operation.id, "recorded", self._refusals(reasons))

    def _done_before(self, operation: str) -> Outcome:
        """Tell again what was refused of an operation that the log has."""
        ((detail,),) = self._log.rows(
            "SELECT detail FROM events WHERE id = ?", self._operations[operation][0]
        )
        refused = self._refusals(json.loads(detail).get("refused", {}))
        return Outcome(operation, "recorded" if refused else "known", refused)

    def _kind(self, mark: Mark) -> str:
        """Whether a mark decides, or is a blind repeat of what is decided."""
        held = self.decision(mark.sha256)
        if mark.before is not None or held is None or held.kind == "skip":
            return "teach"
        return "repeat" if self._is_apart(held) else "teach"

    def _is_apart(self, held: Decision) -> bool:
        """Whether a decision is another person's, or so old that one forgets it."""
        if held.who != self._log.who:
            return True
        newer = takewhile(
            lambda act: act.id != held.event, reversed(self.acts.values())
        )
        own = (act for act in newer if act.kind == "teach" and act.who == held.who)
        return sum(len(act.decisions) for act in own) >= APART

    def _is_idle(self, mark: Mark, kind: str) -> bool:
        """Whether a mark changes nothing."""
        if kind == "repeat":  # whether it is the same as before is what counts
            again = self.has_repeated(mark.sha256, self._log.who)
            return again or mark.mark == "?skip"
        held = self.decision(mark.sha256)
        return kind == "teach" and held is not None and held.mark == mark.mark

    def _reason_against(
        self, mark: Mark, image: int | None, twice: bool, kind: str
    ) -> str:
        if image is None:
            return "There is no such picture in the pool."
        if not self.class_names.is_label(mark.mark) and mark.mark not in MARKS:
            return self.class_names.unknown(mark.mark, MARKS)
        if twice:
            return "It is in this list twice."
        if kind == "answer":
            return "" if mark.sha256 in self.drawn() else "It is in no test any more."
        if mark.sha256 in self.drawn():
            return "An audit keeps it apart. The test, or 'skadma evaluate', has it."
        held = self.decision(mark.sha256)
        holds = held and held.mark
        if kind == "confirm" and holds != mark.mark:
            return "It was decided otherwise meanwhile."
        if kind == "teach" and holds not in (mark.before, mark.mark, "?skip"):
            return "It was decided meanwhile."
        return ""

    def _refusals(self, reasons: Mapping[str, str]) -> list[dict[str, Any]]:
        found = []
        for sha256, reason in reasons.items():
            held = self.decision(sha256)
            found.append(
                {
                    "sha256": sha256,
                    "path": self.path(sha256),
                    "reason": reason,
                    "holds": held and held.mark,
                    "by": held and held.who,
                }
            )
        return found

    def _undo(self, operation: str, undone: str) -> Outcome:
        events = self._operations.get(undone, [])
        kind, _, number = undone.partition("event-")
        if not kind and number.isdecimal():
            events = [int(number)]
        acts = self.acts
        mine = ((e, acts[e]) for e in events if e in acts)
        standing = [e for e, act in mine if act.decisions or act.kind == "classes"]
        reasons = {
            d.sha256: "Its label came from an audit. 'skadma undo' takes the release "
            "of the audit back, if it is the last change."
            for event in standing
            if acts[event].detail.get("with") in self.released
            for d in acts[event].decisions
        }
        for event in standing:
            change = acts[event].detail.get("change", "note")
            if change != "note" and event != next(reversed(acts)):  # it may be needed
                reasons[""] = (
                    "Somebody answered or changed something since the labels were "
                    "changed, so that is not taken back."
                )
        if not standing or reasons:
            self._idle[operation] = reasons
            if not standing:
                self._idle.setdefault(undone, {})
            return Outcome(operation, "nothing", self._refusals(reasons))
        for event in standing:
            self._log.add_event("undo", undone=event, operation=operation)
        self.update()
        return Outcome(operation, "undone")
