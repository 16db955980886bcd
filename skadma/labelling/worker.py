"""A process that works on a campaign, so that a server can go on answering."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .._utils.processes import end_with_parent, isolated_children

_log = logging.getLogger(__name__)


class WorkerEndedError(RuntimeError):
    """The process ended during a call."""

    def __init__(self, exitcode: int | None) -> None:
        super().__init__(
            f"The process that works on the campaign has ended (exit status {exitcode})"
            ". All that was acknowledged is safe; try again."
        )
        self.exitcode = exitcode


class Worker:
    """A process that has a campaign open and calls functions with it, one at a time.

    The first call starts it, and so does the next one after it has ended. `options` are
    those of `Campaign.open`. In the background it leaves the processor to others.
    """

    def __init__(
        self, folder: Path, options: Mapping[str, Any], *, background: bool = False
    ) -> None:
        options = dict(options)  # with paths that hold in the process's own folder
        if options.get("pool") is not None:
            options["pool"] = Path(options["pool"]).absolute()
        pools = options.get("pools") or {}
        options["pools"] = {name: Path(path).absolute() for name, path in pools.items()}
        self._arguments = (folder.absolute(), options, background)
        self._turn = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self._closed = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function(campaign, *arguments)`` there; return or raise what it does.

        The function must be one of a module. Errors are ValueError or RuntimeError;
        `WorkerEndedError` if the process ended meanwhile.
        """
        with self._turn:
            if self._closed:  # while this call waited
                raise WorkerEndedError(None)
            if self._process is None or not self._process.is_alive():
                self._start()
            assert self._connection is not None
            try:
                self._connection.send((function, arguments))
                good, value = self._connection.recv()
            except (EOFError, OSError) as error:
                process, self._process = self._process, None
                process.join(5)
                if process.is_alive():
                    process.kill()
                    process.join()
                raise WorkerEndedError(process.exitcode) from error
        if not good:
            raise value
        return value

    def close(self) -> None:
        """End the process for good; what it acknowledged is safe."""
        self._closed = True
        if (process := self._process) is not None:
            process.terminate()
            process.join(5)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a server has threads
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, *self._arguments), daemon=True
        )
        with isolated_children():
            process.start()
        theirs.close()
        self._process, self._connection = process, ours
        if self._closed:  # in another thread, just now
            process.terminate()


def _work(
    connection: Connection, folder: Path, options: dict[str, Any], background: bool
) -> None:
    """Answer calls until the server ends; the process's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    os.chdir(sys.prefix)  # not among images, which may be anybody's
    end_with_parent()
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own outlives a process that is terminated
    if background:
        # Read by torch and by NumPy's libraries, once they are imported.
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) - 1))
        if hasattr(os, "nice"):
            os.nice(5)
    from .campaign import Campaign

    campaign = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = connection.recv()
            try:
                if campaign is None:
                    campaign = Campaign.open(folder, **options)
                answer: tuple[bool, Any] = True, function(campaign, *arguments)
            except ValueError as error:  # made anew, as not every error can be sent
                answer = False, ValueError(str(error))
            except Exception as error:
                _log.exception("%s failed", function.__name__)
                answer = False, RuntimeError(f"{type(error).__name__}: {error}")
            connection.send(answer)
