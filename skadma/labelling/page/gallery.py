"""All pictures of a campaign, in pages, and what is computed of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from ..campaign import CampaignError
from ..campaign.ledger import Ledger
from ..campaign.overview import guess_all, map_pool, rank_similar

KINDS: dict[str, Callable[..., Any]] = {
    "guesses": guess_all,
    "map": map_pool,
    "similar": rank_similar,
}
_KEPT = 8
"""Results of the process that trains."""


class Gallery:
    """Tell the page about all pictures but those of audits. For the thread of the log.

    `call` calls a function in the process that trains, `submit` one in this thread.
    """

    def __init__(
        self, ledger: Ledger, call: Callable[..., Any], submit: Callable[..., None]
    ) -> None:
        self._ledger = ledger
        self._call = call
        self._submit = submit
        self._computed: dict[tuple[str, str, int], Any] = {}
        self.model = 0  # another number when there is a newer model

    def rows(self, start: int, n: int, contents: Sequence[str]) -> dict[str, Any]:
        """Path, mark and who gave it: of contents, or of `n` in the pool's order."""
        self._ledger.update()
        there = self._ledger.available()
        rows = []
        for sha256 in contents or islice(there, start, start + n):
            if sha256 in there:
                held = self._ledger.decision(sha256)
                given = (held.mark, held.who) if held else (None, None)
                rows.append((sha256, self._ledger.paths[there[sha256]], *given))
        return {**self._pool(), "as_of": self._ledger.as_of, "rows": rows}

    def overview(self, kind: str, sha256: str, have: int) -> dict[str, Any]:
        """What the process computes of the pool, in its order, once it is there.

        `have` is the model of the guesses that the page has.
        """
        self._ledger.update()
        there = self._ledger.available()
        key = kind, sha256, self.model if kind == "guesses" else len(there)
        found = self._compute(key, [sha256] if sha256 else [])
        if found is None and kind == "guesses":  # those of an older model meanwhile
            done = (k for k, v in self._computed.items() if k[0] == kind and v)
            key = max(done, key=lambda k: k[2], default=key)
            found = self._computed[key]
        if found is None or (kind == "guesses" and key[2] == have):
            return {"waiting": True}
        if kind == "similar":
            return {"values": [name for name in found if name in there]}
        more: dict[str, Any] = {}
        if kind == "guesses":
            as_of, more["n_known"], found = found
            more["model"] = key[2]
            names = {name for name, _ in found.values()}
            now = {name: self._ledger.present_name(name, as_of) for name in names}
            found = {s: (now[g], round(p, 4)) for s, (g, p) in found.items() if now[g]}
        return {**self._pool(), **more, "values": [found.get(s) for s in there]}

    def _pool(self) -> dict[str, Any]:
        """What tells whether two answers are about the same pictures in order."""
        there = self._ledger.available()
        return {"pool": hash(tuple(there)) % 2**53, "n_images": len(there)}

    def _compute(self, key: tuple[str, str, int], arguments: list[str]) -> Any:
        """Return what is computed by this name; None as long as it is not there."""
        if key not in self._computed:
            for old in list(self._computed)[:-_KEPT]:
                del self._computed[old]
            self._computed[key] = None
            threading.Thread(
                target=self._run, args=(key, arguments), daemon=True
            ).start()
        found = self._computed[key]
        if isinstance(found, Exception):
            del self._computed[key]  # so that it can be tried again
            raise found
        return found

    def _run(self, key: tuple[str, str, int], arguments: list[str]) -> None:
        try:
            found = self._call(KINDS[key[0]], *arguments)
        except (ValueError, RuntimeError) as error:
            found = CampaignError(str(error))
        self._submit(self._computed.__setitem__, key, found)
