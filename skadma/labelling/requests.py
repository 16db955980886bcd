"""What both servers do with requests: read JSON within limits, and refuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MAX_UNREAD = 64 << 20
"""Bytes of a refused body that are read, and thrown away, before the answer."""
_MAX_WAIT = 2.0
"""Seconds that they may take."""


class WholeBody:
    """An ASGI application that answers a request once all of its body has arrived.

    A server that closes a connection with unread bytes resets it, and then the client
    may lose the answer that says why. Where the body is too long or too late for
    `_MAX_UNREAD` and `_MAX_WAIT`, the answer comes before its end, and ends the
    connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        whole = False

        async def receive_noted() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def read_rest() -> None:
            n_bytes = 0
            while not whole and n_bytes <= _MAX_UNREAD:
                n_bytes += len((await receive_noted()).get("body", b""))

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(read_rest(), _MAX_WAIT)
                if not whole:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive_noted, send_after_body)


async def read_object(
    request: Request, *, max_bytes: int, status: int
) -> dict[str, Any]:
    """Read the JSON object in a request's body; `status` refuses what is none."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > max_bytes:
                raise HTTPException(413, f"More than {max_bytes} bytes.")
        body = json.loads(data)
    except (ValueError, RecursionError, ClientDisconnect) as error:
        raise HTTPException(status, f"No JSON ({error}).") from error
    if not isinstance(body, dict):
        raise HTTPException(status, "The body must be a JSON object.")
    return body


def refuse(status: int, reason: str, **headers: str) -> JSONResponse:
    """Make the answer to a request that is refused."""
    return JSONResponse({"error": reason}, status, headers)
