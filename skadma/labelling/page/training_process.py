"""The server's side of the child process."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .worker import work

_PAUSE = 10.0
"""Seconds before a child that ended is started again."""


class TrainingProcess:
    """Start the child process, ask it, hear it, end it.

    Parameters
    ----------
    arguments : tuple
        What :func:`~skadma.labelling.page.worker.work` takes after the connection.
    hear : callable
        Called with each message, in a thread of its own.

    Attributes
    ----------
    busy : bool
        Whether an answer is due.
    """

    def __init__(
        self, arguments: tuple[Any, ...], hear: Callable[[dict[str, Any]], object]
    ) -> None:
        self.busy = False
        self._arguments = arguments
        self._hear = hear
        self._process: Any = None
        self._listener: threading.Thread | None = None
        self._runs = False
        self._connection: Connection | None = None
        self._started = 0.0
        self._closed = False

    def ask(self, n: int, shown: list[str]) -> bool:
        """Have the next images chosen; False if the child rests after an accident."""
        if self._closed or self.busy:
            return False
        if not self._runs:
            if time.monotonic() - self._started < _PAUSE and self._started:
                return False
            self._start()
        assert self._connection is not None
        self.busy = True
        try:
            self._connection.send((n, shown))
        except OSError:  # it ends just now; its thread says so
            return False
        return True

    def close(self) -> None:
        """End the child: what it was making is made again next time."""
        self._closed = True
        if self._listener is not None:
            self._process.terminate()
            self._listener.join()

    def _start(self) -> None:
        # Not a fork: this process has threads.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._started = time.monotonic()
        self._process = context.Process(
            target=work, args=(theirs, *self._arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection = ours
        self._runs = True
        self._listener = threading.Thread(
            target=self._listen, args=(ours, self._process), daemon=True
        )
        self._listener.start()

    def _listen(self, connection: Connection, process: Any) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                if message["kind"] in ("batch", "problem"):
                    self.busy = False
                self._hear(message)
        # Nobody else asks whether it has ended: a second thread that does, at the same
        # moment, is told that it has not.
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
        self._runs = self.busy = False
        if not self._closed:
            self._hear(
                {
                    "kind": "problem",
                    "message": "The process that trains has ended (exit status "
                    f"{process.exitcode}). It is started again; all labels are safe.",
                }
            )
