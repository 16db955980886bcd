"""The log kept in memory, up to date by what it gained."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from .event_log import Store
from .folders import Pools, read_pools
from .image_index import Content, check_path
from .naming import Naming, read_naming
from .operations import Event
from .state import Decision

ACTS = ("teach", "repeat", "confirm", "answer")


class LogInMemory:
    """What holds, kept up to date by reading only what the log gained.

    Others may write meanwhile; every method sees what they wrote. Where the classes or
    the pools changed, or a change of them was taken back, all is read again.

    Parameters
    ----------
    store : Store

    Attributes
    ----------
    naming : Naming
        What the classes are called. Labels are in today's names.
    pools : Pools
        Where images come from.
    paths : dict of int to str
        Of images that are in a pool, or were until their file went.
    contents : dict of int to Content
    acts : dict of int to Event
        Those that were not undone, oldest first.
    last_query : int or None
        The event of the last query.
    """

    naming: Naming
    pools: Pools

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forget()
        self.read()

    def _forget(self) -> None:
        self._last = 0
        self.paths: dict[int, str] = {}
        self.contents: dict[int, Content] = {}
        self.acts: dict[int, Event] = {}
        self.last_query: int | None = None
        self._usable: dict[str, int] | None = None
        self._candidates: dict[str, int] | None = None
        self._all_paths: dict[int, str] = {}  # those of pools taken back too
        self._changes: set[int] = set()  # events that changed classes or pools
        self._images: dict[str, list[int]] = {}  # by content, present or past
        self._held: dict[str, list[Decision]] = {}  # those not undone, oldest first
        self._repeats: dict[tuple[str, str], list[int]] = {}  # by content and person
        self._audits: dict[int, list[str]] = {}  # contents that are kept apart
        self._drawn: set[str] = set()
        self._operations: dict[str, list[int]] = {}

    def read(self) -> None:
        """Read what the log gained."""
        with self._store.reading():
            self._read()

    def _read(self) -> None:
        with self._store.intact():
            news = self._news()
            if self._last and any(self._changes_names(*event) for event in news):
                self._forget()
                news = self._news()
            if not news:
                return
            if not self._last:
                self.naming = read_naming(self._store)
                self.pools = read_pools(self._store)
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
            for *event, detail in self._store.rows(
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
        for image, path in self._store.rows(
            "SELECT id, path FROM images WHERE event > ?", self._last
        ):
            self._all_paths[image] = check_path(path)
        for event, image, *content in self._store.rows(
            "SELECT event, image, sha256, size, mtime_ns, problem FROM contents "
            "WHERE event > ? ORDER BY event",
            self._last,
        ):
            path = self._all_paths[image]
            if not self.pools.holds(path, event):
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
        for event, image, sha256, kind, label in self._store.rows(
            "SELECT * FROM decisions WHERE event > ?1 UNION ALL "
            "SELECT * FROM looks WHERE event > ?1 ORDER BY event, image",
            self._last,
        ):
            now = label if label is None else self.naming.now(label, event)
            said = Decision(event, image, sha256, kind, now)
            given.setdefault(event, []).append(said)
        for event, sha256 in self._store.rows(
            "SELECT event, sha256 FROM draws WHERE event > ?", self._last
        ):
            self._audits.setdefault(event, []).append(sha256)
        for number, at, who, kind, detail in news:
            operation = detail.get("operation")
            if operation is not None:
                self._operations.setdefault(operation, []).append(number)
            if kind in ACTS:
                acts = given.get(number, [])
                self._do_or_undo(Event(number, at, who, kind, operation, acts))
            elif kind in ("classes", "pool"):
                self._changes.add(number)
            elif kind == "undo" and detail["undone"] not in self._changes:
                self._do_or_undo(self.acts[detail["undone"]], undo=True)
            elif kind == "query":
                self.last_query = number
            elif kind == "release":
                for audit in detail["audits"]:
                    self._audits.pop(audit, None)
        drawn = {sha256 for contents in self._audits.values() for sha256 in contents}
        if drawn != self._drawn:
            self._drawn, self._candidates = drawn, None

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

    @property
    def classes(self) -> list[str]:
        """Today's classes."""
        return self.naming.classes

    def today(self, mark: str | None) -> str | None:
        """What a class is called today, by the name that it had when it was told."""
        return None if mark is None else self.naming.former.get(mark, mark)

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
        """Contents that are there and can be decoded, with the first image of each."""
        if self._usable is None:
            self._usable = {}
            owner, paths = self.pools.owner, self.paths
            for image in sorted(paths, key=lambda i: (owner(paths[i]), paths[i], i)):
                content = self.contents[image]
                if content.sha256 and content.problem is None:
                    self._usable.setdefault(content.sha256, image)
        return self._usable

    def is_drawn(self, sha256: str) -> bool:
        """Whether an audit keeps a content apart."""
        return sha256 in self._drawn

    def candidates(self) -> dict[str, int]:
        """Usable contents, without those that an audit keeps apart."""
        if self._candidates is None:
            usable, drawn = self.usable(), self._drawn
            self._candidates = {s: i for s, i in usable.items() if s not in drawn}
        return self._candidates

    def has_repeated(self, sha256: str, who: str) -> bool:
        """Whether somebody answered again, blind."""
        return bool(self._repeats.get((sha256, who)))

    def n_answered(self, who: str) -> tuple[int, int]:
        """How many images somebody decided about, and answered again, blind."""
        decided = sum(
            any(self.acts[said.event].who == who for said in held)
            for held in self._held.values()
        )
        repeated = sum(
            bool(events) for (_, by), events in self._repeats.items() if by == who
        )
        return decided, repeated

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
