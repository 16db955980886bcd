"""Blind repeats: which images to show again, and how far people agree."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from .answers import Answer, holding, standing_repeats
from .state import State, digest

APART = 10
"""Decisions between somebody's own label and the same image again."""


@dataclass(frozen=True)
class PairAgreement:
    """How far two people agree, or one with himself.

    Attributes
    ----------
    first, second : str
        The people; the same twice for one who saw images again.
    n : int
        Images that both answered, the second time blind.
    n_agree : int
    interval : (float, float)
        Of the agreement n_agree / n: Wilson's, 95 %.
    kappa : float or None
        Cohen's: 0 is what chance would give, 1 full agreement. None where all answers
        are one class.
    kappa_interval : (float, float) or None
        About 95 %.
    """

    first: str
    second: str
    n: int
    n_agree: int
    interval: tuple[float, float]
    kappa: float | None
    kappa_interval: tuple[float, float] | None

    def __str__(self) -> str:
        who = (
            f"{self.first} again"
            if self.first == self.second
            else f"{self.first} and {self.second}"
        )
        low, high = self.interval
        said = (
            f"{who}: {self.n_agree} of {self.n} the same "
            f"({self.n_agree / self.n:.0%}, 95 %: {low:.0%} to {high:.0%})"
        )
        if self.kappa is None or self.kappa_interval is None:
            return f"{said}, no kappa: all answers are one class"
        low, high = self.kappa_interval
        return f"{said}, kappa {self.kappa:.2f} ({low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Disagreement:
    """An image about which a blind repeat said something else.

    Attributes
    ----------
    path : str
    sha256 : str
    first, second : str
        Who decided, and who saw it again.
    label, other : str
        What they said: classes or marks.
    """

    path: str
    sha256: str
    first: str
    second: str
    label: str
    other: str


@dataclass(frozen=True)
class Agreement:
    """What blind repeats tell.

    Attributes
    ----------
    pairs : list of PairAgreement
        By people.
    disagreements : list of Disagreement
        Oldest first.
    """

    pairs: list[PairAgreement]
    disagreements: list[Disagreement]

    def __str__(self) -> str:
        if not self.pairs:
            return "No image was shown again yet."
        lines = [str(pair) for pair in self.pairs]
        lines += [
            f"{d.path}: {d.first} said {d.label!r}, {d.second} {d.other!r}"
            for d in self.disagreements
        ]
        return "\n".join(lines)


def due(answers: Sequence[Answer], state: State, share: float, who: str) -> list[int]:
    """Choose images to show somebody again; see :meth:`Campaign.repeats_due`."""
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}; it must be from 0 to 1.")
    usable = state.usable()
    mine = [a for a in answers if a.who == who and a.act != "confirm"]
    again = {sha256 for sha256, other in standing_repeats(answers) if other == who}
    recent = {a.sha256 for a in [a for a in mine if a.act == "teach"][-APART:]}
    by_others: list[str] = []
    own: list[str] = []
    decided_by_me = {a.sha256 for a in mine if a.act == "teach"}
    for sha256, answer in holding(answers).items():
        if sha256 in again or sha256 not in usable or answer.mark.startswith("?"):
            continue
        if answer.who == who:
            if sha256 not in recent:
                own.append(sha256)
        elif sha256 not in decided_by_me:
            by_others.append(sha256)
    n_mine = len(decided_by_me)
    n = len(by_others) + len(own)
    if share < 1:
        n = min(n, n_due(share, n_mine, len(again)))
    for each in (by_others, own):
        each.sort(key=lambda sha256: digest("repeat", who, sha256))
    decided = {a.sha256: a.who for a in answers if a.act == "teach"}
    n_own = sum(decided.get(sha256) == who for sha256 in again)
    n_others = len(again) - n_own
    chosen: list[str] = []
    while len(chosen) < n:  # as many of other people's as of one's own
        if by_others and (n_others <= n_own or not own):
            chosen.append(by_others.pop(0))
            n_others += 1
        else:
            chosen.append(own.pop(0))
            n_own += 1
    return [usable[sha256] for sha256 in chosen]


def n_due(share: float, n_decided: int, n_repeated: int) -> int:
    """Count the repeats that are due now.

    Parameters
    ----------
    share : float
        Of somebody's answers, in [0, 1).
    n_decided, n_repeated : int
        Images that the person decided about, and answered again.

    Returns
    -------
    int
        At most 0 where none is due.
    """
    return math.floor(share / (1 - share) * n_decided) - n_repeated


def compare(answers: Sequence[Answer], state: State) -> Agreement:
    """Compare blind repeats with the decisions that held when they were made."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    disagreements = []
    decided: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.act == "teach":
            decided.setdefault(answer.sha256, []).append(answer)
    for again in sorted(standing_repeats(answers).values(), key=lambda a: a.event):
        before = [a for a in decided.get(again.sha256, []) if a.event < again.event]
        if not before or "?skip" in (before[-1].mark, again.mark):
            continue  # a decision that was undone, or no answer
        first = before[-1]
        people = tuple(sorted((first.who, again.who)))
        said = {first.who: first.mark, again.who: again.mark}
        marks = (
            (first.mark, again.mark)
            if first.who == again.who
            else (said[people[0]], said[people[1]])
        )
        pairs.setdefault((people[0], people[1]), []).append(marks)
        if first.mark != again.mark:
            disagreements.append(
                Disagreement(
                    state.paths[again.image],
                    again.sha256,
                    first.who,
                    again.who,
                    first.mark,
                    again.mark,
                )
            )
    return Agreement(
        [_pair(*people, marks) for people, marks in sorted(pairs.items())],
        disagreements,
    )


def _pair(first: str, second: str, marks: list[tuple[str, str]]) -> PairAgreement:
    n = len(marks)
    n_agree = sum(a == b for a, b in marks)
    kappa, chance = kappa_and_chance(marks)
    found = binomtest(n_agree, n).proportion_ci(0.95, method="wilson")
    interval = (float(found.low), float(found.high))
    of_kappa = None
    if kappa is not None:
        low, high = ((p - chance) / (1 - chance) for p in interval)
        of_kappa = (max(low, -1.0), high)
    return PairAgreement(first, second, n, n_agree, interval, kappa, of_kappa)


def kappa_and_chance(marks: Sequence[tuple[str, str]]) -> tuple[float | None, float]:
    """Compute Cohen's kappa, and the agreement that chance would give.

    Parameters
    ----------
    marks : sequence of (str, str)
        What two said of the same images.

    Returns
    -------
    kappa : float or None
        None where all answers are the same.
    chance : float
        In (0, 1].
    """
    one, two = zip(*marks, strict=True)
    counts = Counter(one), Counter(two)
    chance = sum(counts[0][mark] * counts[1][mark] for mark in counts[0])
    if chance == len(marks) ** 2:
        return None, 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that only one of them used
        kappa = float(cohen_kappa_score(np.array(one), np.array(two)))
    return kappa, chance / len(marks) ** 2
