"""A campaign while the page is open: a thread for the log, a process that trains."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..campaign import Campaign, CampaignError
from ..campaign.history import right_guesses
from ..campaign.ledger import Operation
from .controller import Controller
from .pictures import Pictures
from .training_process import TrainingProcess

_LISTED = 60


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
        self.pictures = Pictures()
        self._keys = dict(keys or {})
        self._thread = ThreadPoolExecutor(1, "log")  # SQLite's connection is its own
        self._campaign: Campaign
        self._controller: Controller
        try:
            self._thread.submit(self._open, folder, options, repeat).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._training = TrainingProcess(
            self._campaign.folder,
            {
                "pool": self._campaign.pool,
                "pools": options.get("pools"),
                "who": self._controller.who,
                "wait": options.get("wait", 60),
            },
            lambda message: self._submit(self._receive, message),
            repeat=repeat > 0,
        )
        self._submit(self._request)  # the first images, before the page is open

    def _open(self, folder: Path, options: Mapping[str, Any], repeat: float) -> None:
        self._campaign = Campaign.open(folder, **options)
        try:
            if not all(pool.is_dir() for pool in self._campaign.pools.values()):
                self._campaign.refresh()  # raises the error that says what to do
            self._controller = Controller(
                self._campaign.ledger(),
                self._campaign.who,
                self._campaign.n_instances,
                repeat,
            )
        except BaseException:
            self._campaign.close()
            raise

    def close(self) -> None:
        """End the process and close the campaign."""
        self._training.close()
        self._thread.submit(self._campaign.close).result()
        self._thread.shutdown()

    # --- what the page asks --------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What does not change; the classes may, and are sent again when they do."""
        folder, controller = self._campaign.folder, self._controller
        return {
            "id": hashlib.sha256(str(folder).encode()).hexdigest()[:12],
            "campaign": folder.name,
            "pool": self._campaign.pool.name,
            "who": controller.who,
            "classes": controller.ledger.classes,
            "former": controller.ledger.class_names.former,
            "keys": self._keys,
            "n_instances": controller.n_instances,
        }

    async def sync(
        self, tab: str, have: Sequence[str], want: int, *, meanwhile: bool
    ) -> dict[str, Any]:
        """Tell a tab where things stand, and give it images."""
        return await self._run(
            lambda: self._controller.sync(tab, have, want, meanwhile=meanwhile)
        )

    async def record(self, operations: Sequence[Operation]) -> dict[str, Any]:
        """Record operations; they are on the disk when this returns."""
        return await self._run(lambda: self._controller.record(operations))

    async def progress(self) -> dict[str, Any]:
        """Numbers and lists of the page's third view."""
        return await self._run(lambda: make_progress(self._campaign, self._controller))

    async def path_of(self, sha256: str) -> Path | None:
        """The file of an image; None if there is none."""

        def find() -> Path | None:
            path = self._controller.ledger.path(sha256)
            return self._campaign.files([path])[0] if path else None

        return await self._run(find)

    # --- within --------------------------------------------------------------

    async def _run(self, function: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._thread, function)
        self._submit(self._request)
        return answer

    def _submit(self, function: Callable, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # closing
            self._thread.submit(function, *arguments)

    def _receive(self, message: dict[str, Any]) -> None:
        self._controller.receive(message)
        with contextlib.suppress(CampaignError):  # the page's next request tells
            self._controller.ledger.update()
        self._request()

    def _request(self) -> None:
        """Have images chosen if some are wanted."""
        if not self._training.busy:
            n = self._controller.n_wanted()
            if n is not None and self._training.request(n, self._controller.shown()):
                self._controller.note_request()


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
            "suggested": ledger.present_name(suspect["suggested"]),
        }
        for suspect in controller.suspects
        if (sha256 := suspect["sha256"]) not in confirmed
        and labels.get(sha256) == suspect["before"]
    ]
    cant_tell = [
        {"sha256": c.sha256, "path": c.path, "before": "?cant-tell", "by": c.who}
        for c in campaign.cant_tell()
    ]
    return {
        "pace": [
            {"who": p.who, "n": p.n_labels, "hours": p.hours, "per_hour": p.per_hour}
            for p in campaign.status().pace
        ],
        "curve": [
            {"labels": n, "answered": m, "right": r}
            for n, m, r in right_guesses(campaign.log(), campaign.decisions())
        ],
        "cant_tell": {"n": len(cant_tell), "items": cant_tell[:_LISTED]},
        "suspects": {"n": len(suspects), "items": suspects[:_LISTED]},
        "agreement": [asdict(pair) for pair in campaign.agreement().pairs],
    }
