"""The child process: it trains and chooses."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..campaign import Campaign, SuspectLabel

_log = logging.getLogger(__name__)
_DOUBTS = 60
_REPEATS = 500
_JUDGED = 20
"""Repeats that the present model judges, in case no other can."""


def work(
    connection: Connection,
    folder: Path,
    pool: Path,
    who: str | None,
    wait: float,
    repeat: bool,
    pools: Mapping[str, Path] | None = None,
) -> None:
    """Answer the server until it closes the connection; the child's main function.

    Parameters
    ----------
    connection : Connection
        How many images to choose, and which ones are shown already, comes in. Out come
        dictionaries whose ``kind`` is "stage", "batch" or "problem".
    folder, pool : Path
    who : str or None
    wait : float
        See :class:`~skadma.Campaign`.
    repeat : bool
        Choose pictures to show again, too.
    pools : mapping of str to Path, optional
        Where those of pools are that were added, by name, if they moved.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own would be left behind by our end
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's business
    _give_way()
    asked: queue.Queue[tuple[int, list[str]]] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    from ..campaign import Campaign

    options = {"pool": pool, "pools": pools, "who": who, "wait": wait}
    with Campaign.open(folder, **options) as campaign:
        while True:
            n, shown = asked.get()
            try:
                _answer(connection, campaign, n, shown, repeat)
            except Exception as error:
                _log.exception("the next images could not be chosen")
                connection.send({"kind": "problem", "message": str(error)})


def _listen(connection: Connection, asked: queue.Queue) -> None:
    """Take questions; end at once when the server is gone. The campaign can bear it."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(connection.recv())
    os._exit(0)


def _give_way() -> None:
    """Leave the processor to the page."""
    import torch

    if hasattr(os, "nice"):
        os.nice(5)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))


def _answer(
    connection: Connection, campaign: Campaign, n: int, shown: list[str], repeat: bool
) -> None:
    from ..campaign.prefetch import prefetch_batch

    stage = "training" if any(campaign.status().labels.values()) else "choosing"
    connection.send({"kind": "stage", "stage": stage})
    again = [p.sha256 for p in campaign.repeats_due(1)[:_REPEATS]] if repeat else []
    ahead = prefetch_batch(campaign, n, [*shown, *again[:_JUDGED]])
    doubts = _doubts(campaign)
    # The present model was told the labels of these: rather one that was not.
    unseen = {d.sha256: (d.suggested, d.confidence) for d in doubts if d.suggested}
    guesses = {**ahead.guesses, **unseen}
    connection.send(
        {
            "kind": "batch",
            "proposals": [
                {"sha256": p.sha256, "guess": p.guess, "confidence": p.confidence}
                for p in ahead.proposals
            ],
            "known": ahead.known,
            "guesses": {s: g for s, g in ahead.guesses.items() if s in shown},
            "as_of": ahead.as_of,
            # In order; the page's side knows how many are due.
            "repeats": {sha256: guesses.get(sha256) for sha256 in again},
            "doubts": [_listed(d) for d in doubts[:_DOUBTS] if d.likely or d.others],
        }
    )


def _doubts(campaign: Campaign) -> list[SuspectLabel]:
    """What models that did not see the labels make of them; none where none can be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with too few labels
        return campaign.second_look()


def _listed(doubt: SuspectLabel) -> dict[str, Any]:
    return {
        "sha256": doubt.sha256,
        "before": doubt.label,
        "by": doubt.who,
        "suggested": doubt.suggested,
        "others": doubt.others,
    }
