"""What both servers do with requests: read JSON within limits, and refuse."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse


class RefusedError(Exception):
    """A request that is not answered, and the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read_object(
    request: Request, *, max_bytes: int, status: int
) -> dict[str, Any]:
    """Read the JSON object in a request's body; `status` refuses what is none."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > max_bytes:
                raise RefusedError(413, f"More than {max_bytes} bytes.")
        body = json.loads(data)
    except (ValueError, RecursionError, ClientDisconnect) as error:
        raise RefusedError(status, f"No JSON ({error}).") from error
    if not isinstance(body, dict):
        raise RefusedError(status, "The body must be a JSON object.")
    return body


def refuse(status: int, reason: str, **headers: str) -> JSONResponse:
    """Make the answer to a request that is refused."""
    return JSONResponse({"error": reason}, status, headers)
