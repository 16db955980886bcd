"""The names of the classes, and the changes of them that the log has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .event_log import CampaignError, EventLog

CHANGES = ("add", "rename", "merge")


def check_classes(classes: Sequence[str]) -> list[str]:
    """Check the names of the classes."""
    if isinstance(classes, str):
        raise CampaignError(f"classes={classes!r} must be a list of names.")
    names = [str(name) for name in classes]
    wrong = [n for n in names if not n.strip() or n != n.strip() or n.startswith("?")]
    if len(names) < 2 or len(set(names)) < len(names) or wrong:
        raise CampaignError(
            f"classes={names} must be at least two different names, without blanks "
            "around them and without a question mark in front."
        )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise CampaignError(f"The class {name!r} is no Unicode text.") from error
    return names


class ClassNames:
    """The names of the classes, from the start through each change.

    The log keeps the names that were given. A name means what the changes after it made
    of it.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._first = tuple(check_classes(classes))
        # The present classes, in the order in which they came; a new name takes the
        # place of the old one.
        self.classes = list(self._first)
        # Names that are no class any more, with the present class of each.
        self.former: dict[str, str] = {}
        self._events: list[tuple[int, dict[str, str]]] = []

    @property
    def changed(self) -> bool:
        """Whether the classes differ from those at the start, or in their order."""
        return self.classes != list(self._first)

    def now(self, label: str, event: int) -> str:
        """Give the present name of a class that an event names `label`."""
        for at, renamed in self._events:
            if at > event:
                label = renamed.get(label, label)
        return label

    def change(
        self, change: str, names: list[str], into: str | None, event: int
    ) -> None:
        """Add the classes `names`, or rename or merge them `into` one, by an event."""
        texts = [*names] if into is None else [*names, into]
        if not isinstance(names, list) or not all(isinstance(n, str) for n in texts):
            raise CampaignError(
                f"{names!r} must be a list of names of classes, {into!r} a name."
            )
        if change not in CHANGES or (into is None) != (change == "add") or not names:
            raise CampaignError(
                f"{change!r} of {names} is no change of classes; there are "
                f"{', '.join(CHANGES)}, each of one class or more."
            )
        if into is None:
            classes = self._added(names)
        else:
            classes = self._joined(names, into, change)
        self.classes = check_classes(classes)
        renamed = {} if into is None else {n: into for n in names if n != into}
        self._events.append((event, renamed))
        former = {old: renamed.get(now, now) for old, now in self.former.items()}
        self.former = {
            old: now
            for old, now in (former | renamed).items()
            if old not in self.classes
        }

    def unknown(self, label: str, others: Sequence[str] = ()) -> str:
        """Say why a label is no class, and what to write instead."""
        if label in self.former:
            return f"the class {label!r} is called {self.former[label]!r} by now."
        nor = f", nor {', '.join(others)}" if others else ""
        return f"{label!r} is none of the classes {', '.join(self.classes)}{nor}."

    def _added(self, names: list[str]) -> list[str]:
        for name in names:
            if name in self.classes:
                raise CampaignError(f"There is a class {name!r} already.")
        return [*self.classes, *names]

    def _joined(self, names: list[str], into: str, change: str) -> list[str]:
        for name in names:
            if name not in self.classes:
                raise CampaignError(f"{name!r} cannot be changed: {self.unknown(name)}")
        if change == "rename" and (len(names) != 1 or into in self.classes):
            raise CampaignError(
                f"{names[0]!r} cannot be renamed to {into!r}, which is a class itself. "
                "To make one class of both, merge them."
            )
        if change == "merge" and len({*names, into} & set(self.classes)) < 2:
            raise CampaignError(
                f"To merge takes two classes or more, got {list(names)} into {into!r}. "
                "To give one class another name, rename it."
            )
        place = into if into in self.classes else names[0]
        joined = [into if name == place else name for name in self.classes]
        return [name for name in joined if name == into or name not in names]


def read_class_names(log: EventLog) -> ClassNames:
    """Read the names of the classes from the log."""
    with log.reading(), log.intact():
        ((first,),) = log.rows("SELECT value FROM settings WHERE name = 'classes'")
        names = ClassNames(json.loads(first))
        changes: dict[int, dict[str, Any]] = {}
        for event, kind, detail in log.rows(
            "SELECT id, kind, detail FROM events WHERE kind IN ('classes', 'undo') "
            "ORDER BY id"
        ):
            if kind == "undo":
                changes.pop(json.loads(detail)["undone"], None)
            else:
                changes[event] = json.loads(detail)
        for event, detail in changes.items():
            try:
                names.change(detail["change"], detail["names"], detail["into"], event)
            except CampaignError as error:
                raise ValueError(f"event {event} is no change: {error}") from error
    return names
