"""Blind repeats: which images to show somebody again, and how far people agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..._utils.intervals import wilson_interval
from .state import Decision, State, digest

APART = 10
"""Decisions between somebody's own label and the same image again."""


@dataclass(frozen=True)
class PairAgreement:
    """How far two people agree, or one with himself, as `first` and `second`.

    `n` images were answered by both, the second time blind, `n_agree` of them alike;
    `interval` is Wilson's of the share, 95 %. `kappa` is Cohen's: 0 is what chance
    would give, 1 full agreement, None where all answers are one class; `kappa_interval`
    is about 95 %.
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
        text = (
            f"{who}: {self.n_agree} of {self.n} the same "
            f"({self.n_agree / self.n:.0%}, 95 %: {low:.0%} to {high:.0%})"
        )
        if self.kappa is None or self.kappa_interval is None:
            return f"{text}, no kappa: all answers are one class"
        low, high = self.kappa_interval
        return f"{text}, kappa {self.kappa:.2f} ({low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Disagreement:
    """An image that `first` gave a `label`, and `second`, blind, another."""

    path: str
    sha256: str
    first: str
    second: str
    label: str
    other: str


@dataclass(frozen=True)
class Agreement:
    """The agreement of people with each other and with themselves, by blind repeats.

    `pairs` are sorted by people, `disagreements` by time.
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


def choose_repeats(state: State, share: float, who: str) -> list[int]:
    """Choose images to show somebody again; see :meth:`Campaign.repeats_due`."""
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}; it must be from 0 to 1.")
    usable, decided = state.usable(), state.decisions
    mine = [a.sha256 for a in state.answers if a.who == who and a.act == "teach"]
    decided_by_me, recent = set(mine), set(mine[-APART:])
    again = {sha256 for sha256, other in state.repeats if other == who}
    labelled = {
        sha256: decision.who
        for sha256, decision in decided.items()
        if sha256 in usable and sha256 not in again and decision.label is not None
    }
    own = [s for s, by in labelled.items() if by == who and s not in recent]
    by_others = [
        s for s, by in labelled.items() if by != who and s not in decided_by_me
    ]
    n = len(by_others) + len(own)
    if share < 1:
        n = min(n, math.floor(share / (1 - share) * len(decided_by_me)) - len(again))
    for each in (by_others, own):
        each.sort(key=lambda sha256: digest("repeat", who, sha256))
    n_own = sum(sha256 in decided and decided[sha256].who == who for sha256 in again)
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


def measure_agreement(state: State) -> Agreement:
    """Compare blind repeats with the decisions that held when they were made."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    disagreements = []
    decided: dict[str, list[Decision]] = {}
    for answer in state.answers:
        if answer.act == "teach":
            decided.setdefault(answer.sha256, []).append(answer)
    for again in sorted(state.repeats.values(), key=lambda a: a.event):
        before = [a for a in decided.get(again.sha256, []) if a.event < again.event]
        if not before or "?skip" in (before[-1].mark, again.mark):
            continue  # a decision that was undone, or no answer
        first = before[-1]
        marks, people = (first.mark, again.mark), (first.who, again.who)
        if first.mark != again.mark:
            path = state.paths[again.image]
            disagreements.append(Disagreement(path, again.sha256, *people, *marks))
        if first.who > again.who:
            marks, people = marks[::-1], people[::-1]
        pairs.setdefault(people, []).append(marks)
    return Agreement(
        [compare_marks(*people, marks) for people, marks in sorted(pairs.items())],
        disagreements,
    )


def compare_marks(
    first: str, second: str, marks: Sequence[tuple[str, str]]
) -> PairAgreement:
    """Measure the agreement of two people by their answers about the same images."""
    n = len(marks)
    n_agree = sum(a == b for a, b in marks)
    interval = wilson_interval(n_agree / n, n, 0.95)
    one, two = zip(*marks, strict=True)
    counts = Counter(one), Counter(two)
    by_chance = sum(counts[0][mark] * counts[1][mark] for mark in counts[0])
    if by_chance == n**2:
        return PairAgreement(first, second, n, n_agree, interval, None, None)
    chance = by_chance / n**2
    kappa, low, high = ((p - chance) / (1 - chance) for p in (n_agree / n, *interval))
    kappa_interval = (max(low, -1.0), high)
    return PairAgreement(first, second, n, n_agree, interval, kappa, kappa_interval)
