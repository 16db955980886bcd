"""The routes of the page."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ...images.decoding import UnreadableImageError
from ..campaign import CampaignBusyError, CampaignError
from ..campaign.ledger import Mark, Operation
from ..requests import WholeBody, read_object, refuse
from .gallery import KINDS
from .guard import CLOSED, Guard
from .pictures import SIZES, encode, encode_small
from .session import JOBS, Session, list_labels, make_progress

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_TARGET = re.compile(r"[0-9A-Za-z-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_ITEMS = 500
_MAX_BODY = 1 << 20


def make_app(session: Session, port: int) -> tuple[ASGIApp, Guard]:
    """Make the ASGI application that is reached at a port, and what lets people in."""
    static = _static_files()
    decoders = ThreadPoolExecutor(2, "decode")

    read = partial(read_object, max_bytes=_MAX_BODY, status=422)

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        return static.get(name) or refuse(404, "No such file.")

    async def enter(request: Request) -> Response:
        if not guard.takes(_text(await read(request), "token", 200)):
            return refuse(401, CLOSED)
        secrets = {"token": guard.token, "receipt": guard.receipt}
        return JSONResponse(secrets, headers={"set-cookie": guard.cookie})

    async def about(_: Request) -> Response:
        return JSONResponse(session.about())

    async def sync(request: Request) -> Response:
        body = await read(request)
        given = _contents(body, "have"), _number(body, "want", 200)
        update, tab = session.controller.sync, _text(body, "tab", 64)
        return JSONResponse(await session.run(update, tab, *given))

    async def operations(request: Request) -> Response:
        asked = _list(await read(request), "operations")
        wanted = [_operation(each) for each in asked]
        return JSONResponse(await session.run(session.controller.record, wanted))

    async def classes(request: Request) -> Response:
        body = await read(request)
        names, as_of = _list(body, "names"), body.get("as_of")
        change, into = _text(body, "change", 10), body.get("into")
        _check(all(isinstance(n, str) and len(n) <= 2000 for n in names), "names")
        _check(into is None or (isinstance(into, str) and len(into) <= 2000), "into")
        _check(type(as_of) is int and 0 <= as_of < 2**53, "as_of")
        try:
            changed = session.change_classes, change, names, into, as_of
            return JSONResponse(await session.run(*changed))
        except CampaignError as error:
            return refuse(422, str(error))

    async def progress(_: Request) -> Response:
        numbers = await session.run(make_progress, session.campaign, session.controller)
        return JSONResponse(numbers)

    async def gallery(request: Request) -> Response:
        body = await read(request)
        part = _number(body, "start"), _number(body, "n", 2000)
        rows = session.gallery.rows, *part, _contents(body, "contents")
        return JSONResponse(await session.run(*rows))

    async def overview(request: Request) -> Response:
        body = await read(request)
        kind, have = _text(body, "kind", 20), _number(body, "have")
        (sha256,) = _contents(body, "contents") or [""]
        _check(kind in KINDS and bool(sha256) == (kind == "similar"), "kind")
        found = session.run(session.gallery.overview, kind, sha256, have)
        return JSONResponse(await found)

    async def test(_: Request) -> Response:
        numbers = await session.run(session.controller.test)
        return JSONResponse({**numbers, "jobs": session.jobs})

    async def labels(_: Request) -> Response:
        return JSONResponse(await session.run(list_labels, session.campaign))

    async def job(request: Request) -> Response:
        session.start_job(*_job(await read(request)))
        return JSONResponse({"jobs": session.jobs})

    async def image(request: Request) -> Response:
        sha256, size = request.path_params["sha256"], request.query_params.get("size")
        if not _SHA256.fullmatch(sha256) or size not in SIZES:
            return refuse(404, "No such picture.")
        path = await session.run(session.path_of, sha256)
        if path is None:
            return refuse(404, "No such picture.")
        make = partial(encode, size=size, value_range=session.value_range)
        if size == "small":
            make = partial(encode_small, session.thumbnails, session.value_range)
        loop = asyncio.get_running_loop()
        data, kind = await loop.run_in_executor(decoders, make, sha256, path)
        return Response(data, media_type=kind)

    app = Starlette(
        routes=[
            Route("/", file),
            Route("/static/{name}", file),
            Route("/img/{sha256}", image),
            Route("/api/session", enter, methods=["POST"]),
            Route("/api/about", about),
            Route("/api/sync", sync, methods=["POST"]),
            Route("/api/operations", operations, methods=["POST"]),
            Route("/api/classes", classes, methods=["POST"]),
            Route("/api/progress", progress),
            Route("/api/gallery", gallery, methods=["POST"]),
            Route("/api/overview", overview, methods=["POST"]),
            Route("/api/test", test),
            Route("/api/labels", labels),
            Route("/api/job", job, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((HTTPException, ValueError), _answer_to_error),
    )
    guard = Guard(app, port, session.id)
    return WholeBody(guard), guard


async def _answer_to_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return refuse(error.status_code, error.detail)
    if isinstance(error, UnreadableImageError):
        return refuse(410, error.reason)
    if isinstance(error, CampaignError):
        return refuse(503 if isinstance(error, CampaignBusyError) else 500, str(error))
    return refuse(422, "The request cannot be read.")  # JSON can hold what UTF-8 cannot


def _static_files() -> dict[str, Response]:
    """The page's own files by name: nothing else is served from the disk."""
    headers = {"cache-control": "no-cache"}
    return {
        file.name: Response(file.read_bytes(), 200, headers, _TYPES[file.suffix])
        for file in (Path(__file__).parent / "static").iterdir()
        if file.suffix in _TYPES
    }


def _check(good: bool, name: str) -> None:
    if not good:
        raise HTTPException(422, f"{name!r} is missing, or not what it must be.")


def _text(body: Any, name: str, limit: int) -> str:
    value = body.get(name) if isinstance(body, dict) else None
    _check(isinstance(value, str) and 0 < len(value) <= limit, name)
    return str(value)


def _list(body: Any, name: str) -> list[Any]:
    value: Any = body.get(name) if isinstance(body, dict) else None
    _check(isinstance(value, list) and len(value) <= _MAX_ITEMS, name)
    return list(value)


def _contents(body: Any, name: str) -> list[str]:
    value = _list(body, name)
    _check(all(isinstance(s, str) and _SHA256.fullmatch(s) for s in value), name)
    return value


def _number(body: Any, name: str, most: int = 2**53) -> int:
    value: Any = body.get(name) if isinstance(body, dict) else None
    _check(type(value) is int and 0 <= value <= most, name)
    return int(value)


def _operation(body: Any) -> Operation:
    name = _text(body, "id", 64)
    _check(bool(_ID.fullmatch(name)), "id")
    if "undo" in body:
        target = _text(body, "undo", 64)
        _check(bool(_TARGET.fullmatch(target)), "undo")
        return Operation(name, undo=target)
    via = body.get("via")
    _check(via in ("keys", "grid", "list", "gallery"), "via")
    marks = [_mark(each) for each in _list(body, "marks")]
    confirm, audit = body.get("confirm") is True, body.get("audit") is True
    return Operation(name, marks, confirm=confirm, via=via, audit=audit)


def _job(body: Any) -> tuple[Any, ...]:
    name, arguments = _text(body, "name", 64), _list(body, "arguments")
    _check(name in JOBS, "name")
    _check(all(type(each) in (str, int, float) for each in arguments), "arguments")
    return name, *arguments


def _mark(body: Any) -> Mark:
    sha256 = _text(body, "sha256", 64)
    _check(bool(_SHA256.fullmatch(sha256)), "sha256")
    before = None if body.get("before") is None else _text(body, "before", 10_000)
    as_of = None if body.get("as_of") is None else _number(body, "as_of")
    return Mark(sha256, _text(body, "mark", 10_000), before, as_of)
