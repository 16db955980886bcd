"""The process that trains and chooses images while the page is open."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..worker import Worker, WorkerEndedError

if TYPE_CHECKING:
    from ..campaign import Campaign, SuspectLabel

_PAUSE = 10.0
"""Seconds from a request in which the process ended until it is started again."""
_SUSPECTS = 60
_REPEATS = 500
_JUDGED = 20
"""Repeats that the present model judges, in case no other can."""


class TrainingProcess:
    """Have images chosen in a process of its own, by one request at a time.

    `options` are those of `Campaign.open`; with `repeat`, images to show again are
    chosen as well. Messages go to `receive`, in a thread of their own: dictionaries
    whose ``kind`` is "stage", "batch" or "problem".
    """

    def __init__(
        self,
        folder: Path,
        options: dict[str, Any],
        receive: Callable[[dict[str, Any]], object],
        *,
        repeat: bool = False,
    ) -> None:
        self.busy = False
        self._worker = Worker(folder, options, background=True)
        self._receive = receive
        self._repeat = repeat
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        self._closed = False

    def request(self, n: int, shown: list[str]) -> bool:
        """Have `n` images chosen; False if it is busy, or was ended a moment ago."""
        if self._closed or self.busy or time.monotonic() < self._not_before:
            return False
        self.busy = True
        self._thread = threading.Thread(
            target=self._choose, args=(n, shown), daemon=True
        )
        self._thread.start()
        return True

    def close(self) -> None:
        """End the process: what it was computing is computed again next time."""
        self._closed = True
        self._worker.close()
        if self._thread is not None:
            self._thread.join()

    def _choose(self, n: int, shown: list[str]) -> None:
        began = time.monotonic()
        try:
            stage = self._worker.call(next_stage)
            self._receive({"kind": "stage", "stage": stage})
            message = self._worker.call(choose_batch, n, shown, self._repeat)
        except WorkerEndedError as error:
            self._not_before = began + _PAUSE
            message = {
                "kind": "problem",
                "message": "The process that trains has ended (exit status "
                f"{error.exitcode}). It is started again; all labels are safe.",
            }
        except (ValueError, RuntimeError) as error:
            message = {"kind": "problem", "message": str(error)}
        self.busy = False
        if not self._closed:
            self._receive(message)


# --- what the process does ------------------------------------------------------------


def next_stage(campaign: Campaign) -> str:
    """Tell what the next request takes: a model where there are labels."""
    return "training" if any(campaign.status().labels.values()) else "choosing"


def choose_batch(
    campaign: Campaign, n: int, shown: list[str], repeat: bool
) -> dict[str, Any]:
    """Choose `n` images; predict those and the ones that are shown, and find suspects.

    Repeats are in order of their turn; the controller knows how many are due.
    """
    from ..campaign.prefetch import prefetch_batch

    repeats = [p.sha256 for p in campaign.repeats_due(1)[:_REPEATS]] if repeat else []
    batch = prefetch_batch(campaign, n, [*shown, *repeats[:_JUDGED]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with too few labels
        suspects = campaign.second_look()
    # The present model was trained with the labels of repeats: rather one that was not.
    unseen = {s.sha256: (s.suggested, s.confidence) for s in suspects if s.suggested}
    guesses = {**batch.guesses, **unseen}
    return {
        "kind": "batch",
        "proposals": [
            {"sha256": p.sha256, "guess": p.guess, "confidence": p.confidence}
            for p in batch.proposals
        ],
        "known": batch.known,
        "guesses": {s: g for s, g in batch.guesses.items() if s in shown},
        "as_of": batch.as_of,
        "repeats": {sha256: guesses.get(sha256) for sha256 in repeats},
        "suspects": [_listed(s) for s in suspects[:_SUSPECTS] if s.likely or s.others],
    }


def _listed(suspect: SuspectLabel) -> dict[str, Any]:
    return {
        "sha256": suspect.sha256,
        "before": suspect.label,
        "by": suspect.who,
        "suggested": suspect.suggested,
        "others": suspect.others,
    }
