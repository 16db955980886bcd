"""A campaign while the page is open: a thread for the log, a process that trains."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import evaluation
from ...features.cache import DiskCache
from ..campaign import Campaign, CampaignError
from ..campaign.history import right_guesses
from ..campaign.prefetch import choose_batch
from ..campaign.state import read_state
from ..campaign.stored_settings import learns_at_once
from ..sort import plan_sort, run_sort, unfinished
from ..worker import Worker, WorkerEndedError
from .controller import Controller
from .gallery import Gallery

_logger = logging.getLogger(__name__)
JOBS = ("draw", "release", "measure", "forecast", "plan", "sort")
_GUESSED = ("suggested", "consensus")
_LISTED = 60
_PAUSE = 10.0
"""Seconds from a request in which the process ended until it is started again."""


class Session:
    """Open a campaign for the page.

    `options` are what `Campaign.open` takes beside the folder.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self._thread = ThreadPoolExecutor(1, "log")  # SQLite's connection is its own
        self.campaign: Campaign
        self.controller: Controller
        self.id: str  # of the campaign and the person
        self._thread.submit(self._open, folder, options).result()
        self._worker = Worker(self.campaign.folder, options, background=True)
        self.gallery = Gallery(self.controller.ledger, self._worker.call)
        self.thumbnails = DiskCache(self.campaign.folder / "cache/thumbnails", 1 << 30)
        self._busy = False  # one request at a time
        self._not_before = 0.0
        # What the process was asked to do, by name: "state" is running, done or failed.
        self.jobs: dict[str, dict[str, Any]] = {}
        self._closed = False
        self._submit(self._request)  # the first images, before the page is open

    def _open(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.campaign = Campaign.open(folder, **options)
        # Not of the folder: what a browser keeps goes to no other campaign or person.
        who = hashlib.sha256(self.campaign.who.encode(errors="replace")).hexdigest()
        self.id = f"{self.campaign._event_log.campaign_id}-{who[:16]}"
        self.value_range = self.campaign.value_range
        try:
            if not all(pool.is_dir() for pool in self.campaign.pools.values()):
                self.campaign.refresh()  # raises the error that says what to do
            who, n = self.campaign.who, self.campaign.n_instances
            ledger = self.campaign.ledger()
            ledger.update()
            settings = self.campaign._event_log.settings()
            at_once = learns_at_once(settings, len(ledger.usable()))
            self.controller = Controller(ledger, who, n, at_once=at_once)
        except BaseException:
            self.campaign.close()
            raise

    def close(self) -> None:
        """Close the campaign; what is being computed is computed again next time."""
        self._closed = True
        self.gallery.calls.shutdown(wait=False, cancel_futures=True)
        self._worker.close()
        self._thread.submit(self.campaign.close).result()
        self._thread.shutdown()

    def about(self) -> dict[str, Any]:
        """What does not change; the classes may, and are sent again when they do."""
        folder, controller = self.campaign.folder, self.controller
        return {
            "id": self.id,
            "campaign": folder.name,
            "folder": str(folder),
            "who": controller.who,
            "several": self.campaign.several_labels,
            "classes": controller.ledger.classes,
            "former": controller.ledger.class_names.former,
        }

    def path_of(self, sha256: str) -> Path | None:
        """The file of an image; None if there is none. To be called by `run`."""
        ledger = self.controller.ledger
        if not (path := ledger.path(sha256)):  # new, or forgotten after an error
            ledger.update()
            path = ledger.path(sha256)
        return self.campaign.files([path])[0] if path else None

    def change_classes(
        self, change: str, names: list[str], into: str | None, as_of: int
    ) -> dict[str, Any]:
        """Change the classes; names of present ones are those as of an event."""
        event = self.campaign._change_classes(change, names, into, as_of)
        self.controller.ledger.update()
        return {**self.controller.state(), "event": event}

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread of the log."""
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._thread, function, *arguments)
        self._submit(self._request)
        return answer

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # closing
            self._thread.submit(function, *arguments)

    def start_job(self, name: str, *arguments: Any) -> None:
        """Have the process do a job, unless it does it; `jobs` tells how it is."""
        if self.jobs.get(name) != {"state": "running"}:
            self.jobs[name] = {"state": "running"}
            what = name, *arguments
            threading.Thread(target=self._do_job, args=what, daemon=True).start()

    def _do_job(self, name: str, *given: Any) -> None:
        try:
            job = {"state": "done", "result": self._worker.call(do_job, name, *given)}
        except (ValueError, RuntimeError) as error:
            job = {"state": "failed", "problem": str(error)}
        # JSON in UTF-8 has no NaN, and no halves of characters.
        text = json.dumps(job, ensure_ascii=False).encode("utf-8", "replace")
        self.jobs[name] = json.loads(text, parse_constant=lambda _: None)

    # --- the process that trains ----------------------------------------------------

    def _request(self) -> None:
        """Have images chosen if some are wanted."""
        if self._busy or self._closed or time.monotonic() < self._not_before:
            return
        n = self.controller.n_wanted()
        if n is not None:
            self._busy = True
            self.controller.note_request()
            arguments = n, self.controller.shown()
            threading.Thread(target=self._choose, args=arguments, daemon=True).start()

    def _choose(self, n: int, shown: list[str]) -> None:
        began = time.monotonic()
        try:
            message = self._worker.call(choose_batch, n, shown)
        except WorkerEndedError as error:
            self._not_before = began + _PAUSE
            message = {
                "kind": "problem",
                "message": "The process that trains has ended (exit status "
                f"{error.exitcode}). It is started again; all labels are safe.",
            }
        except (ValueError, RuntimeError) as error:
            message = {"kind": "problem", "message": str(error)}
        if message["kind"] == "problem" and not self._closed:
            _logger.warning("training: %s", message["message"])  # on the terminal too
        self._submit(self._receive, message)

    def _receive(self, message: dict[str, Any]) -> None:
        self._busy = False
        self.controller.receive(message)
        self.gallery.model = self.controller.suspects_as_of
        with contextlib.suppress(CampaignError):  # the page's next request tells
            self.controller.ledger.update()
        self._request()


def make_progress(campaign: Campaign, controller: Controller) -> dict[str, Any]:
    """Count and list what the third view shows.

    `curve` has, for each query, the labels before it, the answers, and how many of them
    the model had guessed right.
    """
    ledger, as_of = controller.ledger, controller.suspects_as_of
    ledger.update()
    confirmed = {
        decision.sha256
        for event in ledger.acts.values()
        if event.kind == "confirm" and event.id > as_of
        for decision in event.decisions
    }
    labels = ledger.labels()
    suspects = [  # neither changed nor confirmed since
        {
            **suspect,
            "path": ledger.path(sha256),
            **{k: ledger.present_name(suspect[k], as_of) for k in _GUESSED},
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
        "people": controller.people,
    }


def list_labels(campaign: Campaign) -> list[dict[str, Any]]:
    """List all decisions, for a label file."""
    n = campaign.last_event
    return [
        {"path": path, "mark": d.mark, "sha256": d.sha256, "as_of": n}
        for path, d, _ in sorted(campaign.decisions(), key=lambda row: row[0])
    ]


def do_job(campaign: Campaign, name: str, *arguments: Any) -> Any:
    """Do in the process what the page asks for; of a sort nothing is moved."""
    if name == "draw":
        return len(campaign.audits.draw(*arguments))
    if name == "release":
        return campaign.audits.release().n_new
    if name == "measure":
        found = campaign.audits.estimate()
        lists = {k: getattr(found, k).tolist() for k in ("classes", "confusion")}
        return {**vars(found), **lists}
    if name == "forecast":
        campaign.refresh_if_there()
        state = read_state(campaign._event_log)
        state.class_names.refuse_several("The forecast")
        learnt, images = campaign._trainer.learnt(state), state.candidates()
        if learnt is None or learnt.proba is None or not images:
            raise ValueError("There is nothing to forecast: test the model instead.")
        proba = learnt.proba[learnt.table.numbers(state.sha256s(images))]
        ahead = evaluation.forecast_accuracy(proba, len(learnt.labels))
        return [each._asdict() for each in ahead]
    typed, how, unsure = arguments
    into = Path(typed).expanduser()
    if not into.is_absolute():
        raise ValueError("Give the folder in full, such as /home/me/sorted.")
    if name not in ("plan", "sort") or how not in ("copy", "link"):
        raise ValueError(f"The page does not {name} ({how}).")
    plan = unfinished(into, campaign.pools.values())
    plan = plan or plan_sort(campaign, into, how=how, unsure=unsure)
    if plan.how == "move":
        raise ValueError("A move was interrupted there: 'skadma sort' goes on with it.")
    return {"said": str(plan)} if name == "plan" else {"left_out": run_sort(plan)}
