"""An ML backend for Label Studio: a campaign behind the four routes of its protocol."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, Router

from ..campaign.class_names import read_class_names
from ..campaign.label_studio import in_order, prediction, rows_of_task
from ..campaign.labels_csv import LabelRow
from ..requests import WholeBody, read_object, refuse
from ..worker import Worker

_log = logging.getLogger(__name__)
MAX_BODY = 4 << 20
MAX_TASKS = 1000
_TAUGHT = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")


class Backend:
    """Routes that Label Studio calls; the work is done in other processes.

    Parameters
    ----------
    folder : str or Path
        The campaign's.
    hosts : collection of str
        Names of this server in requests, with port, such as ``"127.0.0.1:9090"``.
        Others are refused, as another site's name could be pointed at this machine.
    password : str, optional
        Of the user "skadma", for Basic authentication. Label Studio does not send it to
        webhooks unless the header is added to them there; routes that are mounted below
        a path nobody can guess need none.
    **options
        Of :meth:`~skadma.Campaign.open`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        hosts: Collection[str],
        password: str | None = None,
        **options: Any,
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._login = None
        if password is not None:
            self._login = base64.b64encode(f"skadma:{password}".encode())
        # The first takes labels and makes guesses while the second trains.
        self._worker = Worker(Path(folder), options)
        self._trainer = Worker(Path(folder), options, background=True)
        self._version = "skadma"
        self._trainings: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Mount]:
        """Make the routes, to be mounted anywhere."""
        routes = [
            Route("/", self._guarded(self._health), methods=["GET"]),
            Route("/health", self._guarded(self._health), methods=["GET"]),
            Route("/setup", self._guarded(self._setup), methods=["POST"]),
            Route("/predict", self._guarded(self._predict), methods=["POST"]),
            Route("/webhook", self._guarded(self._webhook), methods=["POST"]),
        ]
        return [Mount("/", WholeBody(Router(routes)))]

    def close(self) -> None:
        """End the processes."""
        self._worker.close()
        self._trainer.close()

    # --- who may ask ----------------------------------------------------------

    def _guarded(self, answer: Any) -> Any:
        async def guarded(request: Request) -> Response:
            status, reason = self._reason_against(request)
            if reason:
                login = {"www-authenticate": "Basic"} if status == 401 else {}
                return refuse(status, reason, **login)
            try:
                body = {}
                if request.method == "POST":
                    body = await read_object(request, max_bytes=MAX_BODY, status=400)
                return await answer(body)
            except HTTPException as error:
                return refuse(error.status_code, error.detail)
            except ValueError as error:
                _log.warning("Label Studio: %s", error)
                return refuse(400, str(error))
            except RuntimeError as error:
                _log.error("Label Studio: %s", error)
                return refuse(500, str(error))

        return guarded

    def _reason_against(self, request: Request) -> tuple[int, str]:
        headers = request.headers
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 400, "Not the name of this server."
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            return 403, "Not from a page in a browser."
        if request.method == "POST":
            kind = headers.get("content-type", "").split(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "JSON only."
        scheme, _, login = headers.get("authorization", "").partition(" ")
        if self._login is not None and not (
            scheme.lower() == "basic"
            and hmac.compare_digest(login.strip().encode(), self._login)
        ):
            return 401, "Give the user 'skadma' and the password in Label Studio."
        return 200, ""

    # --- the routes -----------------------------------------------------------

    async def _health(self, _: Any) -> Response:
        return JSONResponse({"status": "UP", "model_class": "skadma"})

    async def _setup(self, _: Any) -> Response:
        # Label Studio waits 3 seconds for this: too short to ask the process.
        return JSONResponse({"model_version": self._version})

    async def _predict(self, body: dict[str, Any]) -> Response:
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or len(tasks) > MAX_TASKS:
            raise HTTPException(400, f"'tasks' must be a list of up to {MAX_TASKS}.")
        call = asyncio.to_thread(self._worker.call, guesses, [*map(_digest, tasks)])
        self._version, found = await call
        empty = {"model_version": self._version, "score": 0.0, "result": []}
        results = [prediction(g[0], g[1], self._version) if g else empty for g in found]
        return JSONResponse({"results": results})

    async def _webhook(self, body: dict[str, Any]) -> Response:
        action = body.get("action")
        if action == "START_TRAINING":
            if len(self._trainings) < 2:  # one with what came meanwhile has to wait
                task = asyncio.create_task(self._train())
                self._trainings.add(task)
                task.add_done_callback(self._trainings.discard)
        elif action in _TAUGHT:
            rows = _rows_of_webhook(body)
            await asyncio.to_thread(self._worker.call, teach, rows)
        else:
            return JSONResponse({"status": "ok"})  # nothing to act upon
        return JSONResponse({"status": "ok"}, 201)

    async def _train(self) -> None:
        try:
            await asyncio.to_thread(self._trainer.call, train)
        except (ValueError, RuntimeError) as error:
            _log.error("Training: %s", error)


def _digest(task: Any) -> str:
    """Digest of a task's image, or ""; addresses in a task are never fetched."""
    data = task.get("data") if isinstance(task, dict) else None
    data = data if isinstance(data, dict) else {}
    path, sha256 = data.get("path"), data.get("sha256")
    if not isinstance(path, str) or not path or not isinstance(sha256, str):
        return ""
    return sha256.lower()


def _rows_of_webhook(body: dict[str, Any]) -> list[LabelRow]:
    tasks, annotations = body.get("task"), body.get("annotation")
    if not isinstance(tasks, list):
        tasks = [tasks]
    if not isinstance(annotations, list):
        annotations = [annotations]
    tasks = [task if isinstance(task, dict) else {} for task in tasks]
    by_id = {t["id"]: t for t in tasks if isinstance(t.get("id"), (int, str))}
    found: list[tuple[str, LabelRow]] = []
    for annotation in annotations:
        number = annotation.get("task") if isinstance(annotation, dict) else None
        named = by_id.get(number) if isinstance(number, (int, str)) else None
        task = named or (tasks[0] if len(tasks) == 1 else {})
        where = f"task {task.get('id', number)}"
        found += rows_of_task(task.get("data"), [annotation], where)
    return in_order(found)


# --- what the processes do ------------------------------------------------------------


def teach(campaign: Any, rows: Sequence[LabelRow]) -> Any:
    """Record labels."""
    read_class_names(campaign._event_log).refuse_several("Label Studio")
    return campaign.teach(rows, train=False)


def train(campaign: Any) -> None:
    """Train a model with all labels."""
    campaign.estimator()


def guesses(
    campaign: Any, digests: Sequence[str]
) -> tuple[str, list[tuple[str, float] | None]]:
    """Predict images by the last model; None for unknown ones and those of an audit.

    Who sees a guess agrees too often, so an audit's images have none.
    """
    read_class_names(campaign._event_log).refuse_several("Label Studio")
    n_labels, found = campaign.guesses([sha256 for sha256 in digests if sha256])
    return f"skadma-{n_labels}-labels", [found.get(sha256) for sha256 in digests]
