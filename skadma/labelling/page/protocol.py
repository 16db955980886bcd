"""Limits on connections, so that silent ones cannot keep the page from working."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64
SECONDS_TO_ASK = 20.0
"""How long the head and the body of a request may take to arrive."""
SECONDS_TO_ANSWER = 120.0
"""How long an answer may take, until the client has read it."""


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with limits on the number and the time of connections.

    Where there are too many, one is closed: the one that waits for its client the
    longest, if any, and rather one that never had a request. A new one is never
    refused, so many silent ones keep nobody out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, and close another one if there are too many."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._waited = True
        self._timer = self.loop.call_later(SECONDS_TO_ASK / 10, self._check)
        if len(self.connections) > MAX_CONNECTIONS:
            others: Any = self.connections - {self}
            oldest = min(others, key=LimitedProtocol._use)
            oldest.transport.abort()
            self.connections.discard(oldest)

    def _use(self) -> tuple[bool, bool, float]:
        return not self.waits_for_client, self.cycle is not None, self._since

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    @property
    def waits_for_client(self) -> bool:
        """Whether the client has a request, or the rest of one, to send."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def handle_events(self) -> None:
        """Take in what arrived; each change of whose turn it is begins a time."""
        super().handle_events()
        if self.waits_for_client != self._waited:
            self._waited = self.waits_for_client
            self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._since = self.loop.time()

    def _check(self) -> None:
        limit = SECONDS_TO_ASK if self.waits_for_client else SECONDS_TO_ANSWER
        if self.loop.time() - self._since > limit:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(SECONDS_TO_ASK / 10, self._check)
