"""What the page shows: the next images, decisions, and where the campaign stands."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..campaign.class_names import NONE
from ..campaign.labels_csv import MARKS
from ..campaign.ledger import Ledger, Mark, Operation
from ..campaign.state import Decision

_AWAY = 20.0
"""Seconds without a request of a tab after which its images go to others."""
_AGAIN = 30.0
"""Seconds until the next request where one failed, or brought too few images."""
_NOT_DRAWN = 3
"""Images of those that a tab wants ahead that are not drawn: chosen ones will come."""
_BATCH = 5
"""Images that wait at least, where the model learns each answer at once."""
_STRIP = 10


@dataclass
class _Tab:
    seen: float = 0.0
    have: tuple[str, ...] = ()
    want: int = 0


class Controller:
    """Hand out images and record decisions. For one thread.

    `n_instances` is the number of labels in a round. With `at_once` the model learns
    each answer, and the next images are chosen anew.
    """

    def __init__(
        self, ledger: Ledger, who: str, n_instances: int, *, at_once: bool = False
    ) -> None:
        self.ledger = ledger
        self.who = who
        self.n_instances = n_instances
        self.at_once = at_once
        self.read_all = False  # the process reads the folder before it first answers
        self.quality: Sequence[float] | None = None
        self.suspects: list[dict[str, Any]] = []
        self.people: list[dict[str, Any]] = []
        self.suspects_as_of = 0
        self._guesses: dict[str, tuple[str, float]] = {}
        self._queue: list[dict[str, Any]] = []
        self._tabs: dict[str, _Tab] = {}
        self._known: dict[str, str] = {}
        self._n_left = 0  # images that the network has not looked at
        self._stage = "choosing"
        self._problem: str | None = None
        # Labels, numbers of decisions and of images shown, and time of the last request
        # to the process that trains.
        self._last_request: tuple[dict[str, str], int, int, float] | None = None

    # --- to and from the process that trains -----------------------------------

    def receive(self, message: dict[str, Any]) -> None:
        """Take over a message of the process."""
        self._stage, self.read_all = "idle", True
        if message["kind"] == "problem":
            self._problem = message["message"]
            return
        self._problem = None
        self._queue = list(message["proposals"])
        self._known = dict(message["known"])
        # Tabs may hold images that were handed out since the request.
        self._guesses = {
            **{p["sha256"]: (p["guess"], p["confidence"]) for p in self._queue},
            **message["guesses"],
        }
        self.suspects, self.people = message["suspects"], message["people"]
        self.at_once = message["at_once"]
        self.quality = message.get("quality")
        self._n_left = message.get("n_left", 0)
        self.suspects_as_of = message["as_of"]

    def n_wanted(self) -> int | None:
        """How many images to request now; None if there are enough.

        Those that tabs hold are requested too, since they would be chosen again. A
        round is kept in reserve for a person who is faster than the network.
        """
        n_shown = len(self.shown())
        if self._last_request is not None and not self._n_left:
            before, n_decisions, n_shown_then, at = self._last_request
            labels = self.ledger.labels()
            n_changed = sum(before.get(k) != v for k, v in labels.items())
            n_changed += len(before.keys() - labels.keys())
            news = len(self.ledger.decisions) != n_decisions or n_shown > n_shown_then
            n_available = len(self._available())
            short = news and n_available < self._reserve()
            again = time.monotonic() - at > _AGAIN
            lacking = again and (self._problem is not None or not n_available)
            enough = 1 if self.at_once else max(1, self.n_instances // 2)
            if n_changed < enough and not short and not lacking:
                return None
        return n_shown + 2 * self._reserve()

    def _reserve(self) -> int:
        """Images that wait to be shown: a round, or what tabs hold while it learns."""
        most = max((tab.want for tab in self._tabs.values()), default=0)
        return max(_BATCH, most) if self.at_once else self.n_instances

    def note_request(self) -> None:
        """Remember the labels and decisions at a request."""
        labels = self.ledger.labels()
        self._stage = "training" if labels else "choosing"
        self._last_request = (
            labels,
            len(self.ledger.decisions),
            len(self.shown()),
            time.monotonic(),
        )

    # --- to and from the page ------------------------------------------------

    def sync(self, tab: str, have: Sequence[str], want: int) -> dict[str, Any]:
        """Tell a tab where things stand, and give it up to `want` more images.

        `have` are the images that it holds. While none are chosen, some are drawn at
        random.
        """
        self.ledger.update()
        self._tabs[tab] = _Tab(time.monotonic(), tuple(have), len(have) + want)
        n = want if self._all_answered() else max(0, want - _NOT_DRAWN)
        items = self._available()[:want] or self._draw(n)
        self._tabs[tab].have += tuple(item["sha256"] for item in items)
        return {
            "items": [self._described(item) for item in items],
            "stale": [sha for sha in have if not self._is_open(sha)],
            "elsewhere": len(set(self.shown()) - set(self._tabs[tab].have)),
            "guesses": {
                sha: (self._present_guess(guess[0]), guess[1])
                for sha in have
                if (guess := self._guesses.get(sha)) and guess[0]
            },
            **self.state(),
        }

    def record(self, operations: Iterable[Operation]) -> dict[str, Any]:
        """Record operations; they are on the disk when this returns."""
        if self.at_once:  # no query in the log has what was guessed
            operations = [
                replace(each, marks=[self._guessed(mark) for mark in each.marks])
                for each in operations
            ]
        round_ = 0 if self.at_once else self.ledger.last_query
        outcomes = self.ledger.record(operations, round_)
        return {"outcomes": [vars(outcome) for outcome in outcomes], **self.state()}

    def test(self) -> dict[str, Any]:
        """How many pictures a test has, and those to answer, skipped ones last."""
        self.ledger.update()
        answers, there = self.ledger.audit_answers, self.ledger.usable()
        drawn = [sha for sha in self.ledger.drawn() if sha in there]
        open_ = [s for s in drawn if s not in answers or answers[s].kind == "skip"]
        open_.sort(key=answers.__contains__)
        items = [{"sha256": s, "path": self.ledger.path(s)} for s in open_[:100]]
        return {"n": len(drawn), "n_left": len(open_), "items": items}

    def state(self) -> dict[str, Any]:
        """Classes, counts, the latest decisions, and what the process does."""
        labels = self.ledger.labels()
        counts = self.ledger.counts()
        usable, decided = self.ledger.available(), self.ledger.decisions
        kinds = Counter(d.kind for sha, d in decided.items() if sha in usable)
        names = self.ledger.class_names
        ids = names.at(self.ledger.as_of)
        return {
            "as_of": self.ledger.as_of,  # classes are named as of this event
            "classes": self.ledger.classes,
            "class_ids": [ids[name] for name in self.ledger.classes],
            "former": names.former,
            "notes": names.notes,
            "counts": {name: counts[name] for name in self.ledger.classes},
            "aside": {k: counts[k] for k in [*[NONE] * names.several, *MARKS]},
            "n_images": len(usable),
            "read_all": self.read_all,
            "n_decided": sum(kinds.values()) - kinds["skip"],
            "n_skipped": kinds["skip"],
            "n_labels": len(labels),
            "n_known": sum(labels.get(k) == v for k, v in self._known.items()),
            "quality": self.quality,
            "recent": self._recent(),
            "problem": self._problem,
            "stage": self._stage,
            "n_left": self._n_left,
        }

    def shown(self) -> list[str]:
        """Images that tabs hold and that nobody decided about."""
        return [sha for sha in self._held() if self.ledger.decision(sha) is None]

    # --- within --------------------------------------------------------------

    def _guessed(self, mark: Mark) -> Mark:
        guess, confidence = self._guesses.get(mark.sha256, (None, 0.0))
        name = None if mark.before else self._present_guess(guess)
        return replace(mark, guess=(name, confidence)) if name else mark

    def _present_guess(self, guess: str | None) -> str | None:
        return self.ledger.present_name(guess, self.suspects_as_of)

    def _held(self) -> set[str]:
        """Images of the tabs that are still there."""
        now = time.monotonic()
        self._tabs = {k: t for k, t in self._tabs.items() if now - t.seen < _AWAY}
        return {sha for tab in self._tabs.values() for sha in tab.have}

    def _all_answered(self) -> bool:
        return self.ledger.available().keys() <= self.ledger.decisions.keys()

    def _is_open(self, sha256: str) -> bool:
        """Whether nobody decided about it, or it was skipped."""
        if sha256 in self.ledger.drawn() or self.ledger.image(sha256) is None:
            return False  # an audit drew it meanwhile, or its pool was taken back
        decision = self.ledger.decision(sha256)
        return decision is None or decision.kind == "skip"

    def _available(self) -> list[dict[str, Any]]:
        """Chosen, not decided, held by no tab; skipped ones when no others are left."""
        held = self._held()
        usable = self.ledger.available()
        only_skipped = self._all_answered()
        return [
            item
            for item in self._queue
            if (sha := item["sha256"]) not in held
            and sha in usable
            and (only_skipped or self.ledger.decision(sha) is None)
            and self._is_open(sha)
        ]

    def _draw(self, n: int) -> list[dict[str, Any]]:
        held, ledger = self._held(), self.ledger
        left = [s for s in ledger.sha256s(ledger.candidates()) if s not in held]
        drawn = random.sample(left, min(n, len(left)))
        return [{"sha256": sha, "guess": None, "confidence": None} for sha in drawn]

    def _described(self, item: dict[str, Any]) -> dict[str, Any]:
        sha256 = item["sha256"]
        decision = self.ledger.decision(sha256)
        return {
            "sha256": sha256,
            "path": self.ledger.path(sha256),
            "guess": self._present_guess(item["guess"]),
            "confidence": item["confidence"],
            "before": None if decision is None else decision.mark,
        }

    def _recent(self) -> list[dict[str, Any]]:
        """The person's latest decisions, but for answers to an audit."""
        mine = (
            event
            for event in reversed(self.ledger.acts.values())
            if event.kind != "answer" and event.who == self.who and event.decisions
        )
        # Of one operation some answers may decide, and others be blind repeats.
        steps = itertools.groupby(mine, lambda e: e.operation or f"event-{e.id}")
        return [
            {
                "target": target,
                "mark": items[0]["mark"],
                "items": items,
            }
            for target, events in itertools.islice(steps, _STRIP)
            if (items := [self._told(d) for event in events for d in event.decisions])
        ]

    def _told(self, decision: Decision) -> dict[str, Any]:
        return {
            "sha256": decision.sha256,
            "path": self.ledger.path(decision.sha256),
            "mark": decision.mark,
            "before": self.ledger.mark_before(decision),
        }
