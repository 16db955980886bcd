"""The routes of the page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...images.forms import UnreadableImageError
from ..campaign import CampaignBusyError, CampaignError
from ..campaign.ledger import Mark, Operation
from .guard import Guard
from .pictures import SIZES
from .session import Session

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


def make_app(session: Session, port: int, token: str) -> Guard:
    """Make the ASGI application that is reached at a port, and opened by a token."""
    static = _static_files()
    decoders = ThreadPoolExecutor(2, "decode")

    async def index(_: Request) -> Response:
        return static["index.html"]

    async def file(request: Request) -> Response:
        return static.get(request.path_params["name"]) or _error(404, "No such file.")

    async def enter(request: Request) -> Response:
        body = await request.json()
        cookie = guard.session_cookie(_text(body, "token", 200))
        if cookie is None:
            return _error(401, "Open the address that 'skadma label' printed.")
        return JSONResponse({}, headers={"set-cookie": cookie})

    async def about(_: Request) -> Response:
        return JSONResponse(session.about())

    async def sync(request: Request) -> Response:
        body = await request.json()
        have = _list(body, "have")
        if not all(isinstance(sha, str) and _SHA256.fullmatch(sha) for sha in have):
            raise _BadRequestError("'have' is no list of pictures.")
        want = body.get("want")
        if type(want) is not int or not 0 <= want <= 200:
            raise _BadRequestError("'want' must be an integer from 0 to 200.")
        meanwhile = body.get("meanwhile") is True
        tab = _text(body, "tab", 64)
        return JSONResponse(await session.sync(tab, have, want, meanwhile=meanwhile))

    async def operations(request: Request) -> Response:
        asked = _list(await request.json(), "operations")
        return JSONResponse(await session.record([_operation(each) for each in asked]))

    async def progress(_: Request) -> Response:
        return JSONResponse(await session.progress())

    async def image(request: Request) -> Response:
        sha256, size = request.path_params["sha256"], request.query_params.get("size")
        if not _SHA256.fullmatch(sha256) or size not in SIZES:
            return _error(404, "No such picture.")
        path = await session.path_of(sha256)
        if path is None:
            return _error(404, "No such picture.")
        loop = asyncio.get_running_loop()
        try:
            data, kind = await loop.run_in_executor(
                decoders, session.pictures.get, sha256, path, size
            )
        except UnreadableImageError as error:
            return _error(410, error.reason)
        keep = {"cache-control": "private, max-age=86400, immutable"}
        return Response(data, media_type=kind, headers=keep)

    def answer(function: Callable) -> Callable:
        async def careful(request: Request) -> Response:
            try:
                return await function(request)
            except _BadRequestError as error:
                return _error(422, str(error))
            except CampaignBusyError as error:
                return _error(503, str(error))
            except CampaignError as error:
                return _error(500, str(error))
            except (ValueError, RecursionError):  # no JSON, or no UTF-8
                return _error(422, "The request is no JSON.")

        return careful

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/static/{name}", file),
            Route("/img/{sha256}", answer(image)),
            Route("/api/session", answer(enter), methods=["POST"]),
            Route("/api/about", answer(about)),
            Route("/api/sync", answer(sync), methods=["POST"]),
            Route("/api/operations", answer(operations), methods=["POST"]),
            Route("/api/progress", answer(progress)),
        ]
    )
    guard = Guard(app, port, token)
    return guard


class _BadRequestError(ValueError):
    """The request is none of the page's."""


def _static_files() -> dict[str, Response]:
    """The page's own files by name: nothing else is served from the disk."""
    folder = resources.files(__package__) / "static"
    return {
        item.name: Response(
            item.read_bytes(),
            media_type=_TYPES["." + item.name.rpartition(".")[2]],
            headers={"cache-control": "no-cache"},
        )
        for item in folder.iterdir()
        if "." + item.name.rpartition(".")[2] in _TYPES
    }


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _text(body: Any, name: str, limit: int) -> str:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value or len(value) > limit:
        raise _BadRequestError(f"{name!r} must be a text of 1 to {limit} characters.")
    return value


def _list(body: Any, name: str) -> list[Any]:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise _BadRequestError(f"{name!r} must be a list of up to {_MAX_ITEMS} items.")
    return value


def _operation(body: Any) -> Operation:
    name = _text(body, "id", 64)
    if not _ID.fullmatch(name):
        raise _BadRequestError("'id' must have 8 to 64 letters, digits or hyphens.")
    if "undo" in body:
        target = _text(body, "undo", 64)
        if not _TARGET.fullmatch(target):
            raise _BadRequestError("'undo' is no operation's name.")
        return Operation(name, undo=target)
    via = body.get("via")
    if via not in ("keys", "grid", "list"):
        raise _BadRequestError("'via' must be 'keys', 'grid' or 'list'.")
    marks = [_mark(each) for each in _list(body, "marks")]
    return Operation(name, marks, confirm=body.get("confirm") is True, via=via)


def _mark(body: Any) -> Mark:
    sha256 = _text(body, "sha256", 64)
    if not _SHA256.fullmatch(sha256):
        raise _BadRequestError("'sha256' must have 64 hex digits.")
    before = None if body.get("before") is None else _text(body, "before", 10_000)
    return Mark(sha256, _text(body, "mark", 10_000), before)
