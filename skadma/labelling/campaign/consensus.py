"""Consensus: what all people's answers and the model say of each labelled image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .state import State

_SHARES = (np.arange(200) + 0.5) / 200
_PRIOR = 4 * np.log(_SHARES)
"""Logarithm of the density of how often somebody is right: most people mostly are."""


class ImageConsensus(NamedTuple):
    """The most probable class of an image, by everybody's last answer and the model.

    `label` has the `probability`; `holds` is the label that holds, with the probability
    `holds_probability`. `answers` tells who said what, blind repeats included.
    """

    path: str
    sha256: str
    label: str
    probability: float
    holds: str
    holds_probability: float
    answers: list[tuple[str, str]]


class PersonQuality(NamedTuple):
    """How often somebody is `right`, by `n` answers, with a 95 % interval."""

    who: str
    n: int
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class CampaignConsensus:
    """What answers and model say together; ``print`` shows it.

    `images` has those with a label, `people` those who answered about any of them.
    """

    images: list[ImageConsensus]
    people: list[PersonQuality]

    def __str__(self) -> str:
        differing = [image for image in self.images if image.label != image.holds]
        differing.sort(key=lambda image: image.holds_probability)
        lines = [
            f"{who}: right {right:.0%} of {n} answers (95 %: {low:.0%} to {high:.0%})"
            for who, n, right, low, high in self.people
        ]
        lines.append(f"{len(differing)} of {len(self.images)} labels differ:")
        for image in differing[:20]:
            said = ", ".join(f"{who} said {label!r}" for who, label in image.answers)
            sure = f"{image.label!r} ({image.probability:.0%})"
            lines.append(f"{image.path}: {said}; consensus {sure}")
        return "\n".join(lines)


def find_consensus(
    state: State, labelled: Sequence[tuple[int, str]], proba: np.ndarray
) -> CampaignConsensus:
    """Weigh the answers about labelled images; see :meth:`Campaign.consensus`.

    `proba` is out-of-fold, its columns are the sorted classes.
    """
    names = {name: k for k, name in enumerate(sorted(state.classes))}
    rows = {str(state.contents[i].sha256): k for k, (i, _) in enumerate(labelled)}
    last = {
        (answer.sha256, answer.who): answer.label
        for answer in state.answers
        if answer.act != "confirm" and answer.kind != "skip" and answer.sha256 in rows
    }
    given = {key: label for key, label in last.items() if label in names}
    people = {who: j for j, who in enumerate(sorted({who for _, who in given}))}
    answers = np.full((len(rows), len(people)), -1)
    said: list[list[tuple[str, str]]] = [[] for _ in rows]
    for (sha256, who), label in given.items():
        answers[rows[sha256], people[who]] = names[str(label)]
        said[rows[sha256]].append((who, str(label)))
    found, *quality = weigh_answers(answers, proba)
    images = []
    for (sha256, k), (image, holds) in zip(rows.items(), labelled, strict=True):
        best, held = found[k].argmax(), float(found[k, names[holds]])
        said_most = [*names][best], float(found[k, best])
        path = state.paths[image]
        images.append(ImageConsensus(path, sha256, *said_most, holds, held, said[k]))
    counts = (answers >= 0).sum(axis=0)
    columns = zip(people, *(x.tolist() for x in (counts, *quality)), strict=True)
    return CampaignConsensus(images, [PersonQuality(*each) for each in columns])


def weigh_answers(
    answers: np.ndarray, proba: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the classes' probabilities, and how often each person is right.

    A person gives the true class with a share of his own and each other one with equal
    chance: Dawid and Skene's model of 1979 with one number per person. What is known
    before anybody answers is `proba`, (n, n_classes), so people can be compared who
    never answered about the same image; rows of NaN tell nothing. `answers` are columns
    of it, (n, n_people), -1 for none. Classes and shares are found by turns: each share
    by its likelihood, summed over the classes that the others' answers leave open.
    Returns probabilities, and mean and ends of the 95 % interval of the shares.
    """
    n_others = max(1, proba.shape[1] - 1)
    prior = np.where(np.isnan(proba), 1 / (n_others + 1), proba).clip(1e-6)
    rows = [np.flatnonzero(column >= 0) for column in answers.T]
    said = [column[some] for column, some in zip(answers.T, rows, strict=True)]
    right = np.full(len(rows), 0.8)
    weights = np.ones((len(rows), len(_SHARES)))
    for _ in range(50):
        before, logs = right, _add_up(prior, rows, said, right, n_others)
        for j, (some, own) in enumerate(zip(rows, said, strict=True)):
            others = logs[some]
            others[np.arange(len(some)), own] -= _gain(before[j], n_others)
            p = _normalized(others)[np.arange(len(some)), own]
            chance = np.outer(_SHARES, p) + np.outer(1 - _SHARES, (1 - p) / n_others)
            density = _PRIOR + np.log(chance).sum(axis=1)
            weights[j] = np.exp(density - density.max())
        weights /= weights.sum(axis=1, keepdims=True)
        right = weights @ _SHARES
        if np.abs(right - before).max(initial=0) < 1e-4:
            break
    below = weights.cumsum(axis=1)
    low, high = (_SHARES[(below > q).argmax(axis=1)] for q in (0.025, 0.975))
    return _normalized(_add_up(prior, rows, said, right, n_others)), right, low, high


def _gain(right: float, n_others: int) -> float:
    """What an answer adds to the logarithm of its class's probability."""
    return float(np.log(right * n_others / (1 - right)))


def _add_up(
    prior: np.ndarray,
    rows: list[np.ndarray],
    said: list[np.ndarray],
    right: np.ndarray,
    n_others: int,
) -> np.ndarray:
    """Logarithms of the classes' probabilities, without a common summand."""
    logs = np.log(prior)
    for some, own, share in zip(rows, said, right, strict=True):
        logs[some, own] += _gain(share, n_others)
    return logs


def _normalized(logs: np.ndarray) -> np.ndarray:
    proba = np.exp(logs - logs.max(axis=1, keepdims=True))
    return proba / proba.sum(axis=1, keepdims=True)
