"""All pictures of a campaign, in pages, and what is computed of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from ..campaign import CampaignError
from ..campaign.ledger import Ledger
from ..campaign.overview import guess_all, map_pool, rank_similar

KINDS: Any = {"guesses": guess_all, "map": map_pool, "similar": rank_similar}


class Gallery:
    """Tell the page about all pictures but those of audits. For the log's thread."""

    def __init__(self, ledger: Ledger, call: Callable[..., Any]) -> None:
        self._ledger = ledger
        self._call = call
        self.calls = ThreadPoolExecutor(1, "gallery")
        self._results: dict[Any, Future[Any]] = {}
        self._guesses: tuple[int, int, dict[str, tuple[str, float]]] = 0, 0, {}
        self.model = 0  # another number when there is a newer model

    def rows(self, start: int, n: int, contents: Sequence[str]) -> dict[str, Any]:
        """Path, mark and who gave it: of contents, or of `n` in the pool's order."""
        self._ledger.update()
        there, rows = self._ledger.available(), []
        wanted = contents or islice(there, start, start + n)
        for sha256 in filter(there.__contains__, wanted):
            held = self._ledger.decision(sha256)
            given = (held.mark, held.who) if held else (None, None)
            rows.append((sha256, self._ledger.paths[there[sha256]], *given))
        return {"pool": _digest(there), "as_of": self._ledger.as_of, "rows": rows}

    def overview(self, kind: str, sha256: str, have: int) -> dict[str, Any]:
        """What was computed of the pool, in its order; `have`: the guesses' `as_of`."""
        self._ledger.update()
        there = self._ledger.available()
        more: Any = {"pool": _digest(there)}
        version = self.model if kind == "guesses" else more["pool"]
        found = self._result(kind, [sha256] if sha256 else [], version)
        if kind == "guesses":
            self._guesses = found or self._guesses
            as_of, n_known, guesses = self._guesses
            more |= {"guesses_as_of": as_of, "n_known": n_known}
            names = {name for name, _ in guesses.values()}
            now = {name: self._ledger.present_name(name, as_of) for name in names}
            found = {s: (now[g], round(p, 4)) for s, (g, p) in guesses.items()} or None
        if found is None or more.get("guesses_as_of") == have:
            return {"waiting": True, "pool": more["pool"]}
        if kind == "similar":
            return {"values": [name for name in found if name in there]}
        return {**more, "values": [found.get(s) for s in there]}

    def _result(self, kind: str, given: list[str], version: Any) -> Any:
        """Return what the process computed; None as long as it is not there."""
        key = (kind, *given, version)
        if key not in self._results:
            for old in list(self._results)[:-8]:
                del self._results[old]
            self._results[key] = self.calls.submit(self._call, KINDS[kind], *given)
        try:
            return self._results[key].result() if self._results[key].done() else None
        except (ValueError, RuntimeError) as error:
            del self._results[key]  # so that it can be tried again
            raise CampaignError(str(error)) from error


def _digest(contents: Iterable[str]) -> str:
    """Name the pool: it changes when pictures come, go or are drawn for an audit."""
    return hashlib.sha256("".join(contents).encode()).hexdigest()
