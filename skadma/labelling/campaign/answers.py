"""What people said of images: every answer that was not undone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .event_log import Store
from .state import State, read_said


@dataclass(frozen=True)
class Answer:
    """What somebody said of an image at some time.

    Attributes
    ----------
    event : int
    at : str
        ISO 8601, UTC.
    who : str
    act : {"teach", "repeat", "confirm", "answer"}
        Whether it decided, was said blind of what is decided, let a decision stand, or
        was said of an image of an audit.
    image : int
    sha256 : str
        What the image was then.
    mark : str
        Class, as it is called today, or a mark such as "?skip".
    """

    event: int
    at: str
    who: str
    act: str
    image: int
    sha256: str
    mark: str


def read_answers(store: Store, state: State) -> list[Answer]:
    """List the answers that were not undone, oldest first. Within ``store.reading``."""
    events = {
        event: (at, who, kind)
        for event, at, who, kind in store.rows("SELECT id, at, who, kind FROM events")
    }
    with store.intact():
        given = [
            decision
            for table in ("decisions", "looks")
            for said in read_said(store, state, table).values()
            for decision in said
        ]
        given.sort(key=lambda decision: (decision.event, decision.image))
        return [
            Answer(d.event, *events[d.event], d.image, d.sha256, d.mark) for d in given
        ]


def standing_repeats(answers: Iterable[Answer]) -> dict[tuple[str, str], Answer]:
    """Find each person's last blind answer about each content."""
    return {(a.sha256, a.who): a for a in answers if a.act == "repeat"}


def holding(answers: Iterable[Answer]) -> dict[str, Answer]:
    """Find the decision that holds about each content."""
    return {a.sha256: a for a in answers if a.act == "teach"}
