"""Images that a query or an audit asks a label for."""

from __future__ import annotations

from dataclasses import dataclass, field

from .state import State


@dataclass(frozen=True)
class Proposal:
    """An image that a query asks a label for.

    `path` is relative to the pool, `sha256` names the content to label, `score` is the
    strategy's. The present model predicts the class `guess` with the probability
    `confidence`; both are None before the first labels. `as_of` is the log's last
    event, as of which the classes are named.
    """

    path: str
    score: float | None
    guess: str | None
    confidence: float | None
    sha256: str
    as_of: int | None = field(default=None, compare=False)


def propose(
    state: State,
    image: int,
    score: float | None = None,
    guess: str | None = None,
    confidence: float | None = None,
) -> Proposal:
    """Propose an image; blind without the last three."""
    sha256 = str(state.contents[image].sha256)
    path = state.paths[image]
    return Proposal(path, score, guess, confidence, sha256, state.as_of)
