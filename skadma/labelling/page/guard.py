"""Which requests are answered, and what the answers allow the browser to do."""

from __future__ import annotations

import hmac
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..requests import refuse

OPEN_PATHS = ("/", "/api/session")
"""Paths that need no cookie, beside ``/static/``: they disclose nothing."""

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Guard:
    """An ASGI application that refuses what does not come from our own page.

    Host and port must be ours (else another site's name could be pointed at this
    machine); what changes anything must come from our origin, as JSON, with a header
    that no form can send; and all but the empty page needs the cookie that is given in
    exchange for the token in the printed address.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._token = token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        # The port is in the name, as browsers send cookies to all ports of a host.
        self._cookie = f"skadma-{port}"
        self._key = secrets.token_urlsafe(32)

    def session_cookie(self, token: str) -> str | None:
        """The cookie for a token; None if it is not ours."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        return f"{self._cookie}={self._key}; Path=/; HttpOnly; SameSite=Strict"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        status, reason = self._reason_against(scope)
        app = refuse(status, reason) if reason else self._app
        await app(scope, receive, send_guarded)

    def _reason_against(self, scope: Scope) -> tuple[int, str]:
        headers = Headers(scope=scope)

        def only(name: str) -> str:
            values = headers.getlist(name)
            return values[0] if len(values) == 1 else ""

        if only("host").lower() not in self._hosts:
            return 400, "Not the name of this server."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET and POST."
        path = scope["path"]
        public = path in OPEN_PATHS or path.startswith("/static/")
        site = only("sec-fetch-site") or "none"
        if site not in ("same-origin", "none") and path != "/":
            return 403, "Not from another site."
        if scope["method"] == "POST":
            kind = only("content-type").split(";")[0].strip().lower()
            if only("origin") != f"http://{only('host')}":
                return 403, "Not from another site."
            if kind != "application/json" or only("x-skadma") != "1":
                return 415, "JSON from the page only."
        if not public and not self._has_cookie(headers.getlist("cookie")):
            return 401, "Open the address that 'skadma label' printed."
        return 200, ""

    def _has_cookie(self, values: list[str]) -> bool:
        # By hand: other servers on this host may have set cookies that are none.
        found = [part.strip().partition("=") for v in values for part in v.split(";")]
        return any(
            name == self._cookie
            and hmac.compare_digest(value.encode(), self._key.encode())
            for name, _, value in found
        )
