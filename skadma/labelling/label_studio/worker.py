"""Work on a campaign in a process of its own, so that a server can go on answering."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any


class Worker:
    """A process that has a campaign open and calls functions with it, one at a time.

    It is started by the first call, and again by the next one if it has died.

    Parameters
    ----------
    folder : Path
        The campaign's.
    options : dict
        Of :meth:`~skadma.Campaign.open`.
    background : bool, default=False
        Let other processes go first.
    """

    def __init__(
        self, folder: Path, options: dict[str, Any], *, background: bool = False
    ) -> None:
        self._arguments = (folder, options, background)
        self._turn = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function(campaign, *arguments)`` there and wait for what it returns.

        Parameters
        ----------
        function : callable
            One of a module.
        *arguments
            As pickles.

        Returns
        -------
        object

        Raises
        ------
        Exception
            What the function raised; RuntimeError if the process died meanwhile.
        """
        with self._turn:
            if self._process is None or not self._process.is_alive():
                self._start()
            assert self._connection is not None
            try:
                self._connection.send((function, arguments))
                good, value = self._connection.recv()
            except (EOFError, OSError) as error:
                self._process.join(5)
                raise RuntimeError(
                    "The process that works on the campaign has ended (exit status "
                    f"{self._process.exitcode}). All that was acknowledged is safe; "
                    "try again."
                ) from error
        if not good:
            raise value
        return value

    def close(self) -> None:
        """End the process; what it was making is made again next time."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(5)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a server has threads
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, *self._arguments), daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._connection = process, ours


def _work(
    connection: Connection, folder: Path, options: dict[str, Any], background: bool
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's business
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if background and hasattr(os, "nice"):
        os.nice(10)
    from ..campaign import Campaign

    campaign = None
    while True:
        function, arguments = connection.recv()
        try:
            if campaign is None:
                campaign = Campaign.open(folder, **options)
            answer = True, function(campaign, *arguments)
        except Exception as error:
            answer = False, _plain(error)
        connection.send(answer)


def _plain(error: Exception) -> Exception:
    """An error that can be sent to another process."""
    return (
        ValueError(str(error))
        if isinstance(error, ValueError)
        else RuntimeError(f"{type(error).__name__}: {error}")
    )


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
