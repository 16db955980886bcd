"""The child process: it trains, chooses and puts like beside like."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import warnings
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)
_DOUBTS = 60


def work(
    connection: Connection,
    folder: Path,
    pool: Path,
    who: str | None,
    wait: float,
    repeat: float,
) -> None:
    """Answer the server until it closes the connection; the child's main function.

    Parameters
    ----------
    connection : Connection
        Numbers of images to choose come in. Out come dictionaries whose ``kind`` is
        "stage", "batch" or "problem".
    folder, pool : Path
    who : str or None
    wait : float
        See :class:`~skadma.Campaign`.
    repeat : float
        Share of pictures to show again.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's business
    _give_way()
    asked: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    from ..campaign import Campaign

    with Campaign.open(folder, pool=pool, who=who, wait=wait) as campaign:
        while True:
            n = asked.get()
            try:
                _answer(connection, campaign, n, repeat)
            except Exception as error:
                _log.exception("the next images could not be chosen")
                connection.send({"kind": "problem", "message": str(error)})


def _listen(connection: Connection, asked: queue.Queue[int]) -> None:
    """Take questions; end at once when the server is gone. The campaign can bear it."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(connection.recv())
    os._exit(0)


def _give_way() -> None:
    """Leave the processor to the page."""
    import torch

    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))


def _answer(connection: Connection, campaign: Any, n: int, repeat: float) -> None:
    stage = "training" if any(campaign.status().labels.values()) else "choosing"
    connection.send({"kind": "stage", "stage": stage})
    if not campaign.candidates():
        campaign.refresh()  # there may be new images
    if campaign.candidates():
        state, proposals = campaign._query(n)
    else:
        state, proposals = campaign._state(), []
        campaign.estimator()  # the last labels count too
    known = [(state.contents[i].sha256, label) for i, label in state.labelled()]
    connection.send({"kind": "stage", "stage": "ordering"})
    as_of = campaign.log()[-1]["id"]
    n_round = campaign._trainer.n_instances
    files = [str(campaign.pool / proposal.path) for proposal in proposals]
    features = np.empty((0, 1))
    if files:
        features = _features(campaign._trainer.model(state), files)
    n_first = len(features) - n_round if len(features) > n_round else len(features)
    first, rest = features[:n_first], features[n_first:]
    # Two people who get the same images begin at different ones.
    begin = zlib.crc32(campaign.who.encode()) % max(n_first, 1)
    order = [*chain(first, begin), *(n_first + i for i in chain(rest))]
    connection.send(
        {
            "kind": "batch",
            "proposals": [
                {
                    "sha256": proposals[i].sha256,
                    "guess": proposals[i].guess,
                    "confidence": proposals[i].confidence,
                }
                for i in order
            ],
            "known": known,
            "repeats": [p.sha256 for p in campaign.repeats_due(repeat)],
            "doubts": _doubts(campaign),
            "as_of": as_of,
        }
    )


def _doubts(campaign: Any) -> list[dict[str, Any]]:
    """Labels that are worth a second look; none where that cannot be told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with too few labels
        doubts = campaign.second_look(_DOUBTS)
    return [
        {
            "sha256": doubt.sha256,
            "before": doubt.label,
            "by": doubt.who,
            "suggested": doubt.suggested,
            "others": doubt.others,
        }
        for doubt in doubts
        if doubt.likely or doubt.others
    ]


def _features(estimator: Any, files: list[str]) -> np.ndarray:
    """What the head receives, of length 1."""
    features = estimator.embed(files, layers=-2)[-2]
    features = features.reshape(len(files), -1)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, 1e-12)


def chain(features: np.ndarray, begin: int = 0) -> list[int]:
    """Put like beside like: from one row always on to the nearest one left.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Rows of length 1.
    begin : int, default=0
        The first row.

    Returns
    -------
    list of int
        All rows. Equals come in their order.
    """
    if not len(features):
        return []
    likeness = features @ features.T
    order = [begin]
    left = np.ones(len(features), dtype=bool)
    left[begin] = False
    while left.any():
        row = np.where(left, likeness[order[-1]], -np.inf)
        order.append(int(row.argmax()))
        left[order[-1]] = False
    return order
