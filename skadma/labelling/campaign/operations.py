"""What a page asks to be written down, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .state import Decision


@dataclass(frozen=True)
class Mark:
    """What somebody says about one picture.

    Attributes
    ----------
    sha256 : str
        The picture that was looked at.
    mark : str
        A class, ``"?skip"``, ``"?cant-tell"`` or ``"?not-an-image"``.
    before : str or None
        The mark that it had when it was looked at, as far as the person was told.
    """

    sha256: str
    mark: str
    before: str | None = None


@dataclass(frozen=True)
class Operation:
    """Something to be done once, however often it is asked for.

    Attributes
    ----------
    id : str
        Made by who asks.
    marks : sequence of Mark
        What to write down; one event, undone as one.
    undo : str or None
        Instead: the operation, or ``"event-N"``, to take back.
    confirm : bool
        The marks are what holds already, and stand after a second look.
    via : str
        How it was given, for the log.
    """

    id: str
    marks: Sequence[Mark] = ()
    undo: str | None = None
    confirm: bool = False
    via: str = "page"


@dataclass
class Outcome:
    """What came of an operation.

    Attributes
    ----------
    id : str
    status : {"recorded", "known", "undone", "nothing"}
        "known": it was done before. "nothing": there was nothing to do.
    refused : list of dict
        Marks that were not taken: `sha256`, `reason` and what `holds` and by whom.
    """

    id: str
    status: str
    refused: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """An event in which somebody said something of images.

    Attributes
    ----------
    id : int
    at : str
    who : str
    kind : {"teach", "repeat", "confirm", "answer"}
        "teach" decides; the others are looks at what is decided, or kept apart.
    operation : str or None
    decisions : list of Decision
        What was said.
    """

    id: int
    at: str
    who: str
    kind: str
    operation: str | None
    decisions: list[Decision]
