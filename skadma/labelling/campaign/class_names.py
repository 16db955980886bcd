"""The names of the classes, and the changes of them that the log has."""

from __future__ import annotations

import difflib
import json
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from .event_log import CampaignError, EventLog

CHANGES = ("add", "rename", "merge", "note")
SEPARATOR, NONE = ";", "?none"
"""What is between the classes of a label where there are several, and what none is."""
_Id = tuple[int, int]


def check_classes(classes: Sequence[str], several: bool = False) -> list[str]:
    """Check the names of the classes; `several`: an image may have more than one."""
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
        if several and SEPARATOR in name:
            why = f"has a {SEPARATOR!r}, which stands between the labels of an image"
            raise CampaignError(f"The class {name!r} {why}: name it without.")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise CampaignError(f"The class {name!r} is no Unicode text.") from error
    return names


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def spelling(text: str, names: Iterable[str]) -> str | None:
    """Find the one name that a text spells in another case, or with other accents."""
    for alike in (_plain, lambda name: _plain(name).casefold()):
        same = [name for name in names if alike(name) == alike(text)]
        if len(same) == 1:
            return same[0]
    return None


class ClassNames:
    """The names of the classes, from the start through each change.

    The log keeps the names that were given. A class stays the same when its name
    changes, and a name may be given to another class later: what a name means depends
    on the event as of which it was given.

    With `several`, a label is any number of classes: their names in the classes' order,
    with a semicolon between them, or "?none".
    """

    def __init__(self, classes: Sequence[str], several: bool = False) -> None:
        self.several = several
        self._first = tuple(check_classes(classes, several))
        # Names that are no class any more, with the present class of each.
        self.former: dict[str, str] = {}
        self._changes: dict[int, tuple[str, list[str], str | None]] = {}
        # What identifies each class, by name, from an event on: the event that it came
        # with, and its place there. In the order in which the classes came; a new name
        # takes the place of the old one.
        self._ids: list[tuple[int, dict[str, _Id]]] = [
            (0, {name: (0, k) for k, name in enumerate(self._first)})
        ]
        self._merged: dict[_Id, _Id] = {}
        self._notes: dict[_Id, list[str]] = {}  # a text, then examples

    @property
    def classes(self) -> list[str]:
        """The present classes."""
        return list(self._ids[-1][1])

    @property
    def notes(self) -> dict[str, list[str]]:
        """Notes by class: a text, then up to three pictures by SHA-256."""
        ids = self._ids[-1][1].items()
        return {name: self._notes[key] for name, key in ids if key in self._notes}

    @property
    def changed(self) -> bool:
        """Whether the classes differ from those at the start, or in their order."""
        return self.classes != list(self._first)

    @property
    def ever(self) -> set[str]:
        """All names that classes have or had."""
        return {name for _, ids in self._ids for name in ids}

    @property
    def last_change(self) -> int:
        """The event of the last change; 0 if there was none."""
        return self._ids[-1][0]

    def at(self, event: int) -> dict[str, _Id]:
        """Give what identifies each class, by its name as of an event."""
        return self._ids[bisect_right(self._ids, event, key=itemgetter(0)) - 1][1]

    # --- labels: a class, or several ------------------------------------------

    def split(self, label: str) -> list[str]:
        """List the classes in a label."""
        if not self.several:
            return [label]
        return [] if label == NONE else label.split(SEPARATOR)

    def join(self, names: Iterable[str]) -> str:
        """Make the one label of several classes, in whichever order they come."""
        place = {name: k for k, name in enumerate(self._ids[-1][1])}
        given = sorted({*names}, key=lambda name: (place.get(name, len(place)), name))
        return SEPARATOR.join(given) if given else NONE

    def each(self, label: str, change: Callable[[str], str]) -> str:
        """Change the name of each class in a label."""
        if not self.several:
            return change(label)
        if label.startswith("?"):
            return label
        return self.join(change(name.strip()) for name in self.split(label))

    def is_label(self, label: str) -> bool:
        """Whether a label consists of present classes."""
        return all(name in self._ids[-1][1] for name in self.split(label))

    def refuse_several(self, what: str) -> None:
        """Refuse what has no meaning for several labels per picture."""
        if self.several:
            why = "takes one label per picture, and here a picture may have several."
            raise CampaignError(f"{what} {why}")

    def now(self, label: str, event: int) -> str:
        """Give the present name of a label that an event names `label`."""
        at = self.at(event)
        return self.each(label, lambda name: self._present(at.get(name)) or name)

    def meant(self, label: str, as_of: int | None) -> str:
        """Give the present name of the label that an answer means.

        `label` is its name as of an event, or before. Where the event is not known, it
        is a present or a former name.
        """
        return self.each(label, lambda name: self._meant(name, as_of))

    def _meant(self, label: str, as_of: int | None) -> str:
        if as_of is None or label.startswith("?"):
            return self.former.get(label, label)
        past = [ids for at, ids in reversed(self._ids) if at <= as_of]
        known = next((ids[label] for ids in past if label in ids), None)
        if known is None:  # other systems spell accents otherwise
            same = ((ids, spelling(label, ids)) for ids in past)
            known = next((ids[name] for ids, name in same if name), None)
        present = self._present(known) if known else label
        if present is None:
            raise CampaignError(
                f"the class {label!r} that was meant is no class any more: adding it "
                "was taken back."
            )
        return present

    def _present(self, known: _Id | None) -> str | None:
        while known in self._merged:
            known = self._merged[known]
        present = (name for name, each in self._ids[-1][1].items() if each == known)
        return next(present, None)

    def take_back(self, undone: int, event: int) -> None:
        """Take the change of the event `undone` back, by another event."""
        if self._changes.pop(undone, None) is None:
            return  # it is about something else
        again = ClassNames(self._first, self.several)
        for at, change in self._changes.items():
            again.change(*change, at)
        self.former, self._merged = again.former, again._merged
        self._notes = again._notes
        self._ids.append((event, again._ids[-1][1]))

    def change(
        self, change: str, names: list[str], into: str | None, event: int
    ) -> None:
        """Add the classes `names`, or rename or merge them `into` one, by an event.

        A note is about the first name; examples follow it, and `into` is its text.
        """
        texts = [*names] if into is None else [*names, into]
        if (
            change not in CHANGES
            or (into is None) != (change == "add")
            or not names
            or not isinstance(names, list)
            or not all(isinstance(name, str) for name in texts)
        ):
            raise CampaignError(
                f"{change!r} of {names!r} is no change of classes: it must be a list "
                f"of names of classes, and not into {into!r}."
            )
        before = self._ids[-1][1]
        if change == "note" and into is not None:
            if names[0] not in before or len(names) > 4:
                raise CampaignError(
                    "A note is about a class, with three examples at most. "
                    f"{self.unknown(names[0])}"
                )
            into.encode()  # a ValueError where no page could show it
            self._notes[before[names[0]]] = [into, *names[1:]]
            self._changes[event] = change, names, into
            return
        if into is None:
            for name in names:
                if name in before:
                    raise CampaignError(f"There is a class {name!r} already.")
            check_classes([*before, *names], self.several)
            renamed: dict[str, str] = {}
            ids = before | {name: (event, k) for k, name in enumerate(names)}
        else:
            joined = self._joined(names, into, change)
            classes = check_classes(joined, self.several)
            renamed = {name: into for name in names if name != into}
            kept = before[into if into in before else names[0]]
            self._merged |= {
                before[name]: kept for name in renamed if before[name] != kept
            }
            ids = {name: kept if name == into else before[name] for name in classes}
        self._ids.append((event, ids))
        self._changes[event] = change, names, into
        former = {old: renamed.get(now, now) for old, now in self.former.items()}
        self.former = {o: now for o, now in (former | renamed).items() if o not in ids}

    def unknown(self, label: str, others: Sequence[str] = ()) -> str:
        """Say why a label is no class, and what to write instead."""
        wrong = [name for name in self.split(label) if name not in self.classes]
        if wrong and all(name and name[0] != "?" for name in wrong):
            label = wrong[0]  # else the whole is wrong, as "?none;a" and "a;" are
        others = (*others, NONE) if self.several and others else others
        if label in self.former:
            return f"the class {label!r} is called {self.former[label]!r} by now."
        nor = f", nor {', '.join(others)}" if others else ""
        close = difflib.get_close_matches(label, self.classes, 1)
        mean = f" Did you mean {close[0]!r}?" if close else ""
        return f"{label!r} is none of the classes {', '.join(self.classes)}{nor}.{mean}"

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
        settings = log.settings()
        names = ClassNames(settings["classes"], settings.get("several_labels", False))
        for event, kind, text in log.rows(
            "SELECT id, kind, detail FROM events WHERE kind IN ('classes', 'undo') "
            "ORDER BY id"
        ):
            detail: dict[str, Any] = json.loads(text)
            try:
                if kind == "undo":
                    names.take_back(detail["undone"], event)
                else:
                    change = detail["change"], detail["names"], detail["into"]
                    names.change(*change, event)
            except CampaignError as error:
                raise ValueError(f"event {event} is no change: {error}") from error
    return names
