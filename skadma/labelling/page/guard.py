"""Which requests are answered, and what the answers allow the browser to do."""

from __future__ import annotations

import hmac
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..requests import refuse

ONE_TIME_SECONDS = 60
"""How long the token of an address lets a browser in."""
CLOSED = (
    "This browser has not been let in, or the server was started anew. Press Enter "
    "where 'skadma label' runs, and open the address that it prints."
)

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
    machine); what changes anything must come from our origin, as JSON. All but the
    empty page needs both the `cookie`, which no script reads, and the `token` in a
    header, which the page keeps where no other origin reads it: browsers send cookies
    to every port of this machine. Our answers carry the `receipt`, which the page never
    sends: who has this port after us does not know it. A browser gets the three in
    exchange for the token at the end of an address, which serves once, within a minute.
    Requests have to name `campaign`, the id of campaign and person: see `Session.id`.
    """

    def __init__(self, app: ASGIApp, port: int, campaign: str) -> None:
        self._app = app
        self._campaign = campaign
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._in_cookie = f"skadma-{port}", secrets.token_urlsafe(32)
        self.cookie = f"{'='.join(self._in_cookie)}; Path=/; HttpOnly; SameSite=Strict"
        self.token = secrets.token_urlsafe(32)
        self.receipt = secrets.token_urlsafe(32)
        self._one_time: dict[str, float] = {}  # tokens, and until when they serve

    def make_one_time_token(self) -> str:
        """Make what lets a browser in once, within a minute."""
        token = secrets.token_urlsafe(32)
        self._one_time[token] = time.monotonic() + ONE_TIME_SECONDS
        return token

    def takes(self, one_time_token: str) -> bool:
        """Whether a token lets a browser in, this once."""
        return self._one_time.pop(one_time_token, 0) > time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        status, reason = self._reason_against(scope)
        headers = _HEADERS
        if not reason and not _is_public(scope["path"]):
            headers = {**_HEADERS, "x-skadma-receipt": self.receipt}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = MutableHeaders(scope=message)
                for name, value in headers.items():
                    present.setdefault(name, value)
            await send(message)

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
        site = only("sec-fetch-site") or "none"
        if site not in ("same-origin", "none") and path != "/":
            return 403, "Not from another site."
        if scope["method"] == "POST":
            kind = only("content-type").split(";")[0].strip().lower()
            if only("origin") != f"http://{only('host')}":
                return 403, "Not from another site."
            if kind != "application/json" or not only("x-skadma"):
                return 415, "JSON from the page only."
        if _is_public(path):
            return 200, ""
        has_token = hmac.compare_digest(only("x-skadma").encode(), self.token.encode())
        if not has_token or not self._has_cookie(headers.getlist("cookie")):
            return 401, CLOSED
        if path != "/api/about" and only("x-skadma-campaign") != self._campaign:
            return (
                409,
                "Another campaign, or another person's page, is served here by now.",
            )
        return 200, ""

    def _has_cookie(self, values: list[str]) -> bool:
        # By hand: other servers on this host may have set cookies that are none.
        found = [part.strip().partition("=") for v in values for part in v.split(";")]
        name, value = self._in_cookie
        return any(
            cookie == name and hmac.compare_digest(given.encode(), value.encode())
            for cookie, _, given in found
        )


def _is_public(path: str) -> bool:
    """Whether a path needs no token: it discloses nothing."""
    return path in ("/", "/api/session") or path.startswith("/static/")
