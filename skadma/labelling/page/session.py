"""A campaign while the page is open: a thread for the log, a child for the work."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..campaign import Campaign, CampaignError
from ..campaign.ledger import Operation
from .controller import Controller
from .pictures import Pictures
from .progress import make_progress
from .training_process import TrainingProcess


class Session:
    """Open a campaign for the page.

    Parameters
    ----------
    folder : Path
    options : mapping
        What :meth:`~skadma.Campaign.open` takes beside the folder.
    keys : mapping of str to str, optional
        Key of each class or mark; what has none gets 1 to 9.
    repeat : float, default=0
        Share of pictures to show again, blind.

    Attributes
    ----------
    pictures : Pictures
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
        self._repeat = repeat
        self._thread = ThreadPoolExecutor(1, "log")  # SQLite's connection is its own
        self._campaign: Campaign
        self._desk: Controller
        try:
            self._thread.submit(self._open, folder, options).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._foreman = TrainingProcess(
            (
                self._campaign.folder,
                self._campaign.pool,
                self._desk.who,
                options.get("wait", 60),
                repeat > 0,
                options.get("pools"),
            ),
            lambda message: self._submit(self._hear, message),
        )
        self._submit(self._drive)  # the first pictures, before the page is open

    def _open(self, folder: Path, options: Mapping[str, Any]) -> None:
        self._campaign = Campaign.open(folder, **options)
        try:
            if not all(pool.is_dir() for pool in self._campaign.pools.values()):
                self._campaign.refresh()  # says what to do
            self._desk = Controller(
                self._campaign.ledger(),
                self._campaign.who,
                self._campaign.n_instances,
                self._repeat,
            )
        except BaseException:
            self._campaign.close()
            raise

    def close(self) -> None:
        """End the child and close the campaign."""
        self._foreman.close()
        self._thread.submit(self._campaign.close).result()
        self._thread.shutdown()

    # --- what the page asks --------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What does not change, but for the classes, which are told again."""
        folder = self._campaign.folder
        ledger = self._desk.ledger
        return {
            "id": hashlib.sha256(str(folder).encode()).hexdigest()[:12],
            "campaign": folder.name,
            "pool": self._campaign.pool.name,
            "who": self._desk.who,
            "classes": ledger.classes,
            "former": ledger.class_names.former,
            "keys": self._keys,
            "n_instances": self._desk.n_instances,
        }

    async def sync(
        self, tab: str, have: Sequence[str], want: int, *, meanwhile: bool
    ) -> dict[str, Any]:
        """Where things stand, and pictures; see :meth:`Controller.sync`."""
        return await self._run(
            lambda: self._desk.sync(tab, have, want, meanwhile=meanwhile)
        )

    async def record(self, operations: Sequence[Operation]) -> dict[str, Any]:
        """Write operations down; see :meth:`Controller.record`."""
        return await self._run(lambda: self._desk.record(operations))

    async def progress(self) -> dict[str, Any]:
        """Numbers to look at."""
        return await self._run(lambda: make_progress(self._campaign, self._desk))

    async def path_of(self, sha256: str) -> Path | None:
        """The file of a picture; None if there is none."""

        def find() -> Path | None:
            path = self._desk.ledger.path(sha256)
            return self._campaign.files([path])[0] if path else None

        return await self._run(find)

    # --- within --------------------------------------------------------------

    async def _run(self, function: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._thread, function)
        self._submit(self._drive)
        return answer

    def _submit(self, function: Callable, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # closing
            self._thread.submit(function, *arguments)

    def _hear(self, message: dict[str, Any]) -> None:
        self._desk.hear(message)
        with contextlib.suppress(CampaignError):  # the page's next question tells
            self._desk.ledger.read()
        self._drive()

    def _drive(self) -> None:
        """Give the child work where there is some."""
        if not self._foreman.busy:
            n = self._desk.wanted()
            if n is not None and self._foreman.ask(n, self._desk.handed()):
                self._desk.asked()
