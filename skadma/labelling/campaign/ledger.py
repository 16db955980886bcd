"""Decisions are written, and known, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .agreement import APART
from .decide import decision_row
from .event_log import Store
from .labels_csv import MARKS
from .log_in_memory import ACTS, LogInMemory
from .operations import Mark, Operation, Outcome
from .state import Decision


class Ledger(LogInMemory):
    """What holds, and what writes more of it; each operation is done once.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        # Operations that changed nothing, which the log therefore does not have: one
        # that comes again must not do later what it did not do then.
        self._idle: set[str] = set()

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
        for told in operation.marks:
            # A page may not have heard yet that a class has another name.
            said = self.naming.former.get(told.mark, told.mark)
            mark = Mark(told.sha256, said, self.today(told.before))
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
        for kind in ACTS:
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
            return self.naming.unknown(mark.mark, MARKS)
        if image in fresh:
            return "It is in this list twice."
        if self.is_drawn(mark.sha256):
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
