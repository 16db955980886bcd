"""Run tasks by any executor of ``concurrent.futures``; repeat those of lost workers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from functools import partial
from typing import Any

from ..._utils.processes import isolated_children
from .shards import StoreError

_log = logging.getLogger(__name__)

_RETRIES = 3
"""Times that the task of a lost worker is submitted again."""

_N_SUBMITTED = 256
"""Tasks submitted at once: a scheduler need not hold a million."""


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    executor: Executor | Callable[[], Executor] | None,
) -> Iterator[tuple[int, Any]]:
    """Run tasks here (None) or by an executor; yield numbers and results as they end.

    An exception of `function` ends everything. A task that fails otherwise has lost
    its worker and is submitted again. If the executor itself breaks, as
    ``ProcessPoolExecutor`` does when a process is killed, a callable `executor` makes
    another one.
    """
    if executor is None:
        for number, task in enumerate(tasks):
            yield number, function(task)
        return
    yield from _Run(function, tasks, executor).results()


class _Run:
    """Tasks that an executor runs."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        tasks: Iterable[Any],
        executor: Any,
    ) -> None:
        self._function = function
        is_factory = callable(executor) and not hasattr(executor, "submit")
        self._make_executor = executor if is_factory else None
        with isolated_children():
            self._executor = executor() if is_factory else executor
        if not hasattr(self._executor, "submit"):
            raise TypeError(
                f"executor={executor!r} is no concurrent.futures.Executor, such as "
                "ProcessPoolExecutor() or dask's Client.get_executor(), nor a function "
                "that returns one."
            )
        # (number, task, times that its worker was lost)
        self._new = ((number, task, 0) for number, task in enumerate(tasks))
        self._again: deque[tuple[int, Any, int]] = deque()
        self._running: dict[Future[Any], tuple[int, Any, int]] = {}

    def results(self) -> Iterator[tuple[int, Any]]:
        try:
            while self._submit():
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    job = self._running.pop(future)
                    try:
                        error, result = future.result()
                    except Exception as lost:
                        self._repeat(job, lost)
                        continue
                    if error is not None:
                        raise error
                    yield job[0], result
        finally:
            for future in self._running:
                future.cancel()

    def _submit(self) -> bool:
        """Submit tasks; return whether any is running."""
        while len(self._running) < _N_SUBMITTED:
            job = self._again.popleft() if self._again else next(self._new, None)
            if job is None:
                break
            try:
                with isolated_children():  # it may start a process for this
                    future = self._executor.submit(_attempt, self._function, job[1])
            except BrokenExecutor as error:
                if self._running:  # their failures come first
                    self._again.appendleft(job)
                    break
                self._repeat(job, error)
                continue
            self._running[future] = job
        return bool(self._running)

    def _repeat(self, job: tuple[int, Any, int], error: Exception) -> None:
        number, task, n_lost = job
        if n_lost == _RETRIES:
            raise StoreError(
                f"A worker was lost {_RETRIES + 1} times at the same task "
                f"({type(error).__name__}: {error}). It may want for memory. What is "
                "done is kept: call again to go on."
            ) from error
        _log.warning("a worker was lost (%s); its task is repeated", error)
        self._again.append((number, task, n_lost + 1))
        if not isinstance(error, BrokenExecutor):
            return
        if self._make_executor is None:
            raise StoreError(
                f"The executor lost a worker and takes no more work ({error}). What is "
                "done is kept: call again with another one to go on, or give a "
                "function that makes one, such as joblib's get_reusable_executor."
            ) from error
        if not self._running:
            with isolated_children():
                self._executor = self._make_executor()


def _attempt(function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """Return an exception of the function as a value; others are the executor's."""
    try:
        return None, function(task)
    except Exception as error:
        return error, None


# --- partitions of a pool -----------------------------------------------------------


def map_partitions(
    function: Callable[..., Any],
    partitions: Sequence[Any],
    *args: Any,
    executor: Executor | Callable[[], Executor] | None,
) -> list[Any]:
    """Return ``function(rows, *args)`` for the rows of each partition, in order."""
    task = partial(_run_on_partition, function, args)
    found = dict(run_tasks(task, partitions, executor))
    return [found[number] for number in range(len(partitions))]


def _run_on_partition(
    function: Callable[..., Any], args: tuple[Any, ...], rows: Any
) -> Any:
    return function(rows, *args)
