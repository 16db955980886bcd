"""What the page is told: the next pictures, what was decided, where things stand."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..campaign.agreement import n_repeats_due
from ..campaign.ledger import Event, Ledger, Operation

_AWAY = 20.0
"""Seconds without a word from a tab after which its pictures go to others."""
_AGAIN = 30.0
"""Seconds after which the child is asked again where it failed, or had too few."""
_STRIP = 10


@dataclass
class _Tab:
    seen: float = 0.0
    have: tuple[str, ...] = ()


class Controller:
    """Hand out pictures and take decisions. For one thread.

    Parameters
    ----------
    ledger : Ledger
    who : str
    n_instances : int
        Labels in a round.
    repeat : float, default=0
        Share of the person's answers that are about pictures shown again, blind.
    """

    def __init__(
        self, ledger: Ledger, who: str, n_instances: int, repeat: float = 0
    ) -> None:
        self.doubts: list[dict[str, Any]] = []
        self.doubted_at = 0
        # What may be shown again, in order, with a guess where there is one.
        self._repeats: dict[str, tuple[str, float] | None] = {}
        self._blind: set[str] = set()  # what was
        self._guesses: dict[str, tuple[str, float]] = {}
        self.ledger = ledger
        self.who = who
        self.n_instances = n_instances
        self._repeat = repeat
        self._queue: list[dict[str, Any]] = []
        self._tabs: dict[str, _Tab] = {}
        self._moved: dict[str, str] = {}  # which tab took a picture over
        self._known: dict[str, str] = {}
        self._asked_with: dict[str, str] | None = None
        self._asked_held = 0
        self._asked_handed = 0
        self._asked_at = 0.0
        self._stage = "starting"
        self._problem: str | None = None

    # --- to and from the child -----------------------------------------------

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message of the child."""
        if message["kind"] == "stage":
            self._stage = message["stage"]
            return
        self._stage = "idle"
        if message["kind"] == "problem":
            self._problem = message["message"]
            return
        self._problem = None
        self._queue = list(message["proposals"])
        self._known = dict(message["known"])
        self._repeats = message["repeats"]
        # What pages hold may have been handed out since the child was asked.
        again = {sha: self._repeats.get(sha) for sha in self._held() & self._blind}
        self._guesses = {
            **{p["sha256"]: (p["guess"], p["confidence"]) for p in self._queue},
            **message["guesses"],
            **{sha: guess for sha, guess in again.items() if guess},
        }
        self.doubts = message["doubts"]
        self.doubted_at = message["as_of"]

    def wanted(self) -> int | None:
        """How many images the child should choose now; None if it need not.

        Those that pages hold already are asked for again, since they would be chosen
        again. A round is kept in reserve for a hand faster than the network.
        """
        labels = self.ledger.labels()
        n_handed = len(self.handed())
        if self._asked_with is not None:
            before = self._asked_with
            n_changed = sum(before.get(k) != v for k, v in labels.items())
            n_changed += len(before.keys() - labels.keys())
            again = time.monotonic() - self._asked_at > _AGAIN
            news = len(self.ledger.decisions()) != self._asked_held
            news |= n_handed > self._asked_handed
            short = len(self._free()) < self.n_instances and news
            lacking = again and (self._problem is not None or not self._free())
            if n_changed < max(1, self.n_instances // 2) and not short and not lacking:
                return None
        return n_handed + 2 * self.n_instances

    def asked(self) -> None:
        """Note that the child was asked, with the labels that there are now."""
        self._asked_with = self.ledger.labels()
        self._asked_held = len(self.ledger.decisions())
        self._asked_handed = len(self.handed())
        self._asked_at = time.monotonic()

    # --- to and from the page ------------------------------------------------

    def sync(
        self, tab: str, have: Sequence[str], want: int, *, meanwhile: bool = False
    ) -> dict[str, Any]:
        """Tell a tab where things stand, and give it pictures.

        Parameters
        ----------
        tab : str
            Its name.
        have : sequence of str
            The pictures that it holds.
        want : int
            How many more it wants.
        meanwhile : bool, default=False
            Draw by chance while none are chosen.
        """
        self.ledger.read()
        moved = [sha for sha in have if self._has_moved(sha, tab)]
        held = tuple(sha for sha in have if sha not in moved)
        self._tabs[tab] = _Tab(time.monotonic(), held)
        items = self._free()[:want]
        if not items and not held:
            items = self._taken_over(tab, want)
        if meanwhile and not items:
            items = self._drawn(want)
        if items:  # one at a time, among others
            place = random.randrange(len(items))
            again = self._due(guessed=items[place]["guess"] is not None)
            if again:
                items[place] = again
                self._blind.add(again["sha256"])
        self._tabs[tab].have += tuple(item["sha256"] for item in items)
        return {
            "items": [self._shown(item) for item in items],
            "stale": [*moved, *(sha for sha in held if not self._is_open(sha))],
            "elsewhere": len(set(self.handed()) - set(self._tabs[tab].have)),
            "guesses": {
                sha: (self.ledger.present_name(guess[0]), guess[1])
                for sha in have
                if (guess := self._guesses.get(sha)) and guess[0]
            },
            **self.state(),
        }

    def record(self, operations: Iterable[Operation]) -> dict[str, Any]:
        """Write operations down; they are on the disk when this returns."""
        outcomes = self.ledger.record(operations, self.ledger.last_query)
        return {
            "outcomes": [vars(outcome) for outcome in outcomes],
            **self.state(),
        }

    def state(self) -> dict[str, Any]:
        """Where things stand."""
        labels = self.ledger.labels()
        counts = self.ledger.counts()
        usable = self.ledger.candidates()
        decided = sum(sha in usable for sha in self.ledger.decisions())
        return {
            "classes": self.ledger.classes,
            "former": self.ledger.class_names.former,
            "counts": {name: counts[name] for name in self.ledger.classes},
            "aside": {k: counts[k] for k in ("?skip", "?cant-tell", "?not-an-image")},
            "n_images": len(usable),
            "n_decided": decided,
            "n_labels": len(labels),
            "n_known": sum(labels.get(k) == v for k, v in self._known.items()),
            "recent": [self._recent(event) for event in self._latest()],
            "problem": self._problem,
            "stage": self._stage,
        }

    # --- within --------------------------------------------------------------

    def _present(self) -> list[_Tab]:
        now = time.monotonic()
        self._tabs = {k: t for k, t in self._tabs.items() if now - t.seen < _AWAY}
        return list(self._tabs.values())

    def _held(self) -> set[str]:
        return {sha for tab in self._present() for sha in tab.have}

    def _is_open(self, sha256: str) -> bool:
        """Whether nobody decided about it, it was skipped, or is shown again."""
        if self.ledger.is_drawn(sha256) or self.ledger.image(sha256) is None:
            return False  # an audit drew it meanwhile, or its pool was taken back
        decision = self.ledger.decision(sha256)
        again = sha256 in self._blind
        if again and not self.ledger.has_repeated(sha256, self.who):
            return True
        return decision is None or decision.kind == "skip"

    def _due(self, *, guessed: bool) -> dict[str, Any] | None:
        """A picture to show again, blind; it looks like the one that it replaces."""
        held = self._held()
        if any(sha in self._blind and self._may_repeat(sha) for sha in held):
            return None
        left = [
            sha
            for sha, guess in self._repeats.items()
            if sha not in held and self._may_repeat(sha) and (guess or not guessed)
        ]
        if (
            not left
            or n_repeats_due(self._repeat, *self.ledger.n_answered(self.who)) < 1
        ):
            return None
        sha256 = min(left, key=self._blind.__contains__)  # one that was skipped, last
        guess, confidence = (guessed and self._repeats[sha256]) or (None, None)
        return {
            "sha256": sha256, "guess": guess, "confidence": confidence, "blind": True
        }  # fmt: skip

    def _may_repeat(self, sha256: str) -> bool:
        """Whether a picture has a label, is there, and was not answered again yet."""
        decision = self.ledger.decision(sha256)
        return (
            decision is not None
            and decision.label is not None
            and sha256 in self.ledger.candidates()
            and not self.ledger.has_repeated(sha256, self.who)
        )

    def handed(self) -> list[str]:
        """Pictures that tabs hold and that nobody decided about."""
        return [sha for sha in self._held() if self.ledger.decision(sha) is None]

    def _free(self) -> list[dict[str, Any]]:
        """Chosen, not decided, held by no tab."""
        held = self._held()
        again = self._only_skipped_left()
        usable = self.ledger.candidates()
        return [
            item
            for item in self._queue
            if (sha := item["sha256"]) not in held
            and sha in usable
            and (again or self.ledger.decision(sha) is None)
            and self._is_open(sha)
        ]

    def _has_moved(self, sha256: str, tab: str) -> bool:
        owner = self._moved.get(sha256, tab)
        there = self._tabs.get(owner)
        return owner != tab and there is not None and sha256 in there.have

    def _taken_over(self, tab: str, n: int) -> list[dict[str, Any]]:
        """Pictures that wait in other tabs, where nothing else is left.

        The first of each is being looked at, perhaps.
        """
        waiting = [
            sha
            for name, other in self._tabs.items()
            if name != tab
            for sha in other.have[1:]
            if self.ledger.decision(sha) is None and self._is_open(sha)
        ][:n]
        self._moved.update(dict.fromkeys(waiting, tab))
        for other in self._tabs.values():
            other.have = tuple(sha for sha in other.have if sha not in waiting)
        items = []
        for sha in waiting:
            guess, confidence = self._guesses.get(sha, (None, None))
            items.append({"sha256": sha, "guess": guess, "confidence": confidence})
        return items

    def _only_skipped_left(self) -> bool:
        usable = self.ledger.candidates()
        return sum(sha in usable for sha in self.ledger.decisions()) >= len(usable)

    def _drawn(self, n: int) -> list[dict[str, Any]]:
        held = self._held()
        left = [
            sha
            for sha in self.ledger.candidates()
            if sha not in held and self.ledger.decision(sha) is None
        ]
        drawn = random.sample(left, min(n, len(left)))
        return [{"sha256": sha, "guess": None, "confidence": None} for sha in drawn]

    def _shown(self, item: dict[str, Any]) -> dict[str, Any]:
        sha256 = item["sha256"]
        decision = None if item.get("blind") else self.ledger.decision(sha256)
        return {
            "sha256": sha256,
            "path": self.ledger.path(sha256),
            "guess": self.ledger.present_name(item["guess"]),
            "confidence": item["confidence"],
            "before": None if decision is None else decision.mark,
        }

    def _latest(self) -> list[Event]:
        mine: list[Event] = []
        for event in reversed(self.ledger.acts.values()):
            if event.kind == "answer":  # an audit asked it; it is no label
                continue
            if event.who == self.who and event.decisions:
                mine.append(event)
                if len(mine) == _STRIP:
                    break
        return mine

    def _recent(self, event: Event) -> dict[str, Any]:
        first = event.decisions[0]
        return {
            "target": event.operation or f"event-{event.id}",
            "at": event.at,
            "n": len(event.decisions),
            "sha256": first.sha256,
            "path": self.ledger.path(first.sha256),
            "mark": first.mark,
            "items": [
                {
                    "sha256": d.sha256,
                    "path": self.ledger.path(d.sha256),
                    "before": self.ledger.mark_before(d),
                }
                for d in event.decisions
            ],
        }
