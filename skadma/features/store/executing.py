"""Tasks over any executor of ``concurrent.futures``; lost workers' tasks done again."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any, cast

from .columns import StoreError

_log = logging.getLogger(__name__)

_RETRIES = 3
"""Times that a task is given away again whose worker was lost."""

_AHEAD = 256
"""Tasks given away at once: a scheduler need not hold a million."""


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    executor: Executor | Callable[[], Executor] | None,
) -> Iterator[tuple[int, Any]]:
    """Do tasks here or elsewhere, in whatever order they end.

    An error that `function` raises ends everything. What ends a task otherwise is its
    worker's loss, and the task is given away again.

    Parameters
    ----------
    function : callable
        Importable where the work is done.
    tasks : sequence
    executor : Executor, callable that makes one, or None
        None: here, one after the other. A callable is asked for another executor when
        one broke: ``ProcessPoolExecutor`` does when a process is killed.

    Yields
    ------
    number : int
        Of the task.
    result : object

    Raises
    ------
    StoreError
        If a task's worker was lost again and again.
    """
    if executor is None:
        for number, task in enumerate(tasks):
            yield number, function(task)
        return
    yield from _Away(function, tasks, executor).results()


class _Away:
    """Tasks that are done elsewhere."""

    _make: Any
    _executor: Any

    def __init__(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        executor: Executor | Callable[[], Executor],
    ) -> None:
        self._function, self._tasks = function, tasks
        makes = callable(executor) and not hasattr(executor, "submit")
        self._make = executor if makes else None
        self._executor = executor
        if makes:
            self._executor = cast(Any, executor)()
        if not hasattr(self._executor, "submit"):
            raise TypeError(
                f"executor={executor!r} is no concurrent.futures.Executor, such as "
                "ProcessPoolExecutor() or dask's Client.get_executor(), nor a function "
                "that returns one."
            )
        self._waiting = deque(range(len(tasks)))
        self._away: dict[Future, int] = {}
        self._n_lost = dict.fromkeys(self._waiting, 0)

    def results(self) -> Iterator[tuple[int, Any]]:
        try:
            while self._waiting or self._away:
                self._give_away()
                done, _ = wait(self._away, return_when=FIRST_COMPLETED)
                for future in done:
                    number = self._away.pop(future)
                    try:
                        well, result = future.result()
                    except Exception as error:
                        self._lost(number, error)
                        continue
                    if not well:
                        raise result
                    yield number, result
        finally:
            for future in self._away:
                future.cancel()

    def _give_away(self) -> None:
        while self._waiting and len(self._away) < _AHEAD:
            number = self._waiting.popleft()
            try:
                future = self._executor.submit(
                    _attempt, self._function, self._tasks[number]
                )
            except BrokenExecutor as error:
                if self._away:  # what it had comes back first
                    self._waiting.appendleft(number)
                    return
                self._lost(number, error)
                continue
            self._away[future] = number

    def _lost(self, number: int, error: Exception) -> None:
        self._n_lost[number] += 1
        if self._n_lost[number] > _RETRIES:
            raise StoreError(
                f"A worker was lost {_RETRIES + 1} times at the same part of the pool "
                f"({type(error).__name__}: {error}). It may want for memory. What is "
                "done is kept: call again to go on."
            ) from error
        _log.warning("a worker was lost (%s); its part is done again", error)
        self._waiting.append(number)
        if not isinstance(error, BrokenExecutor):
            return
        if self._make is None:
            raise StoreError(
                f"The executor lost a worker and takes no more work ({error}). What is "
                "done is kept: call again with another one to go on, or give a "
                "function that makes one, such as joblib's get_reusable_executor."
            ) from error
        if not self._away:
            self._executor = self._make()


def _attempt(function: Callable[[Any], Any], task: Any) -> tuple[bool, Any]:
    """Tell what a task raises from what ends its worker."""
    try:
        return True, function(task)
    except Exception as error:
        return False, error
