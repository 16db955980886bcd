"""A campaign while the page is open: a thread for the log, a process that trains."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..campaign import Campaign, CampaignError
from ..campaign.history import right_guesses
from ..campaign.prefetch import prefetch_batch
from ..worker import Worker, WorkerEndedError
from .controller import Controller

_LISTED = 60
_PAUSE = 10.0
"""Seconds from a request in which the process ended until it is started again."""
_SUSPECTS = 60
_REPEATS = 500
_JUDGED = 20
"""Repeats that the present model judges, in case no other can."""


class Session:
    """Open a campaign for the page.

    `options` are what `Campaign.open` takes beside the folder, `keys` the key of each
    class or mark that has its own, and `repeat` the share of images to show again,
    blind.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any],
        *,
        keys: Mapping[str, str] | None = None,
        repeat: float = 0,
    ) -> None:
        self._keys = dict(keys or {})
        self._thread = ThreadPoolExecutor(1, "log")  # SQLite's connection is its own
        self.campaign: Campaign
        self.controller: Controller
        self.id: str  # the campaign's
        self._thread.submit(self._open, folder, options, repeat).result()
        self._training = TrainingProcess(
            self.campaign.folder,
            {
                "pool": self.campaign.pool,
                "pools": options.get("pools"),
                "who": self.controller.who,
                "wait": options.get("wait", 60),
            },
            lambda message: self._submit(self._receive, message),
            repeat=repeat > 0,
        )
        self._submit(self._request)  # the first images, before the page is open

    def _open(self, folder: Path, options: Mapping[str, Any], repeat: float) -> None:
        self.campaign = Campaign.open(folder, **options)
        # Not of the folder, as another campaign may come into it.
        self.id = self.campaign._event_log.campaign_id
        self.value_range = self.campaign.value_range
        try:
            if not all(pool.is_dir() for pool in self.campaign.pools.values()):
                self.campaign.refresh()  # raises the error that says what to do
            who, n = self.campaign.who, self.campaign.n_instances
            self.controller = Controller(self.campaign.ledger(), who, n, repeat)
        except BaseException:
            self.campaign.close()
            raise

    def close(self) -> None:
        """End the process and close the campaign."""
        self._training.close()
        self._thread.submit(self.campaign.close).result()
        self._thread.shutdown()

    def about(self) -> dict[str, Any]:
        """What does not change; the classes may, and are sent again when they do."""
        folder, controller = self.campaign.folder, self.controller
        return {
            "id": self.id,
            "campaign": folder.name,
            "pool": self.campaign.pool.name,
            "who": controller.who,
            "classes": controller.ledger.classes,
            "former": controller.ledger.class_names.former,
            "keys": self._keys,
            "n_instances": controller.n_instances,
        }

    def path_of(self, sha256: str) -> Path | None:
        """The file of an image; None if there is none. To be called by `run`."""
        ledger = self.controller.ledger
        if not (path := ledger.path(sha256)):  # new, or forgotten after an error
            ledger.update()
            path = ledger.path(sha256)
        return self.campaign.files([path])[0] if path else None

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread of the log."""
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._thread, function, *arguments)
        self._submit(self._request)
        return answer

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # closing
            self._thread.submit(function, *arguments)

    def _receive(self, message: dict[str, Any]) -> None:
        self.controller.receive(message)
        with contextlib.suppress(CampaignError):  # the page's next request tells
            self.controller.ledger.update()
        self._request()

    def _request(self) -> None:
        """Have images chosen if some are wanted."""
        if not self._training.busy:
            n = self.controller.n_wanted()
            if n is not None and self._training.request(n, self.controller.shown()):
                self.controller.note_request()


def make_progress(campaign: Campaign, controller: Controller) -> dict[str, Any]:
    """Count and list what the third view shows.

    `curve` has, for each query, the labels before it, the answers, and how many of them
    the model had guessed right.
    """
    ledger = controller.ledger
    ledger.update()
    confirmed = {
        decision.sha256
        for event in ledger.acts.values()
        if event.kind == "confirm" and event.id > controller.suspects_as_of
        for decision in event.decisions
    }
    labels = ledger.labels()
    suspects = [  # neither changed nor confirmed since
        {
            **suspect,
            "path": ledger.path(sha256),
            "suggested": ledger.present_name(
                suspect["suggested"], controller.suspects_as_of
            ),
        }
        for suspect in controller.suspects
        if (sha256 := suspect["sha256"]) not in confirmed
        and labels.get(sha256) == suspect["before"]
    ]
    cant_tell = [
        {"sha256": d.sha256, "path": path, "before": "?cant-tell", "by": d.who}
        for path, d in campaign.cant_tell()
    ]
    return {
        "pace": [asdict(p) | {"per_hour": p.per_hour} for p in campaign.status().pace],
        "curve": right_guesses(campaign.log(), campaign.decisions()),
        "cant_tell": {"n": len(cant_tell), "items": cant_tell[:_LISTED]},
        "suspects": {"n": len(suspects), "items": suspects[:_LISTED]},
        "agreement": [asdict(pair) for pair in campaign.agreement().pairs],
    }


# --- the process that trains ----------------------------------------------------------


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
    repeats = [p.sha256 for p in campaign.repeats_due(1)[:_REPEATS]] if repeat else []
    also = [*shown, *repeats[:_JUDGED]]
    proposals, known, guessed, as_of = prefetch_batch(campaign, n, also)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with too few labels
        suspects = campaign.second_look()
    # The present model was trained with the labels of repeats: rather one that was not.
    unseen = {s.sha256: (s.suggested, s.confidence) for s in suspects if s.suggested}
    guesses = {**guessed, **unseen}
    return {
        "kind": "batch",
        "proposals": [
            {"sha256": p.sha256, "guess": p.guess, "confidence": p.confidence}
            for p in proposals
        ],
        "known": known,
        "guesses": {s: g for s, g in guessed.items() if s in shown},
        "as_of": as_of,
        "repeats": {sha256: guesses.get(sha256) for sha256 in repeats},
        "suspects": [
            {
                "sha256": s.sha256,
                "before": s.label,
                "by": s.who,
                "suggested": s.suggested,
                "others": s.others,
            }
            for s in suspects[:_SUSPECTS]
            if s.likely or s.others
        ],
    }
