"""Labels per hour, by person, pauses left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .answers import Answer
from .event_log import Store

LONGEST = 120.0
"""Seconds a label; what took longer had a pause in it."""
SHORTEST = 0.2
"""Seconds a label; what took less was made elsewhere, such as a file of old labels."""


@dataclass(frozen=True)
class Pace:
    """How fast somebody labels.

    Attributes
    ----------
    who : str
    n_labels : int
        Answers whose time is known: decisions and blind repeats.
    hours : float
        What they took.
    """

    who: str
    n_labels: int
    hours: float

    @property
    def per_hour(self) -> float:
        """Labels per hour."""
        return self.n_labels / self.hours

    def __str__(self) -> str:
        return f"{self.who}: {self.per_hour:.0f} ({self.n_labels} timed)"


def measure_pace(store: Store, answers: Sequence[Answer]) -> list[Pace]:
    """Time answers; see :meth:`Campaign.labels_per_hour`. Within ``store.reading``."""
    n_answers = Counter(a.event for a in answers if a.act != "confirm")
    last: dict[str, datetime] = {}
    asked: datetime | None = None
    timed: dict[str, tuple[int, float]] = {}
    with store.intact():
        for event, text, who, kind in store.rows(
            "SELECT id, at, who, kind FROM events ORDER BY id"
        ):
            at = datetime.fromisoformat(text)
            if kind in ("query", "audit"):
                asked = at
            elif kind in ("teach", "repeat", "confirm", "answer", "undo"):
                n = n_answers[event]
                for begin in (last.get(who), asked) if n else ():
                    if begin is None:
                        continue
                    seconds = (at - begin).total_seconds()
                    if seconds / n <= LONGEST:
                        if seconds / n >= SHORTEST:
                            known, before = timed.get(who, (0, 0.0))
                            timed[who] = known + n, before + seconds
                        break
                last[who] = at
    return [Pace(who, n, s / 3600) for who, (n, s) in sorted(timed.items())]
